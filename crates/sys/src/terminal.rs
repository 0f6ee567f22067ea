//! Terminals: sizes, and pairs opened inside a container.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::libc;

/// Sets the size of the terminal whose master or slave side `fd` is; the foreground process gets SIGWINCH.
///
/// # Errors
/// As of `ioctl(TIOCSWINSZ)`.
pub fn resize(fd: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is what TIOCSWINSZ reads.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A terminal of the devpts that `/dev/pts` of the calling process is: master and slave. The path is not trusted: what
/// is opened must be the multiplexer of a real devpts, and the slave is asked of the master, not looked up by name.
///
/// # Errors
/// As of the system calls; [`io::ErrorKind::InvalidData`] when `/dev/pts/ptmx` is something else.
pub fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = std::fs::File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/pts/ptmx")?;
    let kind = nix::sys::statfs::fstatfs(&master)?.filesystem_type();
    if kind.0 != DEVPTS_SUPER_MAGIC || master.metadata()?.ino() != MULTIPLEXER_INODE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/pts/ptmx is no terminal multiplexer"));
    }
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor or -1.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok((master.into(), unsafe { OwnedFd::from_raw_fd(slave) }))
}

/// Makes the terminal on `fd` the controlling one of the calling session leader.
///
/// # Errors
/// As of `ioctl(TIOCSCTTY)`.
pub fn control(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an int by value.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
const MULTIPLEXER_INODE: u64 = 2;
