//! Extended attributes.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

/// Sets an attribute of `path` itself, not of what a link there leads to.
///
/// # Errors
/// As of `lsetxattr(2)`.
pub fn set(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    // SAFETY: both strings are NUL-terminated, and the value's length is passed along.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The value of an attribute of `path` itself; `None` when it has none.
///
/// # Errors
/// As of `lgetxattr(2)`.
pub fn get(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let mut value = vec![0; 64 * 1024];
    // SAFETY: both strings are NUL-terminated, and the buffer's length is passed along.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    if length < 0 {
        let err = io::Error::last_os_error();
        return if err.raw_os_error() == Some(libc::ENODATA) { Ok(None) } else { Err(err) };
    }
    value.truncate(length as usize);
    Ok(Some(value))
}
