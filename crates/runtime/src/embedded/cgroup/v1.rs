//! cgroup version 1: a tree per controller.

use std::fs;
use std::io;
use std::path::Path;

use corten_sys::devices::Rule;

use super::{Setting, at, flat};
use crate::cri::{ContainerStats, Resources};

/// The files that carry `resources`.
#[must_use]
pub fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |controller, file: &str, value: String| settings.push((controller, file.to_owned(), value));
    if resources.cpu_shares > 0 {
        set("cpu", "cpu.shares", resources.cpu_shares.to_string());
    }
    if resources.cpu_period > 0 {
        set("cpu", "cpu.cfs_period_us", resources.cpu_period.to_string());
    }
    if resources.cpu_quota != 0 {
        set("cpu", "cpu.cfs_quota_us", resources.cpu_quota.to_string());
    }
    if resources.memory_limit > 0 {
        // Memory with swap may never be below memory alone: written on both sides of it, one of them fits whichever
        // way the limit moves.
        let limit = resources.memory_limit.to_string();
        set("memory", "memory.memsw.limit_in_bytes", limit.clone());
        set("memory", "memory.limit_in_bytes", limit.clone());
        set("memory", "memory.memsw.limit_in_bytes", limit);
    }
    if resources.pids_limit > 0 {
        set("pids", "pids.max", resources.pids_limit.to_string());
    }
    if !resources.cpuset_cpus.is_empty() {
        set("cpuset", "cpuset.cpus", resources.cpuset_cpus.clone());
    }
    if !resources.cpuset_mems.is_empty() {
        set("cpuset", "cpuset.mems", resources.cpuset_mems.clone());
    }
    for (size, bytes) in &resources.hugepages {
        set("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), bytes.to_string());
        set("hugetlb", &format!("hugetlb.{size}.rsvd.limit_in_bytes"), bytes.to_string());
    }
    settings
}

/// The writes that allow `rules` and nothing else.
#[must_use]
pub fn devices(rules: &[Rule]) -> Vec<Setting> {
    let mut settings = vec![("devices", "devices.deny".to_owned(), "a".to_owned())];
    for rule in rules {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let access: String =
            [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')].iter().filter(|(on, _)| *on).map(|(_, c)| c).collect();
        let kind = if rule.block { 'b' } else { 'c' };
        let text = format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor));
        settings.push(("devices", "devices.allow".to_owned(), text));
    }
    settings
}

/// Usage, from a reader of `(controller, file)`.
pub fn stats(read: impl Fn(&str, &str) -> Option<String>) -> ContainerStats {
    let number = |controller, file| read(controller, file).and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    let memory = read("memory", "memory.stat").unwrap_or_default();
    let usage = number("memory", "memory.usage_in_bytes");
    let of = |key| flat(&memory, key).unwrap_or(0);
    ContainerStats {
        cpu_usage: number("cpuacct", "cpuacct.usage"),
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(of("total_inactive_file")),
        memory_rss: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        ..ContainerStats::default()
    }
}

/// Makes `path` in one tree. A cpuset takes no process before it has CPUs and memory nodes, so those are inherited.
pub(super) fn create(name: &str, tree: &Path, path: &str) -> io::Result<()> {
    let mut directory = tree.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parent = directory.clone();
        directory.push(part);
        match fs::create_dir(&directory) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(at(&directory, err)),
            _ => {}
        }
        if name.split(',').any(|part| part == "cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(directory.join(file)).unwrap_or_default();
                if own.trim().is_empty() {
                    let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                    super::put(&directory.join(file), inherited.trim())?;
                }
            }
        }
    }
    Ok(())
}
