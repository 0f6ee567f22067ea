//! cgroup version 2: one tree, whose controllers each parent hands down.

use std::fs;
use std::io;
use std::path::Path;

use super::{Setting, at, flat};
use crate::cri::{ContainerStats, Resources};

/// The files that carry `resources`.
#[must_use]
pub fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |file: &str, value: String| settings.push(("", file.to_owned(), value));
    if resources.cpu_shares > 0 {
        set("cpu.weight", weight(resources.cpu_shares).to_string());
    }
    if resources.cpu_quota != 0 || resources.cpu_period > 0 {
        let period = if resources.cpu_period > 0 { resources.cpu_period } else { 100_000 };
        let quota = if resources.cpu_quota > 0 { resources.cpu_quota.to_string() } else { "max".to_owned() };
        set("cpu.max", format!("{quota} {period}"));
    }
    if resources.memory_limit > 0 {
        set("memory.max", resources.memory_limit.to_string());
        // CRI's limit is for memory and swap together, and a limited container gets no swap.
        set("memory.swap.max", "0".to_owned());
    }
    if resources.pids_limit > 0 {
        set("pids.max", resources.pids_limit.to_string());
    }
    if !resources.cpuset_cpus.is_empty() {
        set("cpuset.cpus", resources.cpuset_cpus.clone());
    }
    if !resources.cpuset_mems.is_empty() {
        set("cpuset.mems", resources.cpuset_mems.clone());
    }
    for (size, bytes) in &resources.hugepages {
        set(&format!("hugetlb.{size}.max"), bytes.to_string());
        // What is set aside counts as used: else a mapping would be cut short at its first touch.
        set(&format!("hugetlb.{size}.rsvd.max"), bytes.to_string());
    }
    for (file, value) in &resources.unified {
        // A name with a slash would leave the group.
        if !file.contains('/') {
            set(file, value.clone());
        }
    }
    settings
}

/// Version 1 shares (2 to 262144) as a version 2 weight (1 to 10000), as runc and crun convert them: on a curve that meets
/// both ends and both versions' defaults (1024 is 100), which KEP-2254's straight line missed.
#[must_use]
pub fn weight(shares: i64) -> i64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as i64
        }
    }
}

/// Usage, from a reader of files of the group.
pub fn stats(read: impl Fn(&str) -> Option<String>) -> ContainerStats {
    let usage = read("memory.current").and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    let memory = read("memory.stat").unwrap_or_default();
    let of = |key| flat(&memory, key).unwrap_or(0);
    ContainerStats {
        cpu_usage: flat(&read("cpu.stat").unwrap_or_default(), "usage_usec").unwrap_or(0) * 1000,
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(of("inactive_file")),
        memory_rss: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        ..ContainerStats::default()
    }
}

/// Makes `path` and hands every controller down to it.
pub(super) fn create(root: &Path, path: &str) -> io::Result<()> {
    let mut directory = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let enabled = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
        for controller in available.split_whitespace() {
            if !enabled.split_whitespace().any(|name| name == controller) {
                // One by one: a controller that cannot be handed down (rt tasks in the root) keeps the others not.
                let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        directory.push(part);
        match fs::create_dir(&directory) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(at(&directory, err)),
            _ => {}
        }
    }
    Ok(())
}
