//! Volumes with real mounts, below a directory of the test's own. They need root and are left out without.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use corten_fakeapi::FakeApi;
use corten_task::Tasks;

use super::*;
use crate::clock::Clock;
use crate::test::pod;

/// Takes down what a failed test leaves mounted.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for mount in mounts_below(&self.0).unwrap_or_default().into_iter().rev() {
            let _ = nix::mount::umount2(&mount, MntFlags::MNT_DETACH);
        }
    }
}

fn volumes(root: &Path) -> Volumes {
    let client = FakeApi::new().client();
    let tasks = Tasks::root("test");
    Volumes {
        root: root.to_owned(),
        config_maps: Objects::new(client.clone(), tasks.clone()),
        secrets: Objects::new(client.clone(), tasks),
        tokens: Tokens::new(client.clone(), Clock::System),
        client,
        manage: true,
    }
}

#[tokio::test]
async fn volumes_are_mounted_owned_and_taken_down() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let host = tempfile::tempdir().expect("a directory");
    let _cleanup = Cleanup(dir.path().to_owned());
    std::fs::write(host.path().join("precious"), "kept").expect("writable");
    let volumes = volumes(dir.path());
    let pod = pod(&format!(
        "{{securityContext: {{fsGroup: 4242}}, volumes: [\
         {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}, {{name: disk, emptyDir: {{}}}}, \
         {{name: down, downwardAPI: {{items: [{{path: name, fieldRef: {{fieldPath: metadata.name}}}}]}}}}, \
         {{name: host, hostPath: {{path: {}, type: Directory}}}}], \
         containers: [{{name: a, volumeMounts: [{{name: disk, mountPath: /d, subPathExpr: sub/$(WHO)}}, {{name: host, mountPath: /h, subPath: precious}}]}}]}}",
        host.path().display()
    ));
    let (again, errors) = volumes.prepare(&pod, &Node::default(), &Arc::default()).await;
    assert!(again.is_none() && errors.is_empty(), "{errors:?}");

    let at = |name: &str| {
        let found = pod.spec().volumes.iter().flatten().find(|volume| volume.name == name).expect("named");
        volumes.path(&pod, found)
    };
    assert!(is_mount_point(&at("memory")));
    assert!(std::fs::write(at("memory").join("big"), vec![0; 2 << 20]).is_err(), "the size limit holds");
    let meta = std::fs::metadata(at("disk")).expect("there");
    assert_eq!((meta.gid(), meta.permissions().mode() & 0o7777), (4242, 0o2777));
    let file = at("down").join("name");
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "web");
    assert_eq!(std::fs::metadata(&file).expect("there").gid(), 4242);

    let env = [("WHO".to_owned(), "me".to_owned())];
    let container = &pod.spec().containers[0];
    let found = mounts::container_mounts(&volumes, &pod, container, &env).expect("mounts");
    std::fs::write(found[0].host_path.join("x"), "inside").expect("writable");
    assert_eq!(std::fs::read_to_string(at("disk").join("sub/me/x")).expect("readable"), "inside");
    assert_eq!(std::fs::read_to_string(&found[1].host_path).expect("readable"), "kept");

    // A link that the pod planted leads nowhere else.
    std::fs::remove_dir_all(at("disk").join("sub")).expect("removed");
    symlink("/etc", at("disk").join("sub")).expect("linked");
    let escaped = mounts::container_mounts(&volumes, &pod, container, &env);
    assert_eq!(escaped, Err("failed to prepare subPath for volumeMount \"disk\" of container \"a\"".to_owned()));

    volumes.remove_pod("u1").expect("removed");
    assert!(!volumes.pod_dir("u1").exists() && mounts_below(dir.path()).expect("readable").is_empty());
    assert_eq!(std::fs::read_to_string(host.path().join("precious")).expect("readable"), "kept");
}

#[test]
fn the_owner_is_what_all_containers_share() {
    let of = |spec: &str| {
        let owner = owner(&pod(spec));
        (owner.user, owner.group)
    };
    assert_eq!(
        of("{containers: [{name: a, securityContext: {runAsUser: 7}}, {name: b, securityContext: {runAsUser: 7}}]}"),
        (Some(7), None)
    );
    assert_eq!(of("{containers: [{name: a, securityContext: {runAsUser: 7}}, {name: b}]}"), (None, None));
    assert_eq!(of("{securityContext: {runAsUser: 5, fsGroup: 6}, containers: [{name: a}]}"), (Some(5), Some(6)));
}
