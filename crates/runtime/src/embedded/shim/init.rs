//! The first process of a container: makes its namespaces and root file system. libcontainer prepares the root
//! (mounts, devices, links) and the rights; the order of steps is ours, since libcontainer's own costs a walk over every
//! controller of cgroup version 1 and gives mounts no propagation of their own.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxNamespaceType, Spec};
use libcontainer::rootfs::RootFS;
use libcontainer::syscall::syscall::create_syscall;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statvfs::statvfs;

use super::container::chain;
use super::exec::own_pid;
use super::inside::{self, Stdio, at};
use crate::cri::Propagation;
use crate::embedded::cgroup::Cgroups;
use crate::embedded::record::ContainerRecord;

/// Starts the container's first process. Returns its pid once the program runs.
///
/// # Errors
/// In words for the container's status.
pub fn start(record: &ContainerRecord, spec: &Spec, rootfs: &Path, cgroups: &Cgroups, stdio: Stdio) -> Result<i32, String> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    let filter = inside::load_filter(record)?;
    let outside = || {
        cgroups.join(&record.cgroup, own_pid()).map_err(|err| format!("join cgroup: {err}"))?;
        inside::set_limits(spec)?;
        for namespace in &namespaces {
            match (namespace.path(), namespace.typ()) {
                (Some(path), kind) => {
                    let file = File::open(path).map_err(|err| format!("open {}: {err}", path.display()))?;
                    setns(file, flag(kind)).map_err(|err| format!("enter {}: {err}", path.display()))?;
                }
                // Only children of whoever makes it are in it.
                (None, LinuxNamespaceType::Pid) => unshare(CloneFlags::CLONE_NEWPID).map_err(at("make PID namespace"))?,
                _ => {}
            }
        }
        Ok(())
    };
    let new = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none());
    let own_cgroups = new(LinuxNamespaceType::Cgroup);
    inside::spawn(record.process.clone(), outside, |process| {
        let mut flags = CloneFlags::CLONE_NEWNS;
        flags.set(CloneFlags::CLONE_NEWCGROUP, own_cgroups);
        unshare(flags).map_err(at("make mount namespace"))?;
        make_root(record, spec, rootfs, own_cgroups)?;
        if let Some(slave) = inside::connect(process, stdio)? {
            make_console(slave.as_raw_fd())?;
        }
        protect_root(spec)?;
        inside::give_up_rights(spec, filter.as_ref(), process)
    })
}

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        _ => CloneFlags::empty(),
    }
}

fn make_root(record: &ContainerRecord, spec: &Spec, rootfs: &Path, own_cgroups: bool) -> Result<(), String> {
    RootFS::new().prepare_rootfs(spec, rootfs, false, own_cgroups).map_err(|err| chain(&err))?;
    create_syscall().pivot_rootfs(rootfs).map_err(|err| format!("pivot to the root file system: {}", chain(&err)))?;
    // Mounts came with the widest propagation that one of them wants; here each gets its own. Paths are the container's
    // by now, and lead nowhere else.
    let widest = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().clone());
    if widest.as_deref() != Some("private") {
        for mounted in &record.config.mounts {
            let flags = match mounted.propagation {
                Propagation::Private => MsFlags::MS_PRIVATE,
                Propagation::HostToContainer => MsFlags::MS_SLAVE,
                Propagation::Bidirectional => continue,
            };
            set_flags(&mounted.container_path, flags | MsFlags::MS_REC).map_err(at("set mount propagation"))?;
        }
    }
    Ok(())
}

/// `/dev/console` is the container's terminal.
fn make_console(slave: i32) -> Result<(), String> {
    let flags = nix::libc::O_NOFOLLOW;
    let made = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open("/dev/console");
    made.map_err(|err| format!("make /dev/console: {err}"))?;
    let source = format!("/proc/self/fd/{slave}");
    mount(Some(source.as_str()), "/dev/console", None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at("mount /dev/console"))
}

/// Read-only and masked parts.
fn protect_root(spec: &Spec) -> Result<(), String> {
    if spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
        let now = statvfs("/").map_err(at("read mount flags of /"))?.flags();
        let kept = MsFlags::from_bits_truncate(now.bits());
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept;
        set_flags(Path::new("/"), flags).map_err(at("make / read-only"))?;
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    for path in linux.readonly_paths().iter().flatten() {
        let path = Path::new(path);
        match mount(Some(path), path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>) {
            Err(Errno::ENOENT) => continue,
            result => result.map_err(at("make paths read-only"))?,
        }
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        let kept = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        set_flags(path, flags | kept).map_err(at("make paths read-only"))?;
    }
    for path in linux.masked_paths().iter().flatten() {
        let path = Path::new(path);
        let masked = match fs::metadata(path) {
            Err(_) => continue,
            Ok(meta) if meta.is_dir() => mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k")),
            // Made by libcontainer a moment ago, on a tmpfs that nobody else has seen.
            Ok(_) => mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>),
        };
        masked.map_err(at("mask paths"))?;
    }
    Ok(())
}

fn set_flags(path: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
}
