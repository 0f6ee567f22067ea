//! Containers from creation to removal.

use std::fs;
use std::time::{Duration, Instant};

use corten_runtime::*;

use crate::fixture::{Fixture, SOON, log_lines};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_leaves_its_log_and_exit_code() {
    let fixture = Fixture::new("runs").await;
    let pod = fixture.pod(|_| {}).await;
    assert!(pod.sandbox.ready && pod.sandbox.network_namespace.as_ref().unwrap().exists());
    let id = pod.create("busybox", &["sh", "-c", "echo out; echo err >&2; exit 7"], |_| {}).await;
    let created = fixture.runtime.container_status(&id).await.unwrap();
    assert_eq!((created.state, created.started_at), (ContainerState::Created, 0));
    fixture.runtime.start_container(&id).await.unwrap();
    let exited = pod.exited(&id).await;
    assert_eq!((exited.exit_code, exited.reason.as_str(), exited.signal, exited.pid), (7, "Error", 0, 0));
    assert!(exited.created_at <= exited.started_at && exited.started_at <= exited.finished_at);
    let mut lines = log_lines(&exited.log_path);
    lines.sort();
    let line = |stream: &str, text: &str| (stream.to_owned(), "F".to_owned(), text.to_owned());
    assert_eq!(lines, [line("stderr", "err"), line("stdout", "out")]);
    assert!(fixture.runtime.start_container(&id).await.is_err());
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_sends_the_signal_then_kills() {
    let fixture = Fixture::new("stop").await;
    let pod = fixture.pod(|_| {}).await;
    let polite = pod.start("hello", &[], |_| {}).await;
    // The handler is in place once it says that it listens.
    let log = fixture.runtime.container_status(&polite).await.unwrap().log_path;
    tokio::time::timeout(SOON, async {
        while !fs::read_to_string(&log).unwrap_or_default().contains("listening") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    fixture.runtime.stop_container(&polite, SOON).await.unwrap();
    let exited = fixture.runtime.container_status(&polite).await.unwrap();
    assert_eq!((exited.exit_code, exited.reason.as_str()), (0, "Completed"));
    assert!(log_lines(&log).iter().any(|(_, _, text)| text.contains("SIGTERM")), "{:?}", log_lines(&log));

    let deaf = pod.start("busybox", &["sh", "-c", "trap '' TERM; while :; do sleep 100 & wait; done"], |_| {}).await;
    fixture.runtime.stop_container(&deaf, Duration::from_millis(200)).await.unwrap();
    let killed = fixture.runtime.container_status(&deaf).await.unwrap();
    assert_eq!((killed.exit_code, killed.signal, killed.reason.as_str()), (137, 9, "Error"));
    fixture.runtime.stop_container(&deaf, SOON).await.unwrap();
    fixture.runtime.stop_container("unknown", SOON).await.unwrap();
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let fixture = Fixture::new("starterror").await;
    let pod = fixture.pod(|_| {}).await;
    for (command, expected) in [
        ("foo", "failed to start: exec: \"foo\": executable file not found in $PATH"),
        ("/foo", "failed to start: exec: \"/foo\": stat /foo: no such file or directory"),
        ("/etc/passwd", "failed to start: exec: \"/etc/passwd\": permission denied"),
    ] {
        let id = pod.create("busybox", &[command], |_| {}).await;
        let err = fixture.runtime.start_container(&id).await.unwrap_err();
        assert_eq!(err.to_string(), expected);
        let failed = fixture.runtime.container_status(&id).await.unwrap();
        assert_eq!((failed.state, failed.exit_code, failed.reason.as_str()), (ContainerState::Exited, 128, "StartError"));
        assert_eq!(failed.message, expected);
        fixture.runtime.remove_container(&id).await.unwrap();
    }
    let config = ContainerConfig {
        image: "corten.test/busybox:latest".into(),
        security: SecurityContext { run_as_username: "who".into(), ..SecurityContext::default() },
        ..ContainerConfig::default()
    };
    let err = fixture.runtime.create_container(&pod.sandbox.id, &config).await.unwrap_err();
    assert_eq!(err.to_string(), "unable to find user who: no matching entries in passwd file");
    let config = ContainerConfig { image: "corten.test/none:latest".into(), ..ContainerConfig::default() };
    let err = fixture.runtime.create_container(&pod.sandbox.id, &config).await.unwrap_err();
    assert!(matches!(err, RuntimeError::NotFound { what: "image", .. }), "{err}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_is_told() {
    let fixture = Fixture::new("oom").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod.start("hello", &["/hello", "eat", "256"], |config| config.resources.memory_limit = 32 << 20).await;
    let killed = pod.exited(&id).await;
    assert_eq!((killed.reason.as_str(), killed.exit_code), ("OOMKilled", 137));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_gives_its_files_names_and_kernel_parameters() {
    let fixture = Fixture::new("files").await;
    let sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned()), ("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned())];
    let pod = fixture.pod(|config| config.sysctls = sysctls.into()).await;
    let script = "hostname; cat /etc/hostname /etc/resolv.conf; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/tcp_syncookies; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start; grep localhost /etc/hosts | head -1; pwd; echo $HOME; df -k /dev/shm | tail -1 | awk '{print $2}'";
    let (container, lines) = pod.run(script, |config| config.working_dir = "/made/for/you".into()).await;
    assert_eq!(container.exit_code, 0, "{lines:?}");
    let expected = [
        "pod-host",
        "pod-host",
        "nameserver 10.0.0.10",
        "1",
        "0",
        "0",
        "127.0.0.1\tlocalhost",
        "/made/for/you",
        "/root",
        "65536",
    ];
    assert_eq!(lines, expected);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_shared_as_asked() {
    let fixture = Fixture::new("share").await;
    let alone = fixture.pod(|_| {}).await;
    let (_, lines) = alone.run("echo $$; ls -d /proc/[0-9]* | wc -l", |_| {}).await;
    assert_eq!(lines[0], "1");
    let shared = fixture.pod(|config| config.namespaces.share_process_namespace = true).await;
    let sleeper = shared.start("busybox", &["sleep", "1000"], |_| {}).await;
    let (_, lines) = shared.run("cat /proc/1/comm; ps | grep -c '[s]leep 1000'", |_| {}).await;
    assert_eq!(lines, ["corten-pause", "1"]);
    fixture.runtime.stop_container(&sleeper, Duration::ZERO).await.unwrap();
    let host = fixture
        .pod(|config| {
            config.namespaces = NamespaceOptions { host_network: true, host_pid: true, host_ipc: true, ..config.namespaces }
        })
        .await;
    assert_eq!(host.sandbox.network_namespace, None);
    let (_, lines) = host.run("for kind in net pid ipc; do readlink /proc/self/ns/$kind; done", |_| {}).await;
    let own = ["net", "pid", "ipc"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string());
    assert_eq!(lines, own);
    // The target of an ephemeral container lends it its processes.
    let target = alone.start("busybox", &["sleep", "999"], |_| {}).await;
    let (_, lines) =
        alone.run("ps | grep -c '[s]leep 999'", |config| config.security.target_container = Some(target.clone())).await;
    assert_eq!(lines, ["1"]);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_usage_and_their_change() {
    let fixture = Fixture::new("limits").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod
        .start("busybox", &["sh", "-c", "dd if=/dev/zero of=/file bs=1024 count=100; sleep 1000"], |config| {
            config.resources = Resources {
                memory_limit: 64 << 20,
                cpu_quota: 50_000,
                cpu_period: 100_000,
                pids_limit: 50,
                cpu_shares: 512,
                ..Resources::default()
            };
        })
        .await;
    let command = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    let output = pod.exec(&id, &["sh", "-c", command]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "67108864\n50\n");
    let change = Resources { memory_limit: 128 << 20, ..Resources::default() };
    fixture.runtime.update_resources(&id, &change).await.unwrap();
    let output = pod.exec(&id, &["sh", "-c", command]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "134217728\n50\n");
    let resources = fixture.runtime.container_status(&id).await.unwrap().resources;
    assert_eq!((resources.memory_limit, resources.cpu_quota), (128 << 20, 50_000));
    let stats = fixture.runtime.container_stats(&id).await.unwrap();
    assert!(stats.memory_usage > 0 && stats.cpu_usage > 0 && stats.timestamp > 0, "{stats:?}");
    assert!(stats.writable.bytes >= 100 << 10 && stats.writable.inodes > 0, "{stats:?}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted() {
    let fixture = Fixture::new("volumes").await;
    let pod = fixture.pod(|_| {}).await;
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "content\n").unwrap();
    let mounts = vec![
        Mount { host_path: host.path().into(), container_path: "/data".into(), ..Mount::default() },
        Mount { host_path: host.path().into(), container_path: "/ro".into(), readonly: true, ..Mount::default() },
        Mount { host_path: host.path().join("file"), container_path: "/etc/hosts".into(), ..Mount::default() },
    ];
    let script = "cat /etc/hosts; echo new > /data/new; echo no > /ro/no; echo $?; pwd";
    let (_, lines) = pod
        .run(script, |config| {
            config.mounts = mounts;
            config.working_dir = "/data/inner".into();
        })
        .await;
    assert!(lines.contains(&"content".to_owned()) && lines.contains(&"1".to_owned()), "{lines:?}");
    assert!(lines.contains(&"/data/inner".to_owned()), "{lines:?}");
    assert_eq!(fs::read_to_string(host.path().join("new")).unwrap(), "new\n");
    assert!(host.path().join("inner").is_dir());
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_spread_as_asked() {
    let fixture = Fixture::new("propagation").await;
    let host = tempfile::tempdir().unwrap();
    // A shared mount of its own: whether the machine's root is one must not matter.
    let bind = |flags| nix::mount::mount(Some(host.path()), host.path(), None::<&str>, flags, None::<&str>).unwrap();
    bind(nix::mount::MsFlags::MS_BIND);
    bind(nix::mount::MsFlags::MS_SHARED);
    let pod = fixture.pod(|_| {}).await;
    let volume = |name: &str, propagation| {
        std::fs::create_dir(host.path().join(name)).unwrap();
        let at = format!("/{name}").into();
        Mount { host_path: host.path().join(name), container_path: at, propagation, ..Mount::default() }
    };
    let mounts = vec![
        volume("private", Propagation::Private),
        volume("slave", Propagation::HostToContainer),
        volume("shared", Propagation::Bidirectional),
    ];
    let id = pod
        .start("busybox", &["sleep", "1000"], |config| {
            config.mounts = mounts;
            config.security.privileged = true;
        })
        .await;
    for name in ["private", "slave", "shared"] {
        let (inside, outside) = (format!("/{name}/inside"), host.path().join(name).join("outside"));
        fs::create_dir(&outside).unwrap();
        nix::mount::mount(Some("tmpfs"), &outside, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
        fs::write(outside.join("mark"), "").unwrap();
        let script = format!(
            "mkdir {inside} && mount -t tmpfs tmpfs {inside} && touch {inside}/mark; test -e /{name}/outside/mark && echo sees; true"
        );
        let sees = pod.exec(&id, &["sh", "-c", &script]).await;
        assert_eq!(sees.exit_code, 0, "{sees:?}");
        let (sees, seen) = (!sees.stdout.is_empty(), host.path().join(name).join("inside/mark").exists());
        assert_eq!((name, sees, seen), (name, name != "private", name == "shared"));
    }
    fixture.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    while nix::mount::umount2(&host.path().join("shared/inside"), nix::mount::MntFlags::MNT_DETACH).is_ok() {}
    for name in ["private", "slave", "shared"] {
        nix::mount::umount2(&host.path().join(name).join("outside"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    nix::mount::umount2(host.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    fixture.finish().await;
}

/// Not an assertion: what a start costs is printed (run with `--nocapture`).
#[tokio::test(flavor = "multi_thread")]
async fn starts_are_measured() {
    const ROUNDS: u32 = 10;
    let fixture = Fixture::new("speed").await;
    for seccomp in [SeccompProfile::RuntimeDefault, SeccompProfile::Unconfined] {
        let mut total = [Duration::ZERO; 4];
        for round in 0..ROUNDS {
            let mut begin = Instant::now();
            let mut lap = |at: usize| {
                total[at] += begin.elapsed();
                begin = Instant::now();
            };
            let pod = fixture.pod(|config| config.cgroup_parent = format!("{}/pod{round}", fixture.cgroup)).await;
            lap(0);
            let id = pod.create("hello", &[], |config| config.security.seccomp = seccomp.clone()).await;
            lap(1);
            fixture.runtime.start_container(&id).await.unwrap();
            lap(2);
            assert_eq!(pod.exec(&id, &["/hello", "print", "x"]).await.exit_code, 0);
            lap(3);
        }
        let [sandbox, create, start, exec] = total.map(|time| time / ROUNDS);
        println!("{seccomp:?}: sandbox {sandbox:?}, create {create:?}, start {start:?}, exec {exec:?}");
    }
    fixture.finish().await;
}
