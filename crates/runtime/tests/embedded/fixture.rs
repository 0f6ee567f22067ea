//! A runtime in temporary directories, pods in it, and the search for leaks at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use corten_runtime::embedded::{Config, Embedded};
use corten_runtime::*;
use corten_task::Tasks;

/// Longest wait for anything that happens by itself.
pub const SOON: Duration = Duration::from_secs(20);

/// A runtime with both test images.
pub struct Fixture {
    pub runtime: Embedded,
    pub tasks: Tasks,
    pub directory: tempfile::TempDir,
    pub cgroup: String,
}

/// A pod's sandbox.
pub struct Pod<'a> {
    pub fixture: &'a Fixture,
    pub sandbox: Sandbox,
}

impl Fixture {
    pub async fn new(name: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let directory = tempfile::Builder::new().prefix("corten-runtime-").tempdir().unwrap();
        let tasks = Tasks::root("test");
        let runtime = Embedded::open(config(directory.path()), &tasks).unwrap();
        let (hello, busybox) = archives();
        runtime.import(hello).await.unwrap();
        runtime.import(busybox).await.unwrap();
        let cgroup = format!("/corten-test-{}-{name}", std::process::id());
        Self { runtime, tasks, directory, cgroup }
    }

    /// As if the process had died and another one started: nothing of the old runtime is told to end.
    pub async fn reopen(&mut self) {
        self.tasks.stop().await;
        self.tasks = Tasks::root("test");
        self.runtime = Embedded::open(config(self.directory.path()), &self.tasks).unwrap();
    }

    pub async fn pod(&self, change: impl FnOnce(&mut SandboxConfig)) -> Pod<'_> {
        let mut config = SandboxConfig {
            name: "pod".into(),
            namespace: "default".into(),
            uid: format!("uid-{}", fs::read_dir(self.directory.path()).unwrap().count()),
            hostname: "pod-host".into(),
            log_directory: self.directory.path().join("logs"),
            dns: Some(DnsConfig { servers: vec!["10.0.0.10".into()], ..DnsConfig::default() }),
            cgroup_parent: format!("{}/pod", self.cgroup),
            ..SandboxConfig::default()
        };
        change(&mut config);
        let sandbox = self.runtime.run_sandbox(&config).await.unwrap();
        Pod { fixture: self, sandbox }
    }

    /// Removes every sandbox, and fails when anything is left of them.
    pub async fn finish(self) {
        for sandbox in self.runtime.list_sandboxes().await.unwrap() {
            self.runtime.remove_sandbox(&sandbox.id).await.unwrap();
        }
        assert!(self.runtime.list_containers().await.unwrap().is_empty());
        self.tasks.stop().await;
        let place = self.directory.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&place), "leaked mounts: {mounts}");
        for kind in ["state/netns", "state/sandboxes", "root/containers"] {
            let left: Vec<_> = fs::read_dir(self.directory.path().join(kind)).unwrap().collect();
            assert!(left.is_empty(), "left in {kind}: {left:?}");
        }
        for process in processes() {
            let words = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
            assert!(!words.contains(&place), "process {process} is left: {words}");
        }
        for tree in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = tree.path().join(self.cgroup.trim_start_matches('/'));
            let left = fs::read_dir(&group).map(|entries| entries.flatten().filter(|entry| entry.path().is_dir()).count());
            assert_eq!(left.unwrap_or(0), 0, "groups are left in {}", group.display());
            let _ = fs::remove_dir(group);
        }
        // Images are shared with other tests' archives only; the directory goes with its guard.
    }
}

impl Pod<'_> {
    /// Creates a container with `image` and `command`, changed by `change`.
    pub async fn create(&self, image: &str, command: &[&str], change: impl FnOnce(&mut ContainerConfig)) -> String {
        let mut config = ContainerConfig {
            name: "main".into(),
            image: format!("corten.test/{image}:latest"),
            command: command.iter().map(ToString::to_string).collect(),
            log_path: PathBuf::from("main/0.log"),
            ..ContainerConfig::default()
        };
        config.resources.cpu_shares = 102;
        change(&mut config);
        self.fixture.runtime.create_container(&self.sandbox.id, &config).await.unwrap()
    }

    /// The same, started.
    pub async fn start(&self, image: &str, command: &[&str], change: impl FnOnce(&mut ContainerConfig)) -> String {
        let id = self.create(image, command, change).await;
        self.fixture.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a shell script to its end and returns the container with its log's lines, without their heads.
    pub async fn run(&self, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> (Container, Vec<String>) {
        let id = self.start("busybox", &["sh", "-c", script], change).await;
        let container = self.exited(&id).await;
        let lines = log_lines(&container.log_path).into_iter().map(|(_, _, text)| text).collect();
        self.fixture.runtime.remove_container(&id).await.unwrap();
        let _ = fs::remove_file(&container.log_path);
        (container, lines)
    }

    /// The container once it has exited.
    pub async fn exited(&self, id: &str) -> Container {
        self.until(id, |container| container.state == ContainerState::Exited).await
    }

    /// The container once `done`, told by events.
    pub async fn until(&self, id: &str, done: impl Fn(&Container) -> bool) -> Container {
        let mut events = self.fixture.runtime.events();
        let waiting = async {
            loop {
                let container = self.fixture.runtime.container_status(id).await.unwrap();
                if done(&container) {
                    return container;
                }
                events.recv().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, waiting).await.expect("the container changes soon")
    }

    pub async fn exec(&self, id: &str, command: &[&str]) -> ExecOutput {
        let command: Vec<String> = command.iter().map(ToString::to_string).collect();
        self.fixture.runtime.exec_sync(id, &command, Some(SOON)).await.unwrap()
    }
}

pub fn config(directory: &Path) -> Config {
    let shim = vec![env!("CARGO_BIN_EXE_runtime-shim").into()];
    let mut config = Config::new(directory.join("root"), directory.join("state"), shim);
    config.shim_cgroup = String::new();
    config
}

/// Stream, tag and text of each line of a log.
pub fn log_lines(path: &Path) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let time = parts.next().unwrap();
        assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
        let mut next = || parts.next().unwrap_or_default().to_owned();
        (next(), next(), next())
    };
    text.lines().map(line).collect()
}

pub fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Archives of both images, made once.
pub fn archives() -> (&'static Path, &'static Path) {
    static MADE: OnceLock<(tempfile::TempDir, PathBuf, PathBuf)> = OnceLock::new();
    let (_, hello, busybox) = MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let (hello, busybox) = (directory.path().join("hello.tar"), directory.path().join("busybox.tar"));
        corten_testkit::hello_image().unwrap().write_oci(&hello).unwrap();
        corten_testkit::busybox_image().unwrap().write_docker(&busybox).unwrap();
        (directory, hello, busybox)
    });
    (hello, busybox)
}
