//! Mount, network and process namespaces of their own, so that a cluster under test touches nothing of the machine and
//! every process it started ends with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail, ensure};

/// The address of the enclosure's only network interface.
pub const ADDRESS: &str = "192.168.77.1";

/// The namespaces, held open by their first process. Dropping it ends every process inside and removes its cgroup.
pub struct Enclosure {
    holder: Child,
    first: u32,
    cgroup: String,
}

impl Enclosure {
    /// Makes the namespaces, with loopback and one interface (`eth0`, [`ADDRESS`]) up. Needs root.
    pub fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("/corten-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // The first process adopts and reaps whatever loses its parent inside.
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "slave"])
            .args(["--", "bash", "-c", "echo ready; while :; do sleep infinity & wait; done"])
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare (package util-linux)")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "namespaces could not be made: run this as root");
        let first = only_child(holder.id())?;
        let enclosure = Self { holder, first, cgroup };
        enclosure.run("ip", &["link", "set", "lo", "up"])?;
        // A veth pair, since not every kernel has dummy interfaces; its other end only keeps the carrier up.
        enclosure.run("ip", &["link", "add", "eth0", "type", "veth", "peer", "name", "wire"])?;
        enclosure.run("ip", &["link", "set", "wire", "up"])?;
        enclosure.run("ip", &["address", "add", &format!("{ADDRESS}/24"), "dev", "eth0"])?;
        enclosure.run("ip", &["link", "set", "eth0", "up"])?;
        Ok(enclosure)
    }

    /// A command inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--mount", "--net", "--pid", "--", program]);
        command
    }

    /// Runs a command inside and returns its standard output; fails with its standard error.
    pub fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self.command(program).args(args).output().context("nsenter")?;
        if !status.success() {
            bail!("{program} {}: {status}\n{}", args.join(" "), String::from_utf8_lossy(&stderr));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// The network namespace, to be opened and entered.
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.first))
    }

    /// The cgroup for whatever runs inside, to be given to `--cgroup-root`.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Every cgroup directory at and below [`Enclosure::cgroup`], parents first, over all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
        let name = self.cgroup.trim_start_matches('/');
        let mut open: Vec<PathBuf> = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|h| h.join(name)).collect();
        let mut found = Vec::new();
        while let Some(directory) = open.pop() {
            if let Ok(entries) = fs::read_dir(&directory) {
                open.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
                found.push(directory);
            }
        }
        found
    }

    /// Command lines of all processes inside, one a line.
    pub fn processes(&self) -> anyhow::Result<Vec<String>> {
        let script = r#"for p in /proc/[0-9]*; do tr '\0' ' ' < "$p/cmdline" 2>/dev/null && echo; done"#;
        Ok(self.run("sh", &["-c", script])?.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect())
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        // `--kill-child`: the first process inside goes with its parent, and the kernel ends every other one inside.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        for cgroup in self.cgroups().into_iter().rev() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// The one child of a process, which has to have one.
pub fn only_child(pid: u32) -> anyhow::Result<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let first = text.split_whitespace().next().with_context(|| format!("process {pid} has no child"))?;
    Ok(first.parse()?)
}
