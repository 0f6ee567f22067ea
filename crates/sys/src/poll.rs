//! `poll(2)`, for single-threaded processes too small for an async runtime.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// What one descriptor waits for, and what came.
#[derive(Debug)]
#[repr(transparent)]
pub struct Watch(libc::pollfd);

impl Watch {
    /// Waits for input, output, both, or (with neither) only for hang-up and errors.
    #[must_use]
    pub fn new(fd: BorrowedFd<'_>, readable: bool, writable: bool) -> Self {
        let events = if readable { libc::POLLIN } else { 0 } | if writable { libc::POLLOUT } else { 0 };
        Self(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 })
    }

    /// Input, its end, or an error: a read will not block.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// A write will not block, or fails.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.0.revents & (libc::POLLOUT | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// The peer is gone.
    #[must_use]
    pub fn hung_up(&self) -> bool {
        self.0.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }
}

/// Waits without a limit until something happens to one of `watches`. A descriptor closed meanwhile only wakes it.
///
/// # Errors
/// As of `poll(2)`; an interrupted wait is repeated.
pub fn wait(watches: &mut [Watch]) -> io::Result<()> {
    loop {
        // SAFETY: `Watch` is transparent over `pollfd`, and the slice's length is passed along.
        let result = unsafe { libc::poll(watches.as_mut_ptr().cast(), watches.len() as libc::nfds_t, -1) };
        if result >= 0 {
            return Ok(());
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
}
