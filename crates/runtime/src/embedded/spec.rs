//! The OCI runtime specification of a container, from what the kubelet asks for and what the image says. Pure: every
//! fact about the machine is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::record::{DeviceNode, ProcessRecord};
use super::shim_default_path;
use crate::cri::{ContainerConfig, Propagation, Resources, SeccompProfile};
use crate::images::manifest::RunConfig;
use crate::images::users::Users;

pub mod capabilities;
pub mod seccomp;

/// Facts that a specification depends on besides the two configurations.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Root file system's path.
    pub rootfs: PathBuf,
    /// Control group of the container.
    pub cgroup: String,
    /// Directories of that group with their controllers; empty on version 2.
    pub cgroup_directories: Vec<(String, PathBuf)>,
    /// Namespaces to join: OCI's name of the kind and a path under `/proc`.
    pub join: Vec<(&'static str, String)>,
    /// Whether it gets a PID namespace of its own.
    pub own_pids: bool,
    /// The sandbox's `/dev/shm`.
    pub shm: PathBuf,
    /// Files of `/etc` that the sandbox provides: file name there, and path on the node.
    pub etc: Vec<(&'static str, PathBuf)>,
    /// Device nodes.
    pub devices: Vec<DeviceNode>,
    /// Capabilities that this process may hand on.
    pub capabilities: BTreeSet<&'static str>,
    /// The lowest `oom_score_adj` that this process may give.
    pub lowest_oom_score: i64,
    /// How many files a process may open.
    pub open_files: u64,
}

/// What runs: command, environment, directory and user. Errors are the user's fault and in words for them.
///
/// # Errors
/// When there is no command, or the user is unknown.
pub fn process(config: &ContainerConfig, image: &RunConfig, users: &Users, hostname: &str) -> Result<ProcessRecord, String> {
    let args = command(config, image);
    if args.is_empty() {
        return Err("no command specified".to_owned());
    }
    let security = &config.security;
    let user = match (security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => uid.to_string(),
        (None, "") => image.user.clone(),
        (None, name) => name.to_owned(),
    };
    let mut identity = users.resolve(&user)?;
    if let Some(gid) = security.run_as_group {
        identity.gid = u32::try_from(gid).map_err(|_| format!("group {gid} is out of range"))?;
    }
    let mut groups = vec![identity.gid];
    if !security.supplemental_groups_strict {
        groups.extend(&identity.groups);
    }
    for gid in &security.supplemental_groups {
        groups.push(u32::try_from(*gid).map_err(|_| format!("group {gid} is out of range"))?);
    }
    let mut seen = BTreeSet::new();
    groups.retain(|gid| seen.insert(*gid));
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|path| !path.is_empty());
    Ok(ProcessRecord {
        args,
        env: environment(config, image, hostname, &identity.home),
        cwd: cwd.map_or("/", String::as_str).to_owned(),
        uid: identity.uid,
        gid: identity.gid,
        groups,
    })
}

/// The pod's command replaces the image's entrypoint and its arguments; the pod's arguments only the latter.
fn command(config: &ContainerConfig, image: &RunConfig) -> Vec<String> {
    let (first, rest) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (&image.entrypoint, &config.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    first.iter().chain(rest).cloned().collect()
}

fn environment(config: &ContainerConfig, image: &RunConfig, hostname: &str, home: &str) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        if values.insert(name.to_owned(), value.to_owned()).is_none() {
            order.push(name.to_owned());
        }
    };
    set("PATH", shim_default_path());
    set("HOSTNAME", hostname);
    // Always set: libcontainer would otherwise look the user up through the image's own resolver libraries.
    set("HOME", home);
    if config.tty {
        set("TERM", "xterm");
    }
    for entry in &image.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value);
    }
    for (name, value) in &config.env {
        set(name, value);
    }
    order.into_iter().map(|name| format!("{name}={}", values[&name])).collect()
}

/// The whole specification, as `config.json`.
#[must_use]
pub fn build(config: &ContainerConfig, process: &ProcessRecord, facts: &Facts) -> Value {
    let security = &config.security;
    let allowed = capabilities::effective(
        security.privileged,
        &security.add_capabilities,
        &security.drop_capabilities,
        &facts.capabilities,
    );
    let mut inner = json!({
        "terminal": config.tty,
        "user": {"uid": process.uid, "gid": process.gid, "additionalGids": process.groups},
        "args": process.args,
        "env": process.env,
        "cwd": process.cwd,
        // Inheritable and ambient sets stay empty: they would reach programs of users without rights (CVE-2022-24769).
        "capabilities": {"bounding": allowed, "effective": allowed, "permitted": allowed, "inheritable": [], "ambient": []},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": facts.open_files, "hard": facts.open_files}],
        "oomScoreAdj": config.resources.oom_score_adj.clamp(facts.lowest_oom_score.max(-1000), 1000),
    });
    if security.no_new_privs {
        inner["noNewPrivileges"] = json!(true);
    }
    let mut linux = json!({
        "namespaces": namespaces(facts),
        "cgroupsPath": facts.cgroup,
        "rootfsPropagation": propagation(config),
        "devices": facts.devices.iter().map(device).collect::<Vec<_>>(),
    });
    if !security.privileged && !security.unmasked_proc {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    json!({
        "ociVersion": "1.2.0",
        "process": inner,
        "root": {"path": facts.rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts(config, facts),
        "linux": linux,
    })
}

/// The seccomp profile of a container, `local` being what a `Localhost` profile holds.
#[must_use]
pub fn profile(config: &ContainerConfig, local: Option<Value>, available: &BTreeSet<&'static str>) -> Option<Value> {
    let security = &config.security;
    match &security.seccomp {
        _ if security.privileged => None,
        SeccompProfile::Unconfined => None,
        SeccompProfile::Localhost(_) => local,
        SeccompProfile::RuntimeDefault => {
            let allowed = capabilities::effective(false, &security.add_capabilities, &security.drop_capabilities, available);
            Some(seccomp::default_profile(&allowed))
        }
    }
}

/// Paths that would leak facts of the node, and those that would change it.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn namespaces(facts: &Facts) -> Vec<Value> {
    let mut namespaces = vec![json!({"type": "mount"})];
    if facts.own_pids {
        namespaces.push(json!({"type": "pid"}));
    }
    if facts.cgroup_directories.is_empty() {
        namespaces.push(json!({"type": "cgroup"}));
    }
    namespaces.extend(facts.join.iter().map(|(kind, path)| json!({"type": kind, "path": path})));
    namespaces
}

/// The widest that any mount asks for: while the root is made, all have it.
fn propagation(config: &ContainerConfig) -> &'static str {
    let any = |wanted| config.mounts.iter().any(|mount| mount.propagation == wanted);
    match (any(Propagation::Bidirectional), any(Propagation::HostToContainer)) {
        (true, _) => "shared",
        (false, true) => "slave",
        (false, false) => "private",
    }
}

fn mounts(config: &ContainerConfig, facts: &Facts) -> Vec<Value> {
    let privileged = config.security.privileged;
    let system = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let bind = |destination: &Path, source: &Path, options: &[&str]| json!({"destination": destination, "type": "bind", "source": source, "options": options});
    let mut mounts = vec![
        system("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        system("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        system("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system("/sys", "sysfs", if privileged { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] }),
    ];
    let access = if privileged { "rw" } else { "ro" };
    if facts.cgroup_directories.is_empty() {
        mounts.push(system("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]));
    } else {
        // Version 1 has no namespace that all kernels give each tree: the container sees its own groups at the top.
        mounts.push(system("/sys/fs/cgroup", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"]));
        for (controller, directory) in &facts.cgroup_directories {
            let destination = Path::new("/sys/fs/cgroup").join(controller);
            mounts.push(bind(&destination, directory, &["rbind", "nosuid", "noexec", "nodev", access]));
        }
    }
    mounts.push(bind(Path::new("/dev/shm"), &facts.shm, &["rbind", "nosuid", "noexec", "nodev", "rw"]));
    let etc_access = if config.security.readonly_rootfs { "ro" } else { "rw" };
    for (name, path) in &facts.etc {
        mounts.push(bind(&Path::new("/etc").join(name), path, &["rbind", etc_access]));
    }
    // What the pod mounts itself replaces what every container gets.
    let own: Vec<PathBuf> = config.mounts.iter().map(|mount| normal(&mount.container_path)).collect();
    mounts.retain(|mount| own.iter().all(|path| mount["destination"] != json!(path)));
    let mut user: Vec<_> = config.mounts.iter().zip(own).collect();
    // Parents before what is mounted in them.
    user.sort_by_key(|(_, path)| path.components().count());
    for (mount, path) in user {
        let mut options = vec!["rbind"];
        options.push(if mount.readonly { "ro" } else { "rw" });
        if mount.readonly && mount.recursive_readonly {
            options.push("rro");
        }
        mounts.push(bind(&path, &mount.host_path, &options));
    }
    mounts
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(part) => normal.push(part),
            std::path::Component::ParentDir => drop(normal.pop()),
            _ => {}
        }
    }
    normal
}

fn device(device: &DeviceNode) -> Value {
    json!({
        "path": device.path,
        "type": if device.block { "b" } else { "c" },
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    })
}

/// Limits in force after a change: what the change leaves unset stays.
#[must_use]
pub fn merge(old: &Resources, new: &Resources) -> Resources {
    let pick = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    let mut hugepages = old.hugepages.clone();
    hugepages.extend(new.hugepages.clone());
    Resources {
        cpu_period: pick(old.cpu_period, new.cpu_period),
        cpu_quota: pick(old.cpu_quota, new.cpu_quota),
        cpu_shares: pick(old.cpu_shares, new.cpu_shares),
        memory_limit: pick(old.memory_limit, new.memory_limit),
        oom_score_adj: pick(old.oom_score_adj, new.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        unified,
        hugepages,
        pids_limit: pick(old.pids_limit, new.pids_limit),
    }
}

#[cfg(test)]
mod tests;
