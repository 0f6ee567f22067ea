//! What a container may and may not do.

use std::fs;

use corten_runtime::*;

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_container_is_confined() {
    let fixture = Fixture::new("confined").await;
    let pod = fixture.pod(|_| {}).await;
    let script = "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; \
                  mount -t tmpfs none /tmp 2>/dev/null || echo no mount; \
                  (echo 1 > /proc/sys/kernel/printk) 2>/dev/null || echo no sysctl; \
                  cat /proc/interrupts | wc -c; ls /sys/firmware | wc -l; \
                  mknod /tmp/disk b 254 0 && cat /tmp/disk >/dev/null 2>&1 || echo no disk; \
                  head -c 1 /dev/zero | wc -c; unshare true 2>/dev/null || echo no unshare; touch /ok && echo written";
    let (_, lines) = pod.run(script, |_| {}).await;
    let expected = [
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
        "no mount",
        "no sysctl",
        "0",
        "0",
        "no disk",
        "1",
        "no unshare",
        "written",
    ];
    assert_eq!(lines, expected);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_capabilities_and_a_root_that_cannot_be_written() {
    let fixture = Fixture::new("users").await;
    let pod = fixture.pod(|_| {}).await;
    let script = "id; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; touch /no 2>/dev/null || echo read-only; \
                  echo x > /dev/stdout; touch /dev/shm/x && echo shm";
    let (container, lines) = pod
        .run(script, |config| {
            config.security = SecurityContext {
                run_as_user: Some(65534),
                run_as_group: Some(7),
                supplemental_groups: vec![8],
                drop_capabilities: vec!["ALL".into()],
                readonly_rootfs: true,
                no_new_privs: true,
                ..SecurityContext::default()
            };
        })
        .await;
    let expected =
        ["uid=65534(nobody) gid=7 groups=7,8,100(users)", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "read-only", "x", "shm"];
    assert_eq!(lines, expected);
    assert_eq!(container.user, Some((65534, 7, vec![7, 100, 8])));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_is_not() {
    let fixture = Fixture::new("privileged").await;
    let pod = fixture.pod(|_| {}).await;
    let script = "mount -t tmpfs none /mnt && echo mounted; grep Seccomp: /proc/self/status; test -e /dev/vda -o -e /dev/kmsg && echo devices";
    let (_, lines) = pod.run(&format!("mkdir /mnt; {script}"), |config| config.security.privileged = true).await;
    assert_eq!(lines, ["mounted", "Seccomp:\t0", "devices"]);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_devices_are_passed() {
    let fixture = Fixture::new("devices").await;
    let pod = fixture.pod(|_| {}).await;
    let device = Device { host_path: "/dev/kmsg".into(), container_path: "/dev/mine".into(), permissions: "r".into() };
    let script = "test -c /dev/mine && echo there; dd if=/dev/mine of=/dev/null bs=8192 count=1 2>/dev/null && echo read; (echo x > /dev/mine) 2>/dev/null || echo not written";
    let (_, lines) = pod.run(script, |config| config.devices = vec![device]).await;
    assert_eq!((lines[0].as_str(), lines.last().unwrap().as_str()), ("there", "not written"), "{lines:?}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seccomp_profile_of_the_node() {
    let fixture = Fixture::new("seccomp").await;
    let pod = fixture.pod(|_| {}).await;
    let profile = fixture.directory.path().join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, text).unwrap();
    let change = |config: &mut ContainerConfig| config.security.seccomp = SeccompProfile::Localhost(profile.clone());
    let (_, lines) = pod.run("mkdir /x 2>/dev/null || echo refused", change).await;
    assert_eq!(lines, ["refused"]);
    fixture.finish().await;
}
