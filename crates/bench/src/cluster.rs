//! A whole cluster in namespaces of its own: how long until it works, how long a pod takes, what it costs when idle.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use corten_testkit::enclosure::{ADDRESS, Enclosure, only_child};

use crate::http::Target;
use crate::stats::{Sample, millis};
use crate::{machine, pods};

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Pods started one after the other.
    #[arg(long, default_value_t = 30)]
    single: usize,
    /// Pods started at once.
    #[arg(long, default_value_t = 100)]
    many: usize,
    /// Seconds to sit idle while processor time and memory are read.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Seconds to sit idle while fsyncs and written bytes are counted.
    #[arg(long, default_value_t = 600)]
    quiet: u64,
}

struct Bench<'a> {
    enclosure: Enclosure,
    corten: &'a Path,
    data: PathBuf,
}

/// A running `corten up` and when its two lines came.
struct Up {
    child: Child,
    pid: u32,
    api: Duration,
    ready: Duration,
}

/// Runs everything and prints the table.
pub fn run(corten: &Path, args: &Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let corten = std::path::absolute(corten)?;
    let bench = Bench { enclosure: Enclosure::new()?, corten: &corten, data: directory.path().join("data") };

    // The image is imported before anything is timed, as it would be on a node that has run before.
    let image = directory.path().join("hello.tar");
    corten_testkit::hello_image()?.named("localhost/hello:1").write_oci(&image)?;
    bench.corten(&["image", "--data-dir", bench.data()?, "import", image.to_str().context("a temporary path is UTF-8")?])?;

    let start = Instant::now();
    let up = bench.up()?;
    println!("empty data directory: API ready {}, node Ready {}", millis(up.api), millis(up.ready));
    bench.apply(&pod("first"))?;
    bench.wait_running("first")?;
    println!("empty data directory: first pod Running {}", millis(start.elapsed()));
    println!("one pod: {:.1} MiB PSS", machine::pss_mib(up.pid));

    let begin = Instant::now();
    let starts = pods::starts(&bench.enclosure.network(), bench.client()?, args.single, args.many)?;
    let (name, elapsed) = ("one pod, create to Running".into(), begin.elapsed());
    Sample { name, latencies: starts.single, elapsed, cpu: 0.0, client: 0.0 }.print();
    println!("{} pods, first create to all Running: {}", args.many, millis(starts.many));
    println!("{} pods: {:.1} MiB PSS", args.many, machine::pss_mib(up.pid));
    bench.kubectl(&["delete", "pods", "--all", "--grace-period=1", "--timeout=120s"])?;

    let seconds = |n| std::thread::sleep(Duration::from_secs(n));
    seconds(5);
    let before = machine::cpu_seconds(up.pid);
    seconds(args.idle);
    let share = (machine::cpu_seconds(up.pid) - before) / args.idle as f64 * 100.0;
    println!("idle, pods gone: {share:.2} % of a core over {} s, {:.1} MiB PSS", args.idle, machine::pss_mib(up.pid));

    let written = machine::written_bytes(up.pid);
    let syncs = count_syncs(up.pid, args.quiet)?;
    println!("idle, pods gone: {syncs} fsyncs, {} bytes written in {} s", machine::written_bytes(up.pid) - written, args.quiet);

    bench.stop(up)?;
    let start = Instant::now();
    let up = bench.up()?;
    println!("restart: API ready {}, node Ready {}", millis(up.api), millis(up.ready));
    bench.apply(&pod("again"))?;
    bench.wait_running("again")?;
    println!("restart: first new pod Running {}", millis(start.elapsed()));
    bench.stop(up)?;
    bench.corten(&["down", "--data-dir", bench.data()?])?;
    Ok(())
}

impl Bench<'_> {
    fn data(&self) -> anyhow::Result<&str> {
        self.data.to_str().context("a temporary path is UTF-8")
    }

    fn corten(&self, args: &[&str]) -> anyhow::Result<String> {
        self.enclosure.run(self.corten.to_str().context("the binary's path is UTF-8")?, args)
    }

    fn up(&self) -> anyhow::Result<Up> {
        let start = Instant::now();
        let mut child = self
            .enclosure
            .command(self.corten.to_str().context("the binary's path is UTF-8")?)
            .args(["up", "--data-dir", self.data()?, "--node-name", "node", "--node-ip", ADDRESS])
            .args(["--cgroup-root", self.enclosure.cgroup()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let mut until = |word: &str| -> anyhow::Result<Duration> {
            for line in lines.by_ref() {
                if line?.contains(word) {
                    return Ok(start.elapsed());
                }
            }
            bail!("corten up ended before it said {word:?}")
        };
        let (api, ready) = (until("API")?, until("Ready")?);
        let pid = only_child(child.id())?;
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(Up { child, pid, api, ready })
    }

    fn stop(&self, mut up: Up) -> anyhow::Result<()> {
        machine::terminate(up.pid)?;
        up.child.wait()?;
        Ok(())
    }

    fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let config = self.data.join("admin.kubeconfig");
        let config = config.to_str().context("a temporary path is UTF-8")?;
        self.enclosure.run("kubectl", &[&["--kubeconfig", config], args].concat())
    }

    fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        let file = self.data.with_file_name("manifest.yaml");
        std::fs::write(&file, manifest)?;
        self.kubectl(&["create", "-f", file.to_str().context("a temporary path is UTF-8")?])?;
        Ok(())
    }

    /// A client with every right, by the token of a service account.
    fn client(&self) -> anyhow::Result<Target> {
        self.kubectl(&["create", "serviceaccount", "bench"])?;
        self.kubectl(&[
            "create",
            "clusterrolebinding",
            "bench",
            "--clusterrole=cluster-admin",
            "--serviceaccount=default:bench",
        ])?;
        let token = self.kubectl(&["create", "token", "bench"])?;
        Target::new(6443, token.trim(), &self.data.join("pki/ca.crt"))
    }

    fn wait_running(&self, name: &str) -> anyhow::Result<()> {
        let wait = ["wait", "--for=jsonpath={.status.phase}=Running", "--timeout=120s"];
        self.kubectl(&[&wait[..], &[&format!("pod/{name}")]].concat())?;
        Ok(())
    }
}

/// Counts fsync and fdatasync calls of a process with `strace`.
fn count_syncs(pid: u32, seconds: u64) -> anyhow::Result<usize> {
    let output = std::process::Command::new("timeout")
        .args([
            &seconds.to_string(),
            "strace",
            "-f",
            "-e",
            "trace=fsync,fdatasync,sync_file_range,syncfs",
            "-p",
            &pid.to_string(),
        ])
        .output()
        .context("strace (package strace)")?;
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(text.lines().filter(|line| line.contains("sync(") || line.contains("fdatasync(")).count())
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: hello, image: 'localhost/hello:1'}}\n"
    )
}
