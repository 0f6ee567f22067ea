//! The file-descriptor based mount API (Linux 5.2 and later): mounts that exist without a place in the tree, so that
//! nothing is left behind when their maker dies.

use std::ffi::{CStr, CString, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const OPEN_TREE_CLONE: c_uint = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_SIZE_VER0: usize = 32;

/// An overlay of `lower` (topmost first), writable through `upper` and `work` when given. The mount is detached: it
/// goes with its last file descriptor unless [`attach`]ed.
///
/// # Errors
/// As of `fsopen(2)`, `fsconfig(2)` and `fsmount(2)`; [`io::ErrorKind::Unsupported`] on kernels before 5.2.
pub fn overlay(lower: &[&Path], writable: Option<(&Path, &Path)>, flags: &[&CStr]) -> io::Result<OwnedFd> {
    let context = open_context(c"overlay")?;
    set(&context, c"source", c"overlay")?;
    // `lowerdir+` takes one layer a call, without the page size limit of an option string (6.5 and later).
    let mut appended = true;
    for (index, layer) in lower.iter().enumerate() {
        match set(&context, c"lowerdir+", &cstring(layer)?) {
            Ok(()) => {}
            Err(_) if index == 0 => {
                appended = false;
                break;
            }
            Err(err) => return Err(err),
        }
    }
    if !appended {
        let mut joined = Vec::new();
        for layer in lower {
            if !joined.is_empty() {
                joined.push(b':');
            }
            for &byte in layer.as_os_str().as_bytes() {
                if matches!(byte, b':' | b'\\') {
                    joined.push(b'\\');
                }
                joined.push(byte);
            }
        }
        set(&context, c"lowerdir", &CString::new(joined)?)?;
    }
    if let Some((upper, work)) = writable {
        set(&context, c"upperdir", &cstring(upper)?)?;
        set(&context, c"workdir", &cstring(work)?)?;
    }
    for flag in flags {
        configure(&context, FSCONFIG_SET_FLAG, Some(flag), None)?;
    }
    create(&context)
}

/// A detached tmpfs with `options` such as `("size", "64m")`.
///
/// # Errors
/// As of the system calls.
pub fn tmpfs(options: &[(&CStr, &CStr)]) -> io::Result<OwnedFd> {
    let context = open_context(c"tmpfs")?;
    for (key, value) in options {
        set(&context, key, value)?;
    }
    create(&context)
}

/// Puts a detached mount at `target`.
///
/// # Errors
/// As of `move_mount(2)`.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = cstring(target)?;
    // SAFETY: both strings are NUL-terminated and outlive the call; the descriptor is borrowed and open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(result).map(drop)
}

/// A detached read-only clone of the mount of one file or directory. A program executed through it cannot be
/// overwritten through `/proc/<pid>/exe`, also not by a container that is root (CVE-2019-5736).
///
/// # Errors
/// As of `open_tree(2)` and `mount_setattr(2)`.
pub fn readonly_clone(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let path = cstring(path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as c_uint;
    // SAFETY: the string is NUL-terminated and outlives the call.
    let tree = owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: `attr` has the layout of `struct mount_attr`, version 0, whose size is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            MOUNT_ATTR_SIZE_VER0,
        )
    };
    check(result)?;
    Ok(tree)
}

fn open_context(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the string is NUL-terminated.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

fn set(context: &OwnedFd, key: &CStr, value: &CStr) -> io::Result<()> {
    configure(context, FSCONFIG_SET_STRING, Some(key), Some(value))
}

fn create(context: &OwnedFd) -> io::Result<OwnedFd> {
    configure(context, FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: plain integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

fn configure(context: &OwnedFd, command: c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: pointers are null or NUL-terminated strings that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(key), pointer(value), 0) };
    check(result).map(drop)
}

fn cstring(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        let err = io::Error::last_os_error();
        return Err(match err.raw_os_error() {
            Some(libc::ENOSYS) => io::Error::new(io::ErrorKind::Unsupported, err),
            _ => err,
        });
    }
    Ok(result)
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as i32;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
