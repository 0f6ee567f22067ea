//! Forks and signal state: what a supervisor of containers needs around `exec`.

use std::io;
use std::process::exit;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork};

/// Forks a child that runs `child` and exits with its result. Only for single-threaded processes.
///
/// # Errors
/// As of `fork(2)`; [`io::ErrorKind::Unsupported`] when the process has several threads, since the child could then
/// deadlock on a lock held by a thread that does not exist there.
pub fn fork_child(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    if threads()? != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "fork in a process with several threads"));
    }
    // SAFETY: the process has a single thread, so the child is a whole copy and may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => exit(child()),
    }
}

/// Closes every descriptor from `first` on, for a forked child that keeps none of its parent's. It never returns to
/// code that owns them.
pub fn close_from_and_run(first: u32, child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: owners of the closed descriptors are not used again: `child` gets none, and the process ends after it.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    let code = child();
    // SAFETY: ends the process without running destructors, which would close descriptors a second time.
    unsafe { libc::_exit(code) }
}

/// Gives signals back the state that a new program expects: nothing blocked, and SIGPIPE, which Rust programs ignore,
/// at its default. Both would be inherited through `exec`.
///
/// # Errors
/// As of the system calls.
pub fn reset_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}
