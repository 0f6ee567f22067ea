//! Unix sockets by directory and name: their addresses are limited to 108 bytes, which a state directory may exceed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Listens at `name` in `directory`.
///
/// # Errors
/// As of `bind(2)`.
pub fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    short(directory, |short| UnixListener::bind(short.join(name)))
}

/// Connects to `name` in `directory`.
///
/// # Errors
/// As of `connect(2)`.
pub fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    short(directory, |short| UnixStream::connect(short.join(name)))
}

fn short<T>(directory: &Path, use_it: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let handle = File::options().read(true).custom_flags(nix::libc::O_DIRECTORY).open(directory)?;
    use_it(PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())))
}
