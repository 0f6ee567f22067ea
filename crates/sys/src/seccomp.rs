//! Installs a compiled seccomp filter.

use std::io;

use nix::libc;

/// Bytes of one instruction of a filter.
const INSTRUCTION: usize = 8;

/// Confines the calling thread, and what it becomes, by `filter`: instructions as libseccomp exports them.
///
/// # Errors
/// As of `seccomp(2)`; [`io::ErrorKind::InvalidData`] for what is no program. Without `no_new_privs`, the caller needs
/// CAP_SYS_ADMIN.
pub fn install(filter: &[u8], flags: u32) -> io::Result<()> {
    let length = u16::try_from(filter.len() / INSTRUCTION).unwrap_or(0);
    if length == 0 || !filter.len().is_multiple_of(INSTRUCTION) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no seccomp filter"));
    }
    // Copied, since instructions have an alignment that bytes lack.
    let instructions: Vec<libc::sock_filter> = filter
        .chunks_exact(INSTRUCTION)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: `program` names as many instructions as there are, and all outlive the call, which only reads them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
