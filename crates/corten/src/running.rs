//! What a running cluster leaves word of, so that `down` can stop it and clean up after it, whatever became of it.

use std::fs;
use std::net::IpAddr;

use anyhow::Context;
use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::paths::Paths;
use crate::up::Config;

/// The facts about a cluster that cannot be read off the machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Running {
    /// Process id of `corten up`; 0 when it has stopped.
    pub pid: i32,
    /// When that process started, in ticks since boot: ids are used again.
    pub started: u64,
    /// cgroup below which the pods' cgroups are.
    pub cgroup_root: String,
    /// Address of the cluster DNS.
    pub dns_ip: IpAddr,
    /// Addresses of all pods.
    pub pod_cidr: String,
    /// Addresses of Services.
    pub service_cidr: String,
    /// The node's own ranges of pod addresses, once the network is open.
    pub node_ranges: Vec<String>,
}

impl Running {
    /// Writes down that this process runs the cluster.
    pub fn remember(config: &Config) -> anyhow::Result<()> {
        let pid = i32::try_from(std::process::id())?;
        let running = Self {
            pid,
            started: start_ticks(pid).unwrap_or(0),
            cgroup_root: config.cgroup_root.clone(),
            dns_ip: config.dns_ip(),
            pod_cidr: config.pod_cidr.to_string(),
            service_cidr: config.service_cidr.to_string(),
            node_ranges: Self::read(&config.paths).map(|before| before.node_ranges).unwrap_or_default(),
        };
        running.write(&config.paths)
    }

    /// Writes down that this process does not run it any more; its containers may. What another process wrote stays: this one
    /// may have been refused because of it.
    pub fn forget(paths: &Paths) {
        let own = i32::try_from(std::process::id()).ok();
        if let Some(mut running) = Self::read(paths).filter(|running| Some(running.pid) == own) {
            running.pid = 0;
            if let Err(err) = running.write(paths) {
                tracing::warn!(%err, "the note of the running cluster could not be changed");
            }
        }
    }

    /// Writes down the node's ranges: the network is open.
    pub fn note_ranges(paths: &Paths, ranges: Vec<IpNet>) -> anyhow::Result<()> {
        let Some(mut running) = Self::read(paths) else { return Ok(()) };
        running.node_ranges = ranges.iter().map(ToString::to_string).collect();
        running.write(paths)
    }

    /// What was last written, if anything.
    pub fn read(paths: &Paths) -> Option<Self> {
        serde_json::from_slice(&fs::read(paths.running()).ok()?).ok()
    }

    /// Asks the process to stop, if it still is the one that wrote this, and waits for its end.
    pub fn stop(&self) -> anyhow::Result<()> {
        if self.pid == 0 || start_ticks(self.pid) != Some(self.started) {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("a process id is positive")?;
        let process = pidfd_open(pid, PidfdFlags::empty()).context("watch the cluster's process")?;
        pidfd_send_signal(&process, Signal::TERM).context("stop the cluster's process")?;
        // The descriptor becomes readable when the process has ended.
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).context("wait for the cluster's process")?;
        Ok(())
    }

    fn write(&self, paths: &Paths) -> anyhow::Result<()> {
        let path = paths.running();
        fs::write(&path, serde_json::to_vec(self)?).with_context(|| format!("write {}", path.display()))
    }
}

/// Field 22 of `/proc/PID/stat`: the start time in clock ticks since boot.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold spaces and parentheses; the fields are counted after the last one.
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}
