//! The machine's shape, which every figure has to name, and what a process costs, up to its end.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Cores, memory and processor in one line.
pub fn shape() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:").unwrap_or(0) / 1024 / 1024;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown processor");
    format!("{cores} cores, {memory} GiB, {model}")
}

/// Resident memory of a process in MiB.
pub fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    mib(field(&status, "VmRSS:").unwrap_or(0))
}

/// Proportional set size of a process in MiB: shared pages count by their share.
pub fn pss_mib(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    mib(field(&rollup, "Pss:").unwrap_or(0))
}

/// Processor time a process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command in parentheses may hold spaces; the fields are counted after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Bytes a process has caused to be written to the disk.
pub fn written_bytes(pid: u32) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default(), "write_bytes:").unwrap_or(0)
}

/// Asks a process to stop in order.
pub fn terminate(pid: u32) -> anyhow::Result<()> {
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    Ok(())
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
