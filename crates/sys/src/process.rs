//! Forks and signal state: what a supervisor of containers needs around `exec`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Output};
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

/// Runs a program to its end, as [`Command::output`] does, without ever showing it this process's descriptors but those of
/// `lent`: the ones `command` was given.
///
/// Until the new program is executed, its process has copies of all descriptors of the thread that starts it, also of those
/// that `exec` closes. When this process is killed in between, the copies outlive it: its ports stay taken and its locks
/// held until the orphan gets to run. So a thread of its own starts the program, with a table that holds nothing else.
///
/// # Errors
/// As of [`Command::output`] and `close_range(2)` (Linux 5.9 and later).
pub fn output(command: &mut Command, lent: &[RawFd]) -> io::Result<Output> {
    let mut lent: Vec<u32> = lent.iter().map(|fd| fd.unsigned_abs()).filter(|&fd| fd >= 3).collect();
    lent.sort_unstable();
    std::thread::scope(|scope| {
        let started = std::thread::Builder::new().name("program".to_owned()).spawn_scoped(scope, || {
            let mut first = 3;
            for fd in lent {
                close_own_copies(first, fd)?;
                first = fd + 1;
            }
            close_own_copies(first, libc::c_uint::MAX)?;
            command.output()
        })?;
        started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives the calling thread a descriptor table of its own and closes the descriptors from `first` to before `end` in it.
fn close_own_copies(first: u32, end: u32) -> io::Result<()> {
    const CLOSE_RANGE_UNSHARE: libc::c_uint = 2;
    if first >= end {
        return Ok(());
    }
    // SAFETY: other threads keep theirs, and this one owns none of what is closed.
    match unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, CLOSE_RANGE_UNSHARE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn a_program_is_shown_nothing_but_what_it_was_lent() {
        let secret = tempfile::tempfile().unwrap();
        // What `exec` does not close shows what the process had before.
        fcntl(&secret, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(b"lent").unwrap();
        input.rewind().unwrap();
        let number = input.as_raw_fd();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("cat; cat /dev/fd/{}", secret.as_raw_fd())).stdin(input);

        let some = output(&mut command, &[number]).unwrap();
        assert_eq!((some.stdout.as_slice(), some.status.success()), (b"lent".as_slice(), false), "{some:?}");
        let all = output(&mut command, &[secret.as_raw_fd(), number]).unwrap();
        assert!(all.status.success(), "{all:?}");
        secret.metadata().expect("nothing was closed here");
    }
}
