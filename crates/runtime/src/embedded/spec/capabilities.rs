//! Capability sets: containerd's default, and what a pod adds and drops.

use std::collections::BTreeSet;

/// What a container has when nothing is said, as with containerd and Docker.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability of Linux 5.9 and later, in the order of their numbers.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The capabilities that a process may hand on, from its `/proc/<pid>/status`: a runtime in a confined environment has
/// not all of them, and asking for more would fail the container.
#[must_use]
pub fn available(status: &str) -> BTreeSet<&'static str> {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let mask = mask("CapPrm:").unwrap_or(u64::MAX) & mask("CapBnd:").unwrap_or(u64::MAX);
    ALL.into_iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| name).collect()
}

/// The set of a container. `ALL` is taken first on both sides, so that single names refine it; a name that no kernel
/// knows is left out.
#[must_use]
pub fn effective(
    privileged: bool,
    add: &[String],
    drop: &[String],
    available: &BTreeSet<&'static str>,
) -> BTreeSet<&'static str> {
    if privileged {
        return available.clone();
    }
    let every = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let known = |name: &String| {
        let upper = name.to_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        ALL.into_iter().find(|known| *known == full)
    };
    let mut set: BTreeSet<&'static str> = DEFAULT.into_iter().collect();
    if every(add) {
        set.extend(ALL);
    }
    if every(drop) {
        set.clear();
    }
    set.extend(add.iter().filter_map(known));
    let dropped: BTreeSet<&str> = drop.iter().filter_map(known).collect();
    set.retain(|name| !dropped.contains(name) && available.contains(name));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read_from_the_kernel() {
        let confined = available("Name:\tx\nCapPrm:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\n");
        assert_eq!(confined.len(), 40);
        assert!(!confined.contains("CAP_SYS_RESOURCE"));
        assert_eq!(available("").len(), 41);
    }

    #[test]
    fn sets_follow_add_and_drop() {
        let all = available("");
        let effective = |privileged, add: &[String], drop: &[String]| super::effective(privileged, add, drop, &all);
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(effective(false, &[], &[]).len(), 14);
        assert_eq!(effective(true, &[], &names(&["ALL"])).len(), 41);
        assert_eq!(effective(false, &names(&["ALL"]), &[]).len(), 41);
        assert!(effective(false, &[], &names(&["ALL"])).is_empty());
        let only = effective(false, &names(&["NET_BIND_SERVICE"]), &names(&["all"]));
        assert_eq!(only.into_iter().collect::<Vec<_>>(), ["CAP_NET_BIND_SERVICE"]);
        let most = effective(false, &names(&["ALL"]), &names(&["SYS_ADMIN", "CAP_MKNOD", "no_such"]));
        assert_eq!(most.len(), 39);
        assert!(effective(false, &names(&["net_admin"]), &[]).contains("CAP_NET_ADMIN"));
    }
}
