//! A cluster of its own: mount, network and process namespaces, a data directory and a cgroup that all go when it does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use corten_testkit::enclosure::{ADDRESS, Enclosure, only_child};

/// How long anything may take before a test gives up; generous, since it only matters on failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub const CORTEN: &str = env!("CARGO_BIN_EXE_corten");

/// A running cluster. Dropping it ends every process of its namespaces.
pub struct Cluster {
    enclosure: Enclosure,
    directory: tempfile::TempDir,
    data: PathBuf,
    corten: Mutex<Option<Child>>,
}

impl Cluster {
    /// Starts a cluster and waits until its node is Ready and the test images are imported.
    pub fn start() -> Result<Self, String> {
        let cluster = Self::prepare()?;
        cluster.up()?;
        cluster.import_images(cluster.data_text())?;
        Ok(cluster)
    }

    /// The namespaces and the directories, without a cluster in them yet.
    pub fn prepare() -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("corten-e2e-").tempdir().map_err(|e| e.to_string())?;
        let enclosure = Enclosure::new().map_err(|e| format!("{e:#}"))?;
        let data = directory.path().join("data");
        // In memory, inside: how full the machine's disk is must not decide whether the node reports disk pressure.
        std::fs::create_dir(&data).map_err(|e| e.to_string())?;
        let target = data.to_str().ok_or("a temporary path is UTF-8")?;
        enclosure.run("mount", &["-t", "tmpfs", "-o", "mode=0700,size=4g", "tmpfs", target]).map_err(|e| format!("{e:#}"))?;
        Ok(Self { enclosure, directory, data, corten: Mutex::new(None) })
    }

    /// Starts `corten up` and waits for the line that says the node is Ready.
    pub fn up(&self) -> Result<(), String> {
        self.up_with(&[])
    }

    /// Like [`Cluster::up`], with more flags.
    pub fn up_with(&self, flags: &[&str]) -> Result<(), String> {
        let mut child = self
            .command(CORTEN)
            .args(["up", "--data-dir", self.data_text(), "--node-name", "node", "--node-ip", ADDRESS])
            .args(["--cgroup-root", self.enclosure.cgroup()])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(self.log()).map_err(|e| e.to_string())?)
            .spawn()
            .map_err(|e| e.to_string())?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let (send, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.contains(" Ready ") && send.send(()).is_err() {
                    break;
                }
            }
        });
        let outcome = ready.recv_timeout(PATIENCE);
        *self.corten.lock().expect("no test panics while it holds this") = Some(child);
        outcome.map_err(|_| format!("the node did not become Ready; the log says:\n{}", self.log_text()))
    }

    /// Imports the test images into the node of a data directory.
    pub fn import_images(&self, data: &str) -> Result<(), String> {
        let hello = corten_testkit::hello_image().map_err(|e| format!("{e:#}"))?;
        let busybox = corten_testkit::busybox_image().map_err(|e| format!("{e:#}"))?;
        for (image, name) in
            [(hello.clone(), "localhost/hello:1"), (hello, "localhost/hello:2"), (busybox, "localhost/busybox:1")]
        {
            let image = image.named(name);
            let file = self.directory.path().join("image.tar");
            image.write_oci(&file).map_err(|e| e.to_string())?;
            self.succeed(CORTEN, &["image", "--data-dir", data, "import", file.to_str().expect("UTF-8")])?;
        }
        Ok(())
    }

    /// A command inside the cluster's namespaces, with its kubeconfig.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.enclosure.command(program);
        command.env("KUBECONFIG", self.data().join("admin.kubeconfig"));
        command
    }

    /// Runs a command inside and fails with what it said.
    pub fn succeed(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let output = self.command(program).args(args).output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{program} {}: {}\n{}", args.join(" "), output.status, String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// The network namespace, to be entered.
    pub fn network(&self) -> PathBuf {
        self.enclosure.network()
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn data_text(&self) -> &str {
        self.data.to_str().expect("a temporary path is UTF-8")
    }

    /// The cgroup for whatever runs inside.
    pub fn cgroup(&self) -> &str {
        self.enclosure.cgroup()
    }

    /// Every cgroup directory of the cluster.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.enclosure.cgroups()
    }

    /// A scratch directory for manifests.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The process id of `corten up`, as seen from outside.
    pub fn pid(&self) -> u32 {
        let nsenter = self.corten.lock().expect("no test panics while it holds this").as_ref().expect("it is running").id();
        only_child(nsenter).expect("nsenter has one child, the cluster")
    }

    /// Kills the cluster's process at once, as a crash would.
    pub fn kill(&self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
        self.wait();
    }

    /// Stops the cluster's process with SIGTERM and waits for it.
    pub fn terminate(&self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.wait()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a process id fits"));
        nix::sys::signal::kill(pid, signal).expect("it is running");
    }

    fn wait(&self) -> ExitStatus {
        let mut child = self.corten.lock().expect("no test panics while it holds this").take().expect("it is running");
        child.wait().expect("it can be waited for")
    }

    /// Stops everything as a user would and fails with what was left behind.
    pub fn down(&self) -> Result<(), String> {
        self.succeed(CORTEN, &["down", "--data-dir", self.data_text()])?;
        if let Some(mut child) = self.corten.lock().expect("no test panics while it holds this").take() {
            child.wait().map_err(|e| e.to_string())?;
        }
        let left = self.leftovers()?;
        if left.is_empty() { Ok(()) } else { Err(format!("left behind:\n{}", left.join("\n"))) }
    }

    /// Shims, mounts, interfaces, nftables tables and pod cgroups that exist now.
    pub fn leftovers(&self) -> Result<Vec<String>, String> {
        let words = |kind: &'static str, text: String, marks: Vec<String>| {
            let lines = text
                .lines()
                .filter(|line| marks.iter().any(|mark| line.contains(mark.as_str())))
                .map(|line| format!("{kind} {line}"));
            lines.collect::<Vec<_>>()
        };
        let processes = self.enclosure.processes().map_err(|e| format!("{e:#}"))?.join("\n");
        let mut left = words("process", processes, vec!["runtime-shim".into()]);
        left.extend(words(
            "mount",
            self.succeed("cat", &["/proc/self/mounts"])?,
            vec![format!("{}/", self.data_text()), "/run/corten".into()],
        ));
        left.extend(words("link", self.succeed("ip", &["-o", "link"])?, vec!["corten".into(), "veth".into()]));
        left.extend(words("nftables", self.succeed("nft", &["list", "tables"])?, vec!["corten".into()]));
        let cgroups = self.enclosure.cgroups().into_iter().map(|path| path.display().to_string());
        left.extend(cgroups.filter(|path| path.contains("/pod")).map(|path| format!("cgroup {path}")));
        Ok(left)
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The log so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Makes a Kubernetes namespace for a test.
    pub fn namespace(&self, test: &str) -> String {
        let name = test.replace([':', '_'], "-");
        self.succeed("kubectl", &["create", "namespace", &name]).unwrap_or_else(|err| panic!("{err}"));
        name
    }

    /// Deletes a test's namespace without waiting for its end.
    pub fn delete_namespace(&self, name: &str) {
        self.succeed("kubectl", &["delete", "namespace", name, "--wait=false"]).unwrap_or_else(|err| panic!("{err}"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the cluster's log:\n{}", self.log_text());
            for what in ["pods", "events"] {
                // What cannot be shown, because the cluster is down, is left out.
                eprintln!("{}", self.succeed("kubectl", &["get", what, "-A", "-o", "yaml"]).unwrap_or_default());
            }
        }
    }
}

/// The cluster that most tests share, started by the first that needs it.
#[derive(Default)]
pub struct Shared(Mutex<Option<Result<Arc<Cluster>, String>>>);

impl Shared {
    /// The cluster.
    pub fn cluster(&self) -> Result<Arc<Cluster>, String> {
        let mut slot = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        slot.get_or_insert_with(|| Cluster::start().map(Arc::new)).clone()
    }

    /// Takes it down, if it was started, and fails when it left something behind.
    pub fn stop(&self) -> Result<(), String> {
        match self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            Some(Ok(cluster)) => cluster.down(),
            _ => Ok(()),
        }
    }
}

/// Repeats `attempt` until it gives a value, and fails with its last complaint when patience ends.
#[track_caller]
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) if start.elapsed() > PATIENCE => panic!("{what}: {why}"),
            Err(_) => std::thread::yield_now(),
        }
    }
}
