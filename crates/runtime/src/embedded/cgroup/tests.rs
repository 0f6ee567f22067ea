//! Decisions by tables; I/O on a tree of plain files.

use std::collections::BTreeMap;

use super::*;

fn resources() -> Resources {
    Resources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit: 64 << 20,
        pids_limit: 100,
        hugepages: BTreeMap::from([("2MB".to_owned(), 4096)]),
        unified: BTreeMap::from([("memory.oom.group".to_owned(), "1".to_owned()), ("../x".to_owned(), "1".to_owned())]),
        ..Resources::default()
    }
}

fn text(settings: &[Setting]) -> Vec<String> {
    settings.iter().map(|(_, file, value)| format!("{file}={value}")).collect()
}

#[test]
fn v2_settings() {
    let expected = [
        "cpu.weight=59",
        "cpu.max=50000 100000",
        "memory.max=67108864",
        "memory.swap.max=0",
        "pids.max=100",
        "hugetlb.2MB.max=4096",
        "hugetlb.2MB.rsvd.max=4096",
        "memory.oom.group=1",
    ];
    assert_eq!(text(&v2::settings(&resources())), expected);
    assert!(v2::settings(&Resources::default()).is_empty());
    let unlimited = Resources { cpu_quota: -1, ..Resources::default() };
    assert_eq!(text(&v2::settings(&unlimited)), ["cpu.max=max 100000"]);
}

#[test]
fn v1_settings() {
    let expected = [
        "cpu.shares=512",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=50000",
        "memory.memsw.limit_in_bytes=67108864",
        "memory.limit_in_bytes=67108864",
        "memory.memsw.limit_in_bytes=67108864",
        "pids.max=100",
        "hugetlb.2MB.limit_in_bytes=4096",
        "hugetlb.2MB.rsvd.limit_in_bytes=4096",
    ];
    assert_eq!(text(&v1::settings(&resources())), expected);
}

#[test]
fn weight_spans_the_range() {
    for (shares, expected) in
        [(2, 1), (0, 1), (3, 2), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (1 << 40, 10_000)]
    {
        assert_eq!(v2::weight(shares), expected, "{shares}");
    }
}

#[test]
fn devices_are_denied_first() {
    let null = Rule { block: false, major: Some(1), minor: Some(3), read: true, write: true, mknod: true };
    let nodes = Rule { block: true, major: None, minor: None, read: false, write: false, mknod: true };
    assert_eq!(text(&v1::devices(&[null, nodes])), ["devices.deny=a", "devices.allow=c 1:3 rwm", "devices.allow=b *:* m"]);
}

#[test]
fn v2_on_a_fake_tree() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
    fs::write(root.path().join("cgroup.subtree_control"), "cpu\n").unwrap();
    let cgroups = Cgroups::detect(root.path()).unwrap();
    assert!(cgroups.unified());
    cgroups.create("/kubepods/pod1/c1").unwrap();
    assert_eq!(fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(), "+memory");
    let group = root.path().join("kubepods/pod1/c1");
    cgroups.apply("/kubepods/pod1/c1", &resources()).unwrap();
    assert_eq!(fs::read_to_string(group.join("memory.max")).unwrap(), "67108864");
    fs::write(group.join("cgroup.procs"), "12\n7\n").unwrap();
    assert_eq!(cgroups.pids("/kubepods/pod1"), [7, 12]);
    fs::write(group.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
    assert_eq!(cgroups.oom_kills("/kubepods/pod1/c1"), 2);
    fs::write(group.join("memory.current"), "1000\n").unwrap();
    fs::write(group.join("memory.stat"), "anon 300\ninactive_file 400\npgfault 5\npgmajfault 1\n").unwrap();
    fs::write(group.join("cpu.stat"), "usage_usec 7\n").unwrap();
    let stats = cgroups.stats("/kubepods/pod1/c1");
    let expected = ContainerStats {
        cpu_usage: 7000,
        memory_usage: 1000,
        memory_working_set: 600,
        memory_rss: 300,
        page_faults: 5,
        major_page_faults: 1,
        ..ContainerStats::default()
    };
    assert_eq!(stats, expected);
}

#[test]
fn v1_on_a_fake_tree() {
    let root = tempfile::tempdir().unwrap();
    for tree in ["cpu,cpuacct", "memory", "cpuset", "unified"] {
        fs::create_dir(root.path().join(tree)).unwrap();
        fs::write(root.path().join(tree).join("cgroup.procs"), "").unwrap();
    }
    fs::write(root.path().join("cpuset/cpuset.cpus"), "0-1\n").unwrap();
    fs::write(root.path().join("cpuset/cpuset.mems"), "0\n").unwrap();
    let cgroups = Cgroups::detect(root.path()).unwrap();
    cgroups.create("/kubepods/c1").unwrap();
    assert_eq!(fs::read_to_string(root.path().join("cpuset/kubepods/c1/cpuset.cpus")).unwrap(), "0-1");
    assert!(!root.path().join("unified/kubepods").exists());
    cgroups
        .write("/kubepods/c1", &[("cpu", "cpu.shares".into(), "512".into()), ("pids", "pids.max".into(), "1".into())])
        .unwrap();
    assert_eq!(fs::read_to_string(root.path().join("cpu,cpuacct/kubepods/c1/cpu.shares")).unwrap(), "512");
    fs::write(root.path().join("memory/kubepods/c1/memory.oom_control"), "under_oom 0\noom_kill 1\n").unwrap();
    assert_eq!(cgroups.oom_kills("/kubepods/c1"), 1);
    fs::write(root.path().join("cpu,cpuacct/kubepods/c1/cpuacct.usage"), "77\n").unwrap();
    assert_eq!(cgroups.stats("/kubepods/c1").cpu_usage, 77);
}

/// The kernel's own version 2, which takes groups and processes on every machine, though all controllers are on version 1.
#[test]
fn v2_of_the_kernel_kills_and_forgets() {
    let mount = tempfile::tempdir().unwrap();
    let mut holder = std::process::Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            "mount -t cgroup2 none \"$1\" && echo ready && exec sleep infinity",
            "sh",
        ])
        .arg(mount.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(holder.stdout.take().unwrap()), &mut line).unwrap();
    let root = PathBuf::from(format!("/proc/{}/root{}", holder.id(), mount.path().display()));
    let outcome = std::panic::catch_unwind(|| {
        assert_eq!(line, "ready\n", "needs root");
        let cgroups = Cgroups::detect(&root).unwrap();
        assert!(cgroups.unified());
        let group = format!("/corten-test-{}", std::process::id());
        let inner = format!("{group}/a/b");
        cgroups.create(&inner).unwrap();
        // Limits of controllers that are not there are told, not dropped.
        assert!(cgroups.apply(&inner, &resources()).is_err());
        cgroups.apply(&inner, &Resources::default()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("infinity").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        cgroups.join(&inner, pid).unwrap();
        assert_eq!(cgroups.pids(&group), [pid]);
        let events = || fs::read_to_string(root.join(&inner[1..]).join("cgroup.events")).unwrap();
        assert!(events().contains("populated 1"));
        assert!(cgroups.remove(&group).is_err(), "a process is in it");
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        cgroups.kill_and_wait(&group);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&reaper.join().unwrap()), Some(9));
        assert!(events().contains("populated 0"));
        cgroups.remove(&group).unwrap();
        assert!(!root.join(&group[1..]).exists());
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
