//! A further process in a running container: joins its namespaces, control group and limits. Not libcontainer's way,
//! which leaves out the seccomp filter, and is several times slower; probes run often.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use libcontainer::oci_spec::runtime::{LinuxNamespaceType, Spec};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, fchown};

use super::container::{Container, chain};
use super::inside::{self, Stdio};
use crate::cri::ContainerState;
use crate::embedded::cgroup::Cgroups;
use crate::embedded::protocol::Stream;
use crate::embedded::record::{ContainerPaths, ProcessRecord};

/// Starts `process` in `container`. Returns its pid and the runtime's ends of its streams.
///
/// # Errors
/// In words for the user who ran it.
pub fn start(
    container: &Container,
    paths: &ContainerPaths,
    cgroups: &Cgroups,
    process: ProcessRecord,
    tty: bool,
    stdin: bool,
) -> Result<(i32, Vec<(Stream, OwnedFd)>), String> {
    if container.status.state != ContainerState::Running {
        return Err(format!("container {} is not running", container.record.id));
    }
    let spec = Spec::load(paths.spec()).map_err(|err| chain(&err))?;
    let filter = inside::load_filter(&container.record)?;
    let namespaces = open_namespaces(&spec, container.status.pid).map_err(|err| format!("open namespaces: {err}"))?;
    let system = |err: io::Error| format!("make streams: {err}");
    let mut mine = Vec::new();
    let (stdio, terminal) = if tty {
        let (ours, theirs) = UnixStream::pair().map_err(system)?;
        (Stdio::Terminal(theirs), Some(ours))
    } else {
        let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
        let mut pipe = |stream| -> Result<OwnedFd, String> {
            let (from, to) = io::pipe().map_err(system)?;
            let (ours, theirs): (OwnedFd, OwnedFd) =
                if stream == Stream::Stdin { (to.into(), from.into()) } else { (from.into(), to.into()) };
            fchown(&theirs, Some(uid), Some(gid)).map_err(inside::at("own streams"))?;
            mine.push((stream, ours));
            Ok(theirs)
        };
        let input = if stdin { Some(pipe(Stream::Stdin)?) } else { None };
        (Stdio::Pipes(input, pipe(Stream::Stdout)?, pipe(Stream::Stderr)?), None)
    };
    let cgroup = &container.record.cgroup;
    let enter = || {
        cgroups.join(cgroup, own_pid()).map_err(|err| format!("join cgroup: {err}"))?;
        inside::set_limits(&spec)?;
        namespaces
            .iter()
            .try_for_each(|(flag, file)| setns(file, *flag).map_err(|err| format!("enter namespace {flag:?}: {err}")))
    };
    let pid = inside::spawn(process, enter, |process| {
        inside::connect(process, stdio)?;
        inside::give_up_rights(&spec, filter.as_ref(), process)
    })?;
    if let Some(socket) = terminal {
        match inside::receive_terminal(&socket) {
            Ok(master) => mine.push((Stream::Terminal, master)),
            Err(err) => {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                return Err(format!("receive terminal: {err}"));
            }
        }
    }
    Ok((pid, mine))
}

/// This process, as the node numbers it.
pub fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or_default()
}

/// Kills an exec with everything it started: whoever descends from it or shares its session.
pub fn kill_tree(leader: i32) {
    // Twice: what was forked during the first look is found by the second, and SIGKILL leaves no time for a third.
    for _ in 0..2 {
        for pid in family(leader) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn family(leader: i32) -> Vec<i32> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        // After the name: state, parent, process group, session.
        let mut fields = fields.split_whitespace().skip(1).filter_map(|field| field.parse::<i32>().ok());
        if let (Some(parent), Some(_), Some(session)) = (fields.next(), fields.next(), fields.next()) {
            processes.push((pid, parent, session));
        }
    }
    let mut members = vec![leader];
    loop {
        let known = members.len();
        for &(pid, parent, session) in &processes {
            if !members.contains(&pid) && (session == leader || members.contains(&parent)) {
                members.push(pid);
            }
        }
        if members.len() == known {
            return members;
        }
    }
}

fn open_namespaces(spec: &Spec, pid: i32) -> io::Result<Vec<(CloneFlags, File)>> {
    let own = spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    let has = |kind| own.iter().any(|namespace| namespace.typ() == kind);
    // The mount namespace last: it takes the paths of all others away.
    let kinds = [
        (LinuxNamespaceType::Network, "net", CloneFlags::CLONE_NEWNET),
        (LinuxNamespaceType::Ipc, "ipc", CloneFlags::CLONE_NEWIPC),
        (LinuxNamespaceType::Uts, "uts", CloneFlags::CLONE_NEWUTS),
        (LinuxNamespaceType::Cgroup, "cgroup", CloneFlags::CLONE_NEWCGROUP),
        (LinuxNamespaceType::Pid, "pid", CloneFlags::CLONE_NEWPID),
        (LinuxNamespaceType::Mount, "mnt", CloneFlags::CLONE_NEWNS),
    ];
    let wanted = kinds.into_iter().filter(|(kind, _, _)| has(*kind));
    wanted.map(|(_, name, flag)| Ok((flag, File::open(format!("/proc/{pid}/ns/{name}"))?))).collect()
}
