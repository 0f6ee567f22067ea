//! The shim: one small process per pod that owns its namespaces and is the parent of its containers, so that they
//! outlive everything else. It is this binary executed again; single-threaded, without an async runtime, and asleep in
//! `poll` nearly always.
//!
//! It copies output to the log, keeps exit codes on disk, and serves the runtime over a socket. When the runtime goes
//! away it goes on; a new runtime connects and asks for everything.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::cgroup::Cgroups;
use super::protocol::{Reply, line};
use super::record::{self, SOCKET, SandboxPaths, SandboxRecord, ShimRecord};

mod container;
pub(super) use container::nonblocking;
mod exec;
mod executor;
pub(super) use executor::DEFAULT_PATH;
mod init;
mod inside;
mod log;
mod namespaces;
mod serve;

/// What the re-executed binary runs. The last argument is the sandbox's directory, standard input the socket to the
/// runtime that started it. Must be called before the process has a second thread.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(directory) = args.into_iter().last() else {
        eprintln!("runtime-shim: no sandbox directory");
        return ExitCode::FAILURE;
    };
    let paths = SandboxPaths { directory: PathBuf::from(directory) };
    let record: SandboxRecord = match record::load(&paths.record()) {
        Ok(record) => record,
        Err(err) => {
            eprintln!("runtime-shim: {err}");
            return ExitCode::FAILURE;
        }
    };
    // The runtime waits for this process only; the child lives on by itself.
    match corten_sys::process::fork_child(|| run(&record, &paths)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("runtime-shim: fork: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run(record: &SandboxRecord, paths: &SandboxPaths) -> i32 {
    let control = match detach(paths) {
        Ok(control) => control,
        Err(err) => {
            eprintln!("runtime-shim: {err}");
            return 1;
        }
    };
    let mut control = UnixStream::from(control);
    match stand(record, paths) {
        Ok((listener, children, shim)) => {
            let ready = Reply::Ready((&shim).into());
            let heard = control.write_all(&line(&ready)).is_ok();
            match serve::Server::new(record.clone(), paths.clone(), shim, listener, children, control) {
                Ok(mut server) if heard => server.run(),
                // The runtime died meanwhile and knows of no such sandbox.
                Ok(mut server) => {
                    server.end();
                    1
                }
                Err(err) => {
                    eprintln!("runtime-shim: {err}");
                    1
                }
            }
        }
        Err(why) => {
            namespaces::leave(record, paths);
            let _ = control.write_all(&line(&Reply::Failed(why)));
            1
        }
    }
}

/// Leaves the runtime's session and takes the control socket off standard input.
fn detach(paths: &SandboxPaths) -> std::io::Result<OwnedFd> {
    setsid()?;
    chdir("/")?;
    umask(Mode::from_bits_truncate(0o022));
    let control = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    let log = fs::OpenOptions::new().create(true).append(true).open(paths.directory.join("shim.log"))?;
    dup2_stderr(&log)?;
    Ok(control)
}

fn stand(record: &SandboxRecord, paths: &SandboxPaths) -> Result<(UnixListener, SignalFd, ShimRecord), String> {
    let _ = nix::sys::prctl::set_name(c"corten-shim");
    nix::sys::prctl::set_child_subreaper(true).map_err(|err| format!("become subreaper: {err}"))?;
    protect();
    join_cgroup(record);
    let init = namespaces::enter(record, paths)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    // A shim ends when told to over its socket, or by SIGKILL: a stop of the service must not stop pods.
    for ignored in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(ignored);
    }
    signals.thread_block().map_err(|err| format!("block signals: {err}"))?;
    let children = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|err| format!("make signal descriptor: {err}"))?;
    let listener = super::link::listen(&paths.directory, SOCKET).map_err(|err| format!("listen: {err}"))?;
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let shim = ShimRecord { pid, init, start_time: record::process_start(pid).unwrap_or_default() };
    record::save(&paths.shim(), &shim).map_err(|err| format!("write {}: {err}", paths.shim().display()))?;
    Ok((listener, children, shim))
}

/// The kernel's memory killer must take containers, never the shim.
fn protect() {
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
}

/// Moves to a group of its own, so that a service manager that ends the runtime's group does not end the pods.
fn join_cgroup(record: &SandboxRecord) {
    if record.shim_cgroup.is_empty() {
        return;
    }
    if let Ok(cgroups) = Cgroups::detect(&record.cgroup_root) {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        // Only accounting and service management depend on it: a machine that refuses still runs pods.
        let _ = cgroups.create(&record.shim_cgroup);
        let _ = cgroups.join(&record.shim_cgroup, pid);
    }
}
