//! Forks and signal state: what a supervisor of containers needs around `exec`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork};

/// Set in processes that [`fork_child`] made.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Forks a child that runs `child` and ends with its result, without exit handlers. Only for single-threaded processes.
///
/// # Errors
/// As of `fork(2)`; [`io::ErrorKind::Unsupported`] when the process has several threads, since the child could then
/// deadlock on a lock held by a thread that does not exist there.
pub fn fork_child(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // A forked child has one thread by construction, and may be where `/proc` shows it nothing of itself.
    if !FORKED.load(Ordering::Relaxed) && threads()? != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "fork in a process with several threads"));
    }
    // SAFETY: the process has a single thread, so the child is a whole copy and may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            FORKED.store(true, Ordering::Relaxed);
            let code = child();
            // SAFETY: ends the process without running exit handlers and destructors, which are the parent's.
            unsafe { libc::_exit(code) }
        }
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

/// Marks every descriptor from `first` on to be closed by `exec`.
///
/// # Errors
/// As of `close_range(2)` (Linux 5.11 and later).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: descriptors stay open and owned; only a flag changes.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

/// Sends a signal by number, real-time signals included.
///
/// # Errors
/// As of `kill(2)`.
pub fn kill_raw(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until all of `pids` have ended (a corpse that nobody has reaped counts as ended), at most `limit`. Processes
/// that are gone already are fine. Returns whether all have ended.
///
/// # Errors
/// As of `pidfd_open(2)` and `poll(2)`.
pub fn wait_for_end(pids: &[i32], limit: std::time::Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + limit;
    for &pid in pids {
        // SAFETY: plain integers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            let err = io::Error::last_os_error();
            match err.raw_os_error() {
                Some(libc::ESRCH) => continue,
                _ => return Err(err),
            }
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let process = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let mut watch = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one entry, whose count is passed along.
        match unsafe { libc::poll(&raw mut watch, 1, milliseconds) } {
            0 => return Ok(false),
            count if count > 0 => {}
            _ => {
                let err = io::Error::last_os_error();
                if err.kind() != io::ErrorKind::Interrupted {
                    return Err(err);
                }
            }
        }
    }
    Ok(true)
}
