//! Resources as cgroup settings: the tree `kubepods/{burstable,besteffort}/pod<uid>` with pod-level limits, and the
//! values of single containers. cgroup v1 and v2 differ only in [`Tree`], which writes the files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use corten_runtime::Resources;

use crate::pod::{PodExt, Qos, is_sidecar};
use crate::quantity::{self, amount};

const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// `/kubepods/burstable/pod<uid>`, below `root`.
pub fn pod_path(root: &str, pod: &Pod) -> String {
    let uid = pod.uid();
    match pod.qos() {
        Qos::Guaranteed => format!("{root}/pod{uid}"),
        Qos::Burstable => format!("{root}/burstable/pod{uid}"),
        Qos::BestEffort => format!("{root}/besteffort/pod{uid}"),
    }
}

/// What the values of containers depend on besides the pod.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// Bytes.
    pub memory: i64,
    /// Sizes of huge pages in bytes, and how many there are.
    pub hugepages: &'a [(i64, i64)],
    /// Whether the cgroups are of version 2.
    pub unified: bool,
}

/// The values of one container.
pub fn container(pod: &Pod, container: &Container, node: Node<'_>) -> Resources {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let cpu_limit = amount(limits, "cpu").unwrap_or(0);
    let cpu_request = amount(requests, "cpu").or_else(|| amount(limits, "cpu")).unwrap_or(0);
    // Huge pages have to be asked for: of every other size a container gets none.
    let mut hugepages: BTreeMap<_, _> = node.hugepages.iter().map(|(size, _)| (page_size(*size), 0)).collect();
    for (name, limit) in limits.into_iter().flatten() {
        if let Some(size) = name.strip_prefix("hugepages-") {
            let bytes = quantity::value(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(size.to_owned()));
            hugepages.insert(page_size(bytes), u64::try_from(quantity::value(limit)).unwrap_or(0));
        }
    }
    Resources {
        cpu_period: PERIOD,
        cpu_quota: quota(cpu_limit),
        cpu_shares: shares(cpu_request),
        memory_limit: amount(limits, "memory").unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, container, node.memory),
        hugepages,
        unified: if node.unified { unified() } else { BTreeMap::new() },
        ..Resources::default()
    }
}

/// Version 2 only, as upstream: no container swaps, also one without a limit, and one that runs out of memory ends as a
/// whole instead of going on without one of its processes.
fn unified() -> BTreeMap<String, String> {
    [("memory.swap.max", "0"), ("memory.oom.group", "1")].map(|(file, value)| (file.to_owned(), value.to_owned())).into()
}

/// Version 1 shares of a version 2 weight, by KEP-2254's line, which upstream's kubelet keeps for its own groups.
pub fn weight_to_shares(weight: f64) -> f64 {
    ((weight - 1.0) * 262_142.0 / 9999.0).floor() + 2.0
}

/// How early the kernel kills a container when the node runs out of memory: the smaller the request's part of the node,
/// the earlier.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const SYSTEM_CRITICAL: i32 = 2_000_000_000;
    if pod.spec().priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL) {
        return -997;
    }
    match pod.qos() {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let score = |container: &Container| {
                let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
                let request = amount(requests, "memory").unwrap_or(0);
                let score = 1000 - i128::from(request) * 1000 / i128::from(memory_capacity.max(1));
                (score as i64).clamp(3, 999)
            };
            let own = score(container);
            // A sidecar must not die before the containers it serves.
            if is_sidecar(container) && pod.init_containers().iter().any(|init| init.name == container.name) {
                return pod.spec().containers.iter().map(score).min().map_or(own, |least| least.min(own));
            }
            own
        }
    }
}

/// Settings of a pod's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// Weight on the v1 scale.
    pub cpu_shares: i64,
    /// Microseconds per 100 ms; `None` is no limit.
    pub cpu_quota: Option<i64>,
    /// Bytes; `None` is no limit.
    pub memory: Option<i64>,
    /// Processes; `None` is no limit.
    pub pids: Option<i64>,
}

/// Settings of a pod's cgroup: a limit only where every container has one.
pub fn pod_limits(pod: &Pod, pids: i64) -> PodLimits {
    let requests = pod.requests();
    let pids = (pids > 0).then_some(pids);
    let level = pod.spec().resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let limit = |name: &str| -> Option<i64> {
        if let Some(limit) = amount(level, name).filter(|limit| *limit > 0) {
            return Some(limit);
        }
        let of = |container: &Container| {
            let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            amount(limits, name).filter(|limit| *limit > 0)
        };
        let mut total = 0;
        for container in &pod.spec().containers {
            total += of(container)?;
        }
        let mut sidecars = 0;
        let mut peak = 0;
        for container in pod.init_containers() {
            let own = of(container)?;
            if is_sidecar(container) {
                sidecars += own;
                peak = peak.max(sidecars);
            } else {
                peak = peak.max(sidecars + own);
            }
        }
        let overhead = amount(pod.spec().overhead.as_ref(), name).unwrap_or(0);
        (total > 0).then(|| peak.max(total + sidecars) + overhead)
    };
    match pod.qos() {
        Qos::BestEffort => PodLimits { cpu_shares: MIN_SHARES, pids, ..PodLimits::default() },
        Qos::Guaranteed | Qos::Burstable => PodLimits {
            cpu_shares: shares(requests.get("cpu").copied().unwrap_or(0)),
            cpu_quota: limit("cpu").map(quota),
            memory: limit("memory"),
            pids,
        },
    }
}

/// CPU shares of thousandths of a CPU.
pub fn shares(milli: i64) -> i64 {
    if milli == 0 { MIN_SHARES } else { (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// CPU quota per 100 ms of thousandths of a CPU; 0 is none.
pub fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * PERIOD / 1000).max(MIN_QUOTA) }
}

fn page_size(bytes: i64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        bytes => format!("{}KB", bytes >> 10),
    }
}

/// The mounted cgroup hierarchy.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    unified: bool,
}

/// A cgroup file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub struct CgroupError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Tree {
    /// The hierarchy at `root` (`/sys/fs/cgroup`).
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), unified: root.join("cgroup.controllers").exists() }
    }

    /// Whether this is cgroup v2.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Whether this is cgroup v2 and memory is counted there: some controllers may still be on v1.
    pub fn has_unified_memory(&self) -> bool {
        let controllers = std::fs::read_to_string(self.root.join("cgroup.controllers")).unwrap_or_default();
        self.unified && controllers.split_whitespace().any(|controller| controller == "memory")
    }

    /// Makes `path` and everything above it in every hierarchy, with the controllers that pods need.
    pub fn create(&self, path: &str) -> Result<(), CgroupError> {
        for (hierarchy, controllers) in self.hierarchies() {
            let mut at = hierarchy;
            for part in path.split('/').filter(|part| !part.is_empty()) {
                if self.unified {
                    // A controller that the kernel lacks must not keep the others away.
                    for controller in &controllers {
                        let _ = std::fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
                    }
                }
                let parent = at.clone();
                at.push(part);
                match std::fs::create_dir(&at) {
                    Ok(()) => self.inherit_cpuset(&parent, &at),
                    Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(CgroupError { doing: "create cgroup", path: at, source }),
                }
            }
        }
        Ok(())
    }

    /// Sets the limits of `path`.
    pub fn limit(&self, path: &str, limits: &PodLimits) -> Result<(), CgroupError> {
        let or_max = |value: Option<i64>| value.map_or("max".to_owned(), |value| value.to_string());
        if self.unified {
            // The weight has a scale of its own: 2..262144 becomes 1..10000.
            let weight = 1 + (limits.cpu_shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES);
            self.write("", path, "cpu.weight", &weight.to_string())?;
            self.write("", path, "cpu.max", &format!("{} {PERIOD}", or_max(limits.cpu_quota)))?;
            self.write("", path, "memory.max", &or_max(limits.memory))?;
            self.write("", path, "pids.max", &or_max(limits.pids))
        } else {
            self.write("cpu", path, "cpu.shares", &limits.cpu_shares.to_string())?;
            self.write("cpu", path, "cpu.cfs_period_us", &PERIOD.to_string())?;
            self.write("cpu", path, "cpu.cfs_quota_us", &limits.cpu_quota.unwrap_or(-1).to_string())?;
            self.write("memory", path, "memory.limit_in_bytes", &limits.memory.unwrap_or(-1).to_string())?;
            self.write("pids", path, "pids.max", &or_max(limits.pids))
        }
    }

    /// Removes `path` and what is left below it. What still has processes stays, for the next try.
    pub fn remove(&self, path: &str) -> Result<(), CgroupError> {
        for (hierarchy, _) in self.hierarchies() {
            let at = hierarchy.join(path.trim_start_matches('/'));
            if let Err(source) = remove_tree(&at) {
                return Err(CgroupError { doing: "remove cgroup", path: at, source });
            }
        }
        Ok(())
    }

    /// Names of the directories directly below `path`.
    pub fn children(&self, path: &str) -> Vec<String> {
        let Some((hierarchy, _)) = self.hierarchies().into_iter().next() else { return Vec::new() };
        let entries = std::fs::read_dir(hierarchy.join(path.trim_start_matches('/')));
        let entries = entries.into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// A number in a file of `path`: of `controller` on v1.
    pub fn read(&self, controller: &str, path: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.file(controller, path, file)).ok()
    }

    /// CPU time in nanoseconds and memory in use (all, working set, resident) in bytes of `path`.
    pub fn usage(&self, path: &str) -> Option<Usage> {
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        if self.unified {
            let cpu = self.read("", path, "cpu.stat")?;
            let stat = self.read("", path, "memory.stat").unwrap_or_default();
            // The root has no count of its own: what its processes hold and the page cache are that.
            let memory = number(self.read("", path, "memory.current"));
            let memory = memory.unwrap_or_else(|| field(&stat, "anon") + field(&stat, "file"));
            Some(Usage {
                cpu_nanos: field(&cpu, "usage_usec") * 1000,
                memory,
                working_set: memory.saturating_sub(field(&stat, "inactive_file")),
                rss: field(&stat, "anon"),
                swap: number(self.read("", path, "memory.swap.current")).unwrap_or(0),
                page_faults: field(&stat, "pgfault"),
                major_page_faults: field(&stat, "pgmajfault"),
            })
        } else {
            let memory = number(self.read("memory", path, "memory.usage_in_bytes"))?;
            let stat = self.read("memory", path, "memory.stat").unwrap_or_default();
            Some(Usage {
                cpu_nanos: number(self.read("cpuacct", path, "cpuacct.usage")).unwrap_or(0),
                memory,
                working_set: memory.saturating_sub(field(&stat, "total_inactive_file")),
                rss: field(&stat, "total_rss"),
                swap: field(&stat, "total_swap"),
                page_faults: field(&stat, "total_pgfault"),
                major_page_faults: field(&stat, "total_pgmajfault"),
            })
        }
    }

    fn hierarchies(&self) -> Vec<(PathBuf, Vec<&'static str>)> {
        if self.unified {
            return vec![(self.root.clone(), vec!["cpu", "cpuset", "memory", "pids", "io", "hugetlb"])];
        }
        let controllers = ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "devices", "freezer"];
        let mounted = controllers.into_iter().map(|controller| self.root.join(controller)).filter(|path| path.is_dir());
        // `cpu` and `cpuacct` are links to one hierarchy on most systems.
        let mut real: Vec<PathBuf> = mounted.map(|path| path.canonicalize().unwrap_or(path)).collect();
        real.sort_unstable();
        real.dedup();
        real.into_iter().map(|path| (path, Vec::new())).collect()
    }

    /// A new v1 cpuset is empty, and nothing can run in it until it has what its parent has.
    fn inherit_cpuset(&self, parent: &Path, child: &Path) {
        if self.unified || !parent.join("cpuset.cpus").exists() {
            return;
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read_to_string(parent.join(file)) {
                let _ = std::fs::write(child.join(file), value.trim());
            }
        }
    }

    fn file(&self, controller: &str, path: &str, file: &str) -> PathBuf {
        let root = if self.unified { self.root.clone() } else { self.root.join(controller) };
        root.join(path.trim_start_matches('/')).join(file)
    }

    fn write(&self, controller: &str, path: &str, file: &str, value: &str) -> Result<(), CgroupError> {
        let target = self.file(controller, path, file);
        match std::fs::write(&target, value) {
            Ok(()) => Ok(()),
            // The controller is not there, so there is nothing to limit.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(CgroupError { doing: "write", path: target, source }),
        }
    }
}

/// Readings of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub memory: u64,
    pub working_set: u64,
    pub rss: u64,
    pub swap: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

fn remove_tree(at: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(at) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(err),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(at) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::pod;

    #[test]
    #[rustfmt::skip]
    fn resources_become_cgroup_values() {
        //    resources                                                      shares quota   memory      oom
        check("{}",                                                          2,     0,      0,          1000);
        check("{requests: {cpu: 500m, memory: 256Mi}}",                      512,   0,      0,          750);
        check("{limits: {cpu: 2, memory: 1Gi}}",                             2048,  200000, 1 << 30,    -997);
        check("{requests: {cpu: 1m}, limits: {cpu: 5m}}",                    2,     1000,   0,          999);
        #[track_caller]
        fn check(resources: &str, shares: i64, quota: i64, memory: i64, oom: i64) {
            let pod = pod(&format!("{{containers: [{{name: a, resources: {resources}}}]}}"));
            let got = container(&pod, &pod.spec().containers[0], Node { memory: 1 << 30, hugepages: &[(2 << 20, 4)], unified: true });
            assert_eq!((got.hugepages["2MB"], got.unified["memory.oom.group"].as_str()), (0, "1"));
            assert_eq!((got.cpu_shares, got.cpu_quota, got.memory_limit, got.oom_score_adj), (shares, quota, memory, oom));
        }
    }

    #[test]
    fn a_pod_is_limited_where_all_its_containers_are() {
        let both = pod(
            "{containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}, {name: b, resources: {limits: {memory: 1Gi}}}]}",
        );
        let limits = pod_limits(&both, 100);
        assert_eq!((limits.cpu_quota, limits.memory, limits.pids), (None, Some(2 << 30), Some(100)));
        assert_eq!(pod_path("/kubepods", &both), "/kubepods/burstable/podu1");
    }

    #[test]
    fn both_versions_write_their_files() {
        let limits = PodLimits { cpu_shares: 1024, cpu_quota: Some(50_000), memory: Some(1 << 20), pids: None };
        for unified in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            if unified {
                std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory").expect("writable");
            } else {
                for controller in ["cpu", "memory", "pids"] {
                    std::fs::create_dir(dir.path().join(controller)).expect("writable");
                }
            }
            let tree = Tree::at(dir.path());
            tree.create("/kubepods/burstable/podx").expect("created");
            tree.limit("/kubepods/burstable/podx", &limits).expect("limited");
            let read = |controller, file| tree.read(controller, "/kubepods/burstable/podx", file).expect("written");
            if unified {
                assert_eq!((read("", "cpu.weight"), read("", "cpu.max")), ("39".to_owned(), "50000 100000".to_owned()));
                assert_eq!((read("", "memory.max"), read("", "pids.max")), ("1048576".to_owned(), "max".to_owned()));
            } else {
                assert_eq!((read("cpu", "cpu.shares"), read("cpu", "cpu.cfs_quota_us")), ("1024".to_owned(), "50000".to_owned()));
                assert_eq!(read("memory", "memory.limit_in_bytes"), "1048576");
            }
            assert_eq!(tree.children("/kubepods/burstable"), ["podx"]);
        }
    }
}
