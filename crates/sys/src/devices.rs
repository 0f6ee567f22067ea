//! Device access on cgroup v2, where it is no controller with files but a BPF program attached to the cgroup.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

/// One kind of access that is allowed; everything else is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Block device instead of character device.
    pub block: bool,
    /// Major number, any when `None`.
    pub major: Option<u32>,
    /// Minor number, any when `None`.
    pub minor: Option<u32>,
    /// Reading is allowed.
    pub read: bool,
    /// Writing is allowed.
    pub write: bool,
    /// Making the node is allowed.
    pub mknod: bool,
}

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

// Registers: 1 the context, then 2 type, 3 access, 4 major, 5 minor, 6 scratch, 0 the verdict.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb4;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// An instruction of the kernel's BPF machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// The program that allows `rules` and nothing else.
#[must_use]
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0), // access << 16 | type
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let given = |is_given: bool, access: i32| if is_given { access } else { 0 };
        let allowed = given(rule.mknod, ACCESS_MKNOD) | given(rule.read, ACCESS_READ) | given(rule.write, ACCESS_WRITE);
        let refused = (ACCESS_MKNOD | ACCESS_READ | ACCESS_WRITE) & !allowed;
        let mut block = vec![(2, if rule.block { DEV_BLOCK } else { DEV_CHAR })];
        block.extend(rule.major.map(|major| (4, major as i32)));
        block.extend(rule.minor.map(|minor| (5, minor as i32)));
        // A rule matches when the device does and no access beyond its own is asked for.
        let check_access = if refused == 0 { 0 } else { 3 };
        let length = block.len() + check_access + 2;
        let mut at = 0;
        for (register, value) in block {
            at += 1;
            code.push(instruction(JUMP_NOT_EQUAL, register, 0, (length - at) as i16, value));
        }
        if refused != 0 {
            code.push(instruction(MOVE_REGISTER, 6, 3, 0, 0));
            code.push(instruction(AND_IMMEDIATE, 6, 0, 0, refused));
            at += 3;
            code.push(instruction(JUMP_NOT_EQUAL, 6, 0, (length - at) as i16, 0));
        }
        code.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, 1));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code.push(instruction(MOVE_IMMEDIATE, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

/// Allows processes of the cgroup v2 directory `cgroup` the devices of `rules` only. The program lives as long as the
/// cgroup.
///
/// # Errors
/// As of `bpf(2)`.
pub fn restrict(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let code = program(rules);
    let load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `load` is the head of `union bpf_attr` for this command; what it points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attach =
        Attach { target: cgroup.as_raw_fd() as u32, program: program.as_raw_fd() as u32, kind: ATTACH_CGROUP_DEVICE, flags: 0 };
    // SAFETY: `attach` is the head of `union bpf_attr` for this command.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a made-up access, as the kernel would.
    fn allowed(rules: &[Rule], block: bool, major: u32, minor: u32, access: i32) -> bool {
        let code = program(rules);
        let mut registers = [0_i64; 8];
        let kind = if block { DEV_BLOCK } else { DEV_CHAR };
        let context = [i64::from(access << 16 | kind), i64::from(major), i64::from(minor)];
        let mut at = 0;
        loop {
            let step = code[at];
            let (to, from) = ((step.registers & 15) as usize, (step.registers >> 4) as usize);
            at += 1;
            match step.code {
                LOAD_WORD => registers[to] = context[step.offset as usize / 4],
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_IMMEDIATE => registers[to] = i64::from(step.immediate),
                AND_IMMEDIATE => registers[to] &= i64::from(step.immediate),
                SHIFT_RIGHT => registers[to] >>= step.immediate,
                JUMP_NOT_EQUAL if registers[to] != i64::from(step.immediate) => at += step.offset as usize,
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    #[rustfmt::skip]
    fn program_follows_the_rules() {
        let null = Rule { block: false, major: Some(1), minor: Some(3), read: true, write: true, mknod: true };
        let nodes = Rule { block: true, major: None, minor: None, read: false, write: false, mknod: true };
        let rules = [null, nodes];
        assert!(allowed(&rules, false, 1, 3, ACCESS_READ | ACCESS_WRITE));
        assert!(!allowed(&rules, false, 1, 5, ACCESS_READ));
        assert!(!allowed(&rules, true, 1, 3, ACCESS_READ));
        assert!(allowed(&rules, true, 254, 0, ACCESS_MKNOD));
        assert!(!allowed(&rules, true, 254, 0, ACCESS_MKNOD | ACCESS_READ));
        assert!(!allowed(&[], false, 1, 3, ACCESS_READ));
    }
}
