//! Compiles seccomp profiles. A profile of hundreds of calls on three architectures takes libseccomp milliseconds, at
//! every start of a container and every exec; compiled once and kept on disk, it takes none.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use serde_json::Value;

use crate::images::archive::digest;

/// `SECCOMP_FILTER_FLAG_LOG`.
const LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
const SPEC_ALLOW: u32 = 1 << 2;

/// The file that holds `profile` compiled, made when absent. Its first four bytes are the flags to install it with.
///
/// # Errors
/// In words for the user, whose profile it may be.
pub fn compiled(directory: &Path, profile: &Value) -> Result<PathBuf, String> {
    let text = profile.to_string();
    let path = directory.join(digest(text.as_bytes()).replace("sha256:", ""));
    if path.exists() {
        return Ok(path);
    }
    let profile: LinuxSeccomp = serde_json::from_str(&text).map_err(|err| format!("seccomp profile: {err}"))?;
    let (flags, filter) = compile(&profile).map_err(|err| format!("seccomp profile: {err}"))?;
    let kept = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&flags.to_ne_bytes())?;
        file.write_all(&filter)?;
        file.persist(&path)?;
        Ok(())
    };
    kept().map_err(|err| format!("write {}: {err}", path.display()))?;
    Ok(path)
}

/// Flags and instructions of a compiled profile.
///
/// # Errors
/// When the file cannot be read or is cut off.
pub fn load(path: &Path) -> io::Result<(u32, Vec<u8>)> {
    let mut bytes = fs::read(path)?;
    if bytes.len() < 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let filter = bytes.split_off(4);
    Ok((u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), filter))
}

fn compile(profile: &LinuxSeccomp) -> Result<(u32, Vec<u8>), Box<dyn std::error::Error>> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default)?;
    // A binary tree instead of a chain of comparisons: what the filter costs each call of the container.
    let _ = context.set_ctl_optimize(2);
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => flags |= LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flags |= SPEC_ALLOW,
            // One thread installs it, before the program exists; and nobody is notified.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {}
        }
    }
    for &wanted in profile.architectures().iter().flatten() {
        if let Some(known) = architecture(wanted) {
            context.add_arch(known)?;
        }
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == default {
            continue;
        }
        for name in rule.names() {
            // A call that this machine's library has not heard of cannot be told apart by it.
            let Ok(call) = ScmpSyscall::from_name(name) else { continue };
            let comparisons: Vec<ScmpArgCompare> = rule.args().iter().flatten().map(comparison).collect();
            let mut indexes: Vec<u32> = rule.args().iter().flatten().map(|arg| arg.index() as u32).collect();
            indexes.sort_unstable();
            indexes.dedup();
            if indexes.len() == comparisons.len() {
                context.add_rule_conditional(action, call, &comparisons)?;
            } else {
                // One rule compares an argument once; several comparisons of one are alternatives, as with runc.
                for comparison in &comparisons {
                    context.add_rule_conditional(action, call, std::slice::from_ref(comparison))?;
                }
            }
        }
    }
    let mut file = tempfile::tempfile()?;
    context.export_bpf(&file)?;
    file.seek(SeekFrom::Start(0))?;
    let mut filter = Vec::new();
    file.read_to_end(&mut filter)?;
    Ok((flags, filter))
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, String> {
    let errno = i32::try_from(errno.unwrap_or(nix::libc::EPERM as u32)).map_err(|_| "error number out of range".to_owned())?;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(u16::try_from(errno).unwrap_or(u16::MAX)),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => return Err("SCMP_ACT_NOTIFY is not supported".to_owned()),
    })
}

fn comparison(arg: &libcontainer::oci_spec::runtime::LinuxSeccompArg) -> ScmpArgCompare {
    // With a mask, OCI's first value is the mask and the second what must remain.
    let (op, datum) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0)),
    };
    ScmpArgCompare::new(arg.index() as u32, op, datum)
}

fn architecture(arch: Arch) -> Option<ScmpArch> {
    Some(match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        // Programs of other machines do not run here.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_compiled_once() {
        let directory = tempfile::tempdir().unwrap();
        let profile = super::super::spec::seccomp::default_profile(&std::collections::BTreeSet::from(["CAP_SYS_CHROOT"]));
        let path = compiled(directory.path(), &profile).unwrap();
        let (flags, filter) = load(&path).unwrap();
        assert_eq!(flags, 0);
        assert!(filter.len() > 100 * 8 && filter.len() % 8 == 0, "{}", filter.len());
        assert_eq!(compiled(directory.path(), &profile).unwrap(), path);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (text, words) in [
            (r#"{"defaultAction":"NONSENSE"}"#, "unknown variant"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY is not supported"),
        ] {
            let err = compiled(directory.path(), &serde_json::from_str(text).unwrap()).unwrap_err();
            assert!(err.starts_with("seccomp profile: ") && err.contains(words), "{err}");
        }
    }
}
