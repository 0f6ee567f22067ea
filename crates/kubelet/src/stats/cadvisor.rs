//! `/metrics/cadvisor`: the usage of the node, its pods and their containers under the names that dashboards and alerts know. A row
//! belongs to a cgroup, which its label `id` names.

use std::collections::BTreeMap;

use corten_runtime::{Container, ContainerState};

use super::Text;
use crate::cgroups;
use crate::context::Context;
use crate::pod::PodExt;
use crate::pods::Pods;

/// A figure: its family, its own labels, its value.
type Figure = (&'static str, Vec<(&'static str, String)>, f64);

/// One cgroup's figures, and the labels that all of them have.
struct Row {
    labels: [(&'static str, String); 6],
    values: Vec<Figure>,
}

/// Family, kind and help, in the order of the answer.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals."),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals."),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "Total time duration the container has been throttled."),
    ("container_cpu_system_seconds_total", "counter", "Cumulative system cpu time consumed in seconds."),
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds."),
    ("container_cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds."),
    ("container_file_descriptors", "gauge", "Number of open file descriptors for the container."),
    ("container_fs_inodes_free", "gauge", "Number of available Inodes"),
    ("container_fs_inodes_total", "gauge", "Number of Inodes"),
    ("container_fs_limit_bytes", "gauge", "Number of bytes that can be consumed by the container on this filesystem."),
    ("container_fs_usage_bytes", "gauge", "Number of bytes that are consumed by the container on this filesystem."),
    ("container_last_seen", "gauge", "Last time a container was seen by the exporter"),
    ("container_memory_cache", "gauge", "Number of bytes of page cache memory."),
    ("container_memory_failcnt", "counter", "Number of memory usage hits limits"),
    ("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures."),
    ("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes."),
    ("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes"),
    ("container_memory_rss", "gauge", "Size of RSS in bytes."),
    ("container_memory_swap", "gauge", "Container swap usage in bytes."),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
    ),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes."),
    ("container_network_receive_bytes_total", "counter", "Cumulative count of bytes received"),
    ("container_network_receive_errors_total", "counter", "Cumulative count of errors encountered while receiving"),
    ("container_network_receive_packets_dropped_total", "counter", "Cumulative count of packets dropped while receiving"),
    ("container_network_receive_packets_total", "counter", "Cumulative count of packets received"),
    ("container_network_transmit_bytes_total", "counter", "Cumulative count of bytes transmitted"),
    ("container_network_transmit_errors_total", "counter", "Cumulative count of errors encountered while transmitting"),
    ("container_network_transmit_packets_dropped_total", "counter", "Cumulative count of packets dropped while transmitting"),
    ("container_network_transmit_packets_total", "counter", "Cumulative count of packets transmitted"),
    ("container_oom_events_total", "counter", "Count of out of memory events observed for the container"),
    ("container_processes", "gauge", "Number of processes running inside the container."),
    ("container_sockets", "gauge", "Number of open sockets for the container."),
    ("container_spec_cpu_period", "gauge", "CPU period of the container."),
    ("container_spec_cpu_quota", "gauge", "CPU quota of the container."),
    ("container_spec_cpu_shares", "gauge", "CPU share of the container."),
    ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container."),
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds."),
    ("container_threads", "gauge", "Number of threads running inside the container"),
];

/// The answer.
pub async fn metrics(ctx: &Context, pods: &Pods) -> String {
    let mut rows = vec![node(ctx)];
    for (pod, _) in pods.list() {
        let path = cgroups::pod_path(&ctx.config.cgroup_root, &pod);
        let known = ctx.cache.pod(pod.uid()).containers;
        let running: Vec<_> = known.into_iter().filter(|container| container.state == ContainerState::Running).collect();
        if running.is_empty() {
            continue;
        }
        let mut row = Row::new(ctx, &path, "", "", &pod, "");
        // Its containers share one network, of which each sees the same.
        if let Some(first) = running.first().filter(|first| !pod.host_network() && first.pid > 0) {
            row.network(ctx, first.pid);
        }
        rows.push(row);
        for container in running {
            rows.push(of_container(ctx, &path, &pod, &container).await);
        }
    }
    let now = super::nanos(ctx.clock.now());
    let mut out = Text::default();
    out.head("cadvisor_version_info", "gauge", "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.");
    let labels = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", ctx.machine.kernel.as_str()),
        ("osVersion", ctx.machine.os_image.as_str()),
    ];
    out.line("cadvisor_version_info", &labels, 1.0, None);
    for (family, kind, help) in FAMILIES {
        out.head(family, kind, help);
        for row in &rows {
            for (_, more, value) in row.values.iter().filter(|(name, ..)| name == family) {
                let labels = row.labels.iter().chain(more).map(|(name, value)| (*name, value.as_str()));
                let mut labels: Vec<_> = labels.collect();
                labels.sort_unstable();
                out.line(family, &labels, *value, Some(now));
            }
        }
    }
    out.head("container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    out.line("container_scrape_error", &[], 0.0, None);
    let machine = [
        ("boot_id", ctx.machine.boot_id.as_str()),
        ("machine_id", &ctx.machine.machine_id),
        ("system_uuid", &ctx.machine.system_uuid),
    ];
    out.head("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    out.line("machine_cpu_cores", &machine, ctx.machine.cpus as f64, None);
    out.head("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    out.line("machine_memory_bytes", &machine, ctx.machine.memory as f64, None);
    out.text
}

fn node(ctx: &Context) -> Row {
    let labels = [("id", "/"), ("name", ""), ("image", ""), ("pod", ""), ("namespace", ""), ("container", "")];
    let mut row = Row { labels: labels.map(|(name, value)| (name, value.to_owned())), values: Vec::new() };
    row.cgroup(ctx, "/");
    let disk = crate::machine::Disk::of(&ctx.config.root);
    let device = vec![("device", String::new())];
    for (family, value) in [
        ("container_fs_inodes_free", disk.inodes_free),
        ("container_fs_inodes_total", disk.inodes),
        ("container_fs_limit_bytes", disk.capacity),
        ("container_fs_usage_bytes", disk.used),
    ] {
        row.values.push((family, device.clone(), value as f64));
    }
    row
}

async fn of_container(ctx: &Context, pod_path: &str, pod: &k8s_openapi::api::core::v1::Pod, container: &Container) -> Row {
    let path = format!("{pod_path}/{}", container.id);
    let mut row = Row::new(ctx, &path, &container.id, &container.image, pod, &container.name);
    row.values.push(("container_start_time_seconds", Vec::new(), (container.started_at as f64 / 1e9).floor()));
    if let Ok(stats) = ctx.runtime.container_stats(&container.id).await {
        row.values.push(("container_fs_usage_bytes", vec![("device", String::new())], stats.writable.bytes as f64));
    }
    row
}

impl Row {
    fn new(ctx: &Context, path: &str, name: &str, image: &str, pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> Self {
        let labels = [
            ("id", path),
            ("name", name),
            ("image", image),
            ("pod", pod.name()),
            ("namespace", pod.namespace()),
            ("container", container),
        ];
        let mut row = Self { labels: labels.map(|(name, value)| (name, value.to_owned())), values: Vec::new() };
        row.cgroup(ctx, path);
        row
    }

    fn push(&mut self, family: &'static str, value: Option<f64>) {
        self.values.extend(value.map(|value| (family, Vec::new(), value)));
    }

    /// What the kernel counts for a cgroup.
    fn cgroup(&mut self, ctx: &Context, path: &str) {
        let tree = &ctx.cgroups;
        let fields = |controller: &str, file: &str| flat(&tree.read(controller, path, file).unwrap_or_default());
        let number =
            |controller: &str, file: &str| tree.read(controller, path, file).and_then(|text| text.trim().parse::<f64>().ok());
        let usage = tree.usage(path);
        self.push("container_last_seen", usage.map(|_| ctx.clock.now().as_second() as f64));
        let total = vec![("cpu", "total".to_owned())];
        self.values.extend(usage.map(|usage| ("container_cpu_usage_seconds_total", total, usage.cpu_nanos as f64 / 1e9)));
        let (memory, of) = (fields("memory", "memory.stat"), |map: &BTreeMap<String, f64>, name: &str| map.get(name).copied());
        if tree.is_unified() {
            let cpu = fields("", "cpu.stat");
            self.push("container_cpu_user_seconds_total", of(&cpu, "user_usec").map(|time| time / 1e6));
            self.push("container_cpu_system_seconds_total", of(&cpu, "system_usec").map(|time| time / 1e6));
            self.cfs(&cpu, of(&cpu, "throttled_usec").map(|time| time / 1e6));
            self.push("container_memory_cache", of(&memory, "file"));
            self.push("container_memory_mapped_file", of(&memory, "file_mapped"));
            self.push("container_memory_failcnt", of(&fields("", "memory.events"), "max"));
            self.push("container_memory_max_usage_bytes", number("", "memory.peak"));
            self.push("container_oom_events_total", of(&fields("", "memory.events"), "oom_kill"));
            self.push("container_spec_cpu_shares", number("", "cpu.weight").map(cgroups::weight_to_shares));
            let max = tree.read("", path, "cpu.max").unwrap_or_default();
            let mut max = max.split_whitespace().map(str::parse::<f64>);
            let (quota, period) = (max.next().and_then(Result::ok), max.next().and_then(Result::ok));
            self.push("container_spec_cpu_quota", quota);
            self.push("container_spec_cpu_period", period);
            self.push("container_spec_memory_limit_bytes", Some(number("", "memory.max").unwrap_or(0.0)));
        } else {
            let (user, system) = (number("cpuacct", "cpuacct.usage_user"), number("cpuacct", "cpuacct.usage_sys"));
            self.push("container_cpu_user_seconds_total", user.map(|time| time / 1e9));
            self.push("container_cpu_system_seconds_total", system.map(|time| time / 1e9));
            let cpu = fields("cpu", "cpu.stat");
            self.cfs(&cpu, of(&cpu, "throttled_time").map(|time| time / 1e9));
            self.push("container_memory_cache", of(&memory, "total_cache"));
            self.push("container_memory_mapped_file", of(&memory, "total_mapped_file"));
            self.push("container_memory_failcnt", number("memory", "memory.failcnt"));
            self.push("container_memory_max_usage_bytes", number("memory", "memory.max_usage_in_bytes"));
            self.push("container_oom_events_total", of(&fields("memory", "memory.oom_control"), "oom_kill"));
            self.push("container_spec_cpu_shares", number("cpu", "cpu.shares"));
            self.push("container_spec_cpu_quota", number("cpu", "cpu.cfs_quota_us").filter(|quota| *quota > 0.0));
            self.push("container_spec_cpu_period", number("cpu", "cpu.cfs_period_us"));
            // The kernel's word for no limit is the largest number of pages.
            let limit = number("memory", "memory.limit_in_bytes").map(|limit| if limit > 9e18 { 0.0 } else { limit });
            self.push("container_spec_memory_limit_bytes", limit);
        }
        if let Some(usage) = usage {
            self.push("container_memory_usage_bytes", Some(usage.memory as f64));
            self.push("container_memory_working_set_bytes", Some(usage.working_set as f64));
            self.push("container_memory_rss", Some(usage.rss as f64));
            self.push("container_memory_swap", Some(usage.swap as f64));
            for (kind, value) in [("pgfault", usage.page_faults), ("pgmajfault", usage.major_page_faults)] {
                let labels = vec![("failure_type", kind.to_owned()), ("scope", "hierarchy".to_owned())];
                self.values.push(("container_memory_failures_total", labels, value as f64));
            }
        }
        self.processes(ctx, path);
    }

    fn cfs(&mut self, stat: &BTreeMap<String, f64>, throttled: Option<f64>) {
        self.push("container_cpu_cfs_periods_total", stat.get("nr_periods").copied());
        self.push("container_cpu_cfs_throttled_periods_total", stat.get("nr_throttled").copied());
        self.push("container_cpu_cfs_throttled_seconds_total", throttled);
    }

    /// Processes directly in the cgroup, as upstream counts them: of a container, not of a pod or node.
    fn processes(&mut self, ctx: &Context, path: &str) {
        if self.labels[5].1.is_empty() {
            return;
        }
        let read = |file: &str| ctx.cgroups.read("pids", path, file).or_else(|| ctx.cgroups.read("memory", path, file));
        let Some(listed) = read("cgroup.procs") else { return };
        let processes: Vec<&str> = listed.lines().collect();
        let threads = ctx.cgroups.read("pids", path, "pids.current").and_then(|text| text.trim().parse::<f64>().ok());
        let (mut open, mut sockets) = (0_u32, 0_u32);
        for process in &processes {
            for entry in std::fs::read_dir(ctx.config.host.proc.join(process).join("fd")).into_iter().flatten().flatten() {
                open += 1;
                let target = std::fs::read_link(entry.path());
                sockets += u32::from(target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")));
            }
        }
        self.push("container_processes", Some(processes.len() as f64));
        self.push("container_threads", threads);
        self.push("container_file_descriptors", Some(f64::from(open)));
        self.push("container_sockets", Some(f64::from(sockets)));
    }

    /// What the interfaces of a pod's network counted, as a process of it sees them.
    fn network(&mut self, ctx: &Context, pid: u32) {
        let table = std::fs::read_to_string(ctx.config.host.proc.join(format!("{pid}/net/dev"))).unwrap_or_default();
        for (interface, counts) in interfaces(&table) {
            for (family, at) in [
                ("container_network_receive_bytes_total", 0),
                ("container_network_receive_packets_total", 1),
                ("container_network_receive_errors_total", 2),
                ("container_network_receive_packets_dropped_total", 3),
                ("container_network_transmit_bytes_total", 8),
                ("container_network_transmit_packets_total", 9),
                ("container_network_transmit_errors_total", 10),
                ("container_network_transmit_packets_dropped_total", 11),
            ] {
                self.values.push((family, vec![("interface", interface.clone())], counts[at] as f64));
            }
        }
    }
}

/// The counters of `/proc/net/dev` by interface, the loopback left out.
pub fn interfaces(table: &str) -> Vec<(String, [u64; 16])> {
    let rows = table.lines().filter_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let mut found = [0; 16];
        for (place, count) in found.iter_mut().zip(counts.split_whitespace()) {
            *place = count.parse().ok()?;
        }
        Some((name.trim().to_owned(), found))
    });
    rows.filter(|(name, _)| name != "lo").collect()
}

/// `name value` lines.
fn flat(text: &str) -> BTreeMap<String, f64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_counted_without_the_loopback() {
        let table = "Inter-|   Receive                                                |  Transmit\n\
                     \x20face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
                     \x20   lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n\
                     \x20 eth0:    2048      12    1    2    0     0          0         0     4096      34    3    4    0     0       0          0\n";
        let found = interfaces(table);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].0.as_str(), found[0].1[0], found[0].1[3], found[0].1[8], found[0].1[11]),
            ("eth0", 2048, 2, 4096, 4)
        );
    }

    #[test]
    fn families_are_sorted_and_single() {
        assert!(FAMILIES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
