//! The sandbox itself: namespaces that the shim enters (or, for processes, that a child of it holds), the pod's
//! `/dev/shm`, and kernel parameters.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::embedded::record::{SandboxPaths, SandboxRecord};

/// Size of the pod's `/dev/shm`, as other runtimes have it.
const SHM_SIZE: &std::ffi::CStr = c"67108864";

/// Enters the namespaces of `record`. Returns the process that holds the pod's PID namespace, when there is one.
///
/// # Errors
/// In words that say what was done to what.
pub fn enter(record: &SandboxRecord, paths: &SandboxPaths) -> Result<Option<i32>, String> {
    let shared = record.config.namespaces;
    let mut flags = CloneFlags::empty();
    if !shared.host_network {
        // A pod on the host's network has the host's name too.
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !shared.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags).map_err(|err| format!("unshare {flags:?}: {err}"))?;
    if let Some(netns) = &record.netns {
        bind_netns(netns).map_err(|err| format!("bind network namespace at {}: {err}", netns.display()))?;
    }
    if !shared.host_network && !record.config.hostname.is_empty() {
        fs::write("/proc/sys/kernel/hostname", &record.config.hostname).map_err(|err| format!("set host name: {err}"))?;
    }
    if !shared.host_ipc {
        let options = [(c"size", SHM_SIZE), (c"mode", c"1777")];
        let shm = paths.shm();
        let made = fs::create_dir_all(&shm)
            .and_then(|()| corten_sys::mount::tmpfs(&options))
            .and_then(|tmpfs| corten_sys::mount::attach(tmpfs.as_fd(), &shm));
        made.map_err(|err| format!("mount shm at {}: {err}", shm.display()))?;
        private(&shm).map_err(|err| format!("make {} private: {err}", shm.display()))?;
    }
    set_sysctls(record)?;
    if shared.share_process_namespace && !shared.host_pid {
        return Ok(Some(pid_namespace().map_err(|err| format!("make PID namespace: {err}"))?));
    }
    Ok(None)
}

/// Takes the sandbox's mounts off the node. The namespaces go with their last process.
pub fn leave(record: &SandboxRecord, paths: &SandboxPaths) {
    let _ = umount2(&paths.shm(), MntFlags::MNT_DETACH);
    if let Some(netns) = &record.netns {
        let _ = umount2(netns, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(netns);
    }
}

/// Keeps mounts below `path` from spreading to other mount namespaces.
pub fn private(path: &Path) -> nix::Result<()> {
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
}

fn bind_netns(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, "")?;
    Ok(mount(Some("/proc/self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

fn set_sysctls(record: &SandboxRecord) -> Result<(), String> {
    if !record.config.namespaces.host_network {
        // As containerd does: ports below 1024 and ping need no capability inside a pod.
        for (name, value) in [("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 2147483647")] {
            if !record.config.sysctls.contains_key(&name.replace('/', ".")) {
                // A kernel without the parameter is fine.
                let _ = fs::write(Path::new("/proc/sys").join(name), value);
            }
        }
    }
    for (name, value) in &record.config.sysctls {
        let path = Path::new("/proc/sys").join(file_of_sysctl(name));
        fs::write(&path, value).map_err(|err| format!("set sysctl {name}={value}: {err}"))?;
    }
    Ok(())
}

/// The file of a kernel parameter: dots and slashes both part it, and the one used first is the separator, so that an
/// interface name may hold the other (`net/ipv4/conf/eth0.1/forwarding`).
fn file_of_sysctl(name: &str) -> String {
    let separator = name.find(['.', '/']).map(|at| name.as_bytes()[at]);
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if separator == Some(b'.') { name.chars().map(swapped).collect() } else { name.to_owned() };
    path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/")
}

/// Makes a PID namespace held by a grandchild, so that the shim's own children stay outside until they join. Its only
/// work is to reap what is orphaned to it; its end ends every process inside.
fn pid_namespace() -> io::Result<i32> {
    let (mut reader, mut writer) = io::pipe()?;
    let between = corten_sys::process::fork_child(move || {
        if unshare(CloneFlags::CLONE_NEWPID).is_err() {
            return 1;
        }
        match corten_sys::process::fork_child(|| corten_sys::process::close_from_and_run(3, reap)) {
            Ok(holder) => i32::from(writer.write_all(holder.to_string().as_bytes()).is_err()),
            Err(_) => 1,
        }
    })?;
    // The parent's copy of the writer went with the closure; the end of the pipe is the child's end.
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    waitpid(between, None)?;
    text.parse().map_err(|_| io::Error::other("the holder could not be made"))
}

fn reap() -> i32 {
    let _ = nix::sys::prctl::set_name(c"corten-pause");
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let _ = children.thread_block();
    loop {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        if children.wait().is_err() {
            return 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names() {
        for (name, file) in [
            ("net.core.somaxconn", "net/core/somaxconn"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("../../etc/passwd", ".etc.passwd"),
            ("kernel/../../x", "kernel/x"),
        ] {
            assert_eq!(file_of_sysctl(name), file, "{name}");
        }
    }
}
