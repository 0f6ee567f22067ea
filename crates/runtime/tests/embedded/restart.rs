//! Containers outlive the runtime, and nothing outlives its shim.

use std::fs;

use corten_runtime::*;

use crate::fixture::{Fixture, SOON, log_lines, processes};

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_runtime() {
    let mut fixture = Fixture::new("restart").await;
    let (sandbox, running, ended, created, ends_meanwhile) = {
        let pod = fixture.pod(|_| {}).await;
        let running =
            pod.start("busybox", &["sh", "-c", "until test -e /go; do sleep 0.02; done; echo after; exit 6"], |_| {}).await;
        let ended = pod.start("busybox", &["sh", "-c", "exit 3"], |config| config.log_path = "b.log".into()).await;
        pod.exited(&ended).await;
        let created = pod.create("hello", &[], |config| config.log_path = "c.log".into()).await;
        let meanwhile = pod.start("busybox", &["sh", "-c", "sleep 0.3; exit 8"], |config| config.log_path = "d.log".into()).await;
        (pod.sandbox.id.clone(), running, ended, created, meanwhile)
    };
    let pid = fixture.runtime.container_status(&running).await.unwrap().pid;
    fixture.tasks.stop().await;
    // While no runtime is there, a container ends: only its shim sees it.
    let gone = fixture.runtime.container_status(&ends_meanwhile).await.unwrap().pid;
    let ends = async {
        while fs::metadata(format!("/proc/{gone}")).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, ends).await.unwrap();
    fixture.reopen().await;

    let status = async |id: &str| fixture.runtime.container_status(id).await.unwrap();
    let again = status(&running).await;
    assert_eq!((again.state, again.pid), (ContainerState::Running, pid));
    assert_eq!((status(&ended).await.state, status(&ended).await.exit_code), (ContainerState::Exited, 3));
    assert_eq!(status(&created).await.state, ContainerState::Created);
    let pod = crate::fixture::Pod { fixture: &fixture, sandbox: fixture.runtime.list_sandboxes().await.unwrap().pop().unwrap() };
    assert_eq!((pod.sandbox.id.as_str(), pod.sandbox.ready), (sandbox.as_str(), true));
    assert_eq!(pod.exited(&ends_meanwhile).await.exit_code, 8);
    // Everything works on: exec, start, logs, exit.
    fixture.runtime.start_container(&created).await.unwrap();
    assert_eq!(pod.exec(&running, &["touch", "/go"]).await.exit_code, 0);
    let exited = pod.exited(&running).await;
    assert_eq!(exited.exit_code, 6);
    assert_eq!(log_lines(&exited.log_path).last().unwrap().2, "after");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_pod_along() {
    let fixture = Fixture::new("killshim").await;
    let pod = fixture.pod(|config| config.namespaces.share_process_namespace = true).await;
    let id = pod.start("busybox", &["sleep", "98765"], |_| {}).await;
    let shim = shim_of(&fixture, &pod.sandbox.id);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    let exited = pod.exited(&id).await;
    assert_eq!((exited.exit_code, exited.message.as_str()), (137, "the pod's shim ended"));
    let mut events = fixture.runtime.events();
    let not_ready = async {
        while fixture.runtime.list_sandboxes().await.unwrap()[0].ready {
            events.recv().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, not_ready).await.unwrap();
    let gone = async {
        while processes()
            .iter()
            .any(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == b"sleep\x0098765\x00"))
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("no container outlives its shim");
    assert!(fixture.runtime.start_container(&id).await.is_err());
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_while_nobody_looks_is_cleared_away() {
    let mut fixture = Fixture::new("killboth").await;
    let (id, sandbox) = {
        let pod = fixture.pod(|_| {}).await;
        (pod.start("busybox", &["sleep", "1000"], |_| {}).await, pod.sandbox.id.clone())
    };
    fixture.tasks.stop().await;
    let shim = shim_of(&fixture, &sandbox);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    // What a process leaves that dies in the middle of things.
    let state = fixture.directory.path().join("state");
    fs::create_dir_all(state.join("sandboxes/half")).unwrap();
    fs::write(state.join("netns/leaked"), "").unwrap();
    fs::create_dir_all(fixture.directory.path().join("root/containers/unknown/upper")).unwrap();
    fixture.reopen().await;
    let status = fixture.runtime.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 137));
    assert!(!fixture.runtime.list_sandboxes().await.unwrap()[0].ready);
    fixture.finish().await;
}

fn shim_of(fixture: &Fixture, sandbox: &str) -> i32 {
    let path = fixture.directory.path().join("state/sandboxes").join(sandbox).join("shim.json");
    let text = fs::read_to_string(path).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    i32::try_from(value["pid"].as_i64().unwrap()).unwrap()
}
