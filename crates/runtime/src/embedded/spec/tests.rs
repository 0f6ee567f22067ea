//! Tables over the pieces of a specification.

use super::*;
use crate::cri::{Mount, SecurityContext};

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn image() -> RunConfig {
    RunConfig {
        user: "app".into(),
        env: texts(&["PATH=/app/bin", "A=image", "B=image"]),
        entrypoint: texts(&["entry"]),
        cmd: texts(&["cmd", "arg"]),
        working_dir: "/app".into(),
        stop_signal: String::new(),
    }
}

fn users() -> Users {
    Users::new("root:x:0:0::/root:/bin/sh\napp:x:100:101::/home/app:/bin/sh\n", "app:x:101:\nextra:x:200:app\n")
}

#[test]
#[rustfmt::skip]
fn command_follows_kubernetes_table() {
    check(&[],    &[],    &["entry", "cmd", "arg"]);
    check(&[],    &["x"], &["entry", "x"]);
    check(&["c"], &[],    &["c"]);
    check(&["c"], &["x"], &["c", "x"]);
    #[track_caller]
    fn check(command_words: &[&str], args: &[&str], expected: &[&str]) {
        let config = ContainerConfig { command: texts(command_words), args: texts(args), ..ContainerConfig::default() };
        assert_eq!(command(&config, &image()), expected);
    }
}

#[test]
fn environment_of_the_pod_wins_in_place() {
    let config =
        ContainerConfig { env: vec![("B".into(), "pod".into()), ("C".into(), "a=b".into())], ..ContainerConfig::default() };
    let process = process(&config, &image(), &users(), "host").unwrap();
    assert_eq!(process.env, ["PATH=/app/bin", "HOSTNAME=host", "HOME=/home/app", "A=image", "B=pod", "C=a=b"]);
    assert_eq!((process.uid, process.gid, process.groups, process.cwd.as_str()), (100, 101, vec![101, 200], "/app"));
}

#[test]
fn users_and_groups_of_the_pod() {
    let security = SecurityContext {
        run_as_user: Some(7),
        run_as_group: Some(8),
        supplemental_groups: vec![9, 8],
        ..SecurityContext::default()
    };
    let config = ContainerConfig { security, ..ContainerConfig::default() };
    let made = process(&config, &image(), &users(), "h").unwrap();
    assert_eq!((made.uid, made.gid, made.groups), (7, 8, vec![8, 9]));
    let unknown = ContainerConfig {
        security: SecurityContext { run_as_username: "who".into(), ..SecurityContext::default() },
        ..ContainerConfig::default()
    };
    let why = process(&unknown, &image(), &users(), "h").unwrap_err();
    assert_eq!(why, "unable to find user who: no matching entries in passwd file");
    let strict = ContainerConfig {
        security: SecurityContext { supplemental_groups_strict: true, ..SecurityContext::default() },
        ..ContainerConfig::default()
    };
    assert_eq!(process(&strict, &image(), &users(), "h").unwrap().groups, [101]);
    let nothing = process(&ContainerConfig::default(), &RunConfig::default(), &users(), "h").unwrap_err();
    assert_eq!(nothing, "no command specified");
}

#[test]
fn mounts_of_the_pod_replace_and_are_ordered() {
    let mount =
        |host: &str, container: &str| Mount { host_path: host.into(), container_path: container.into(), ..Mount::default() };
    let readonly = Mount { readonly: true, recursive_readonly: true, ..mount("/c", "/x") };
    let config =
        ContainerConfig { mounts: vec![mount("/a", "/x/y"), readonly, mount("/h", "/etc/hosts")], ..ContainerConfig::default() };
    let facts = Facts { etc: vec![("hosts", "/s/hosts".into()), ("hostname", "/s/hostname".into())], ..Facts::default() };
    let made = mounts(&config, &facts);
    let destinations: Vec<&str> = made.iter().filter_map(|mount| mount["destination"].as_str()).collect();
    let expected = [
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/mqueue",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/shm",
        "/etc/hostname",
        "/x",
        "/x/y",
        "/etc/hosts",
    ];
    assert_eq!(destinations, expected);
    assert_eq!(made[8]["options"], json!(["rbind", "ro", "rro"]));
    assert_eq!(made[10]["source"], "/h");
}

#[test]
fn specification_is_one_of_oci_in_every_mode() {
    let users = users();
    for privileged in [false, true] {
        for no_new_privs in [false, true] {
            let security = SecurityContext { privileged, no_new_privs, ..SecurityContext::default() };
            let config = ContainerConfig { security, tty: privileged, ..ContainerConfig::default() };
            let process = process(&config, &image(), &users, "h").unwrap();
            let facts = Facts {
                own_pids: true,
                lowest_oom_score: -1000,
                capabilities: capabilities::available(""),
                join: vec![("network", "/proc/1/ns/net".into())],
                ..Facts::default()
            };
            let spec = build(&config, &process, &facts);
            let parsed: libcontainer::oci_spec::runtime::Spec = serde_json::from_value(spec.clone()).unwrap();
            let linux = parsed.linux().as_ref().unwrap();
            assert_eq!(profile(&config, None, &facts.capabilities).is_some(), !privileged);
            assert!(linux.seccomp().is_none());
            assert_eq!(linux.masked_paths().as_ref().is_some_and(|paths| !paths.is_empty()), !privileged);
            let nnp = parsed.process().as_ref().unwrap().no_new_privileges();
            assert_eq!(nnp, no_new_privs.then_some(true), "{spec}");
        }
    }
}

#[test]
fn propagation_is_the_widest_asked_for() {
    let of = |kinds: &[Propagation]| {
        let mounts = kinds.iter().map(|&propagation| Mount { propagation, ..Mount::default() }).collect();
        propagation(&ContainerConfig { mounts, ..ContainerConfig::default() })
    };
    assert_eq!(of(&[Propagation::Private]), "private");
    assert_eq!(of(&[Propagation::Private, Propagation::HostToContainer]), "slave");
    assert_eq!(of(&[Propagation::Bidirectional, Propagation::HostToContainer]), "shared");
}
