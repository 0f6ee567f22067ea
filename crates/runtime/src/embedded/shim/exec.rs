//! A further process in a running container: joins its namespaces, control group and limits, then becomes the program.
//! Not libcontainer's way, which leaves out the seccomp filter, and is several times slower; probes run often.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use libcontainer::capabilities;
use libcontainer::oci_spec::runtime::{LinuxNamespaceType, Spec};
use libcontainer::syscall::syscall::create_syscall;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setgroups, setresgid, setresuid, setsid};

use super::container::{Container, chain};
use super::executor::Launcher;
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
    let namespaces = open_namespaces(&spec, container.status.pid).map_err(|err| format!("open namespaces: {err}"))?;
    let system = |err: io::Error| format!("make streams: {err}");
    let (mut failures, errors) = io::pipe().map_err(system)?;
    let (mut pids, mut tell) = io::pipe().map_err(system)?;
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    let terminal = if tty { Some(UnixStream::pair().map_err(system)?) } else { None };
    if !tty {
        let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
        if stdin {
            let (from, to) = io::pipe().map_err(system)?;
            mine.push((Stream::Stdin, OwnedFd::from(to)));
            theirs.push(OwnedFd::from(from));
        } else {
            theirs.push(File::open("/dev/null").map_err(system)?.into());
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (from, to) = io::pipe().map_err(system)?;
            mine.push((stream, OwnedFd::from(from)));
            theirs.push(OwnedFd::from(to));
        }
        for fd in theirs.iter().skip(usize::from(!stdin)) {
            fchown(fd, Some(uid), Some(gid)).map_err(|err| format!("own streams: {err}"))?;
        }
    }
    let (my_terminal, their_terminal) = terminal.unzip();
    let launcher = Launcher { process: Rc::new(process), errors: Rc::new(errors.into()) };
    let cgroup = container.record.cgroup.clone();

    let between = corten_sys::process::fork_child(move || {
        let entered = enter(&spec, &namespaces, cgroups, &cgroup);
        let inside = entered.and_then(|()| {
            let inner = launcher.clone();
            let forked = corten_sys::process::fork_child(move || {
                let failure = match prepare(&spec, &inner.process, &theirs, their_terminal.as_ref()) {
                    Ok(()) => {
                        inner.launch();
                        return 126;
                    }
                    Err(failure) => failure,
                };
                let _ = nix::unistd::write(&*inner.errors, failure.as_bytes());
                126
            });
            forked.map_err(|err| format!("fork: {err}"))
        });
        match inside {
            Ok(pid) => i32::from(tell.write_all(pid.to_string().as_bytes()).is_err()),
            Err(failure) => {
                let _ = nix::unistd::write(&*launcher.errors, failure.as_bytes());
                1
            }
        }
    })
    .map_err(|err| format!("fork: {err}"))?;

    let mut text = String::new();
    pids.read_to_string(&mut text).map_err(system)?;
    let _ = waitpid(between, None);
    let pid = text.parse::<i32>().ok();
    let mut failure = String::new();
    failures.read_to_string(&mut failure).map_err(system)?;
    match pid {
        Some(pid) if failure.is_empty() => {
            if let Some(socket) = my_terminal {
                match receive(&socket) {
                    Ok(master) => mine.push((Stream::Terminal, master)),
                    Err(err) => {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                        return Err(format!("receive terminal: {err}"));
                    }
                }
            }
            Ok((pid, mine))
        }
        // The orphaned process is reaped by the main loop.
        _ if failure.is_empty() => Err("the process did not start".to_owned()),
        _ => Err(failure),
    }
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

/// Everything that is inherited through the fork into the container.
fn enter(spec: &Spec, namespaces: &[(CloneFlags, File)], cgroups: &Cgroups, cgroup: &str) -> Result<(), String> {
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    cgroups.join(cgroup, pid).map_err(|err| format!("join cgroup: {err}"))?;
    let process = spec.process().as_ref();
    if let Some(score) = process.and_then(|process| process.oom_score_adj()) {
        fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|err| format!("set oom_score_adj: {err}"))?;
    }
    for limit in process.and_then(|process| process.rlimits().clone()).unwrap_or_default() {
        if limit.typ() == libcontainer::oci_spec::runtime::PosixRlimitType::RlimitNofile {
            setrlimit(Resource::RLIMIT_NOFILE, limit.soft(), limit.hard()).map_err(|err| format!("set limits: {err}"))?;
        }
    }
    for (flag, file) in namespaces {
        setns(file, *flag).map_err(|err| format!("enter namespace {flag:?}: {err}"))?;
    }
    Ok(())
}

/// Everything else, inside.
fn prepare(spec: &Spec, process: &ProcessRecord, stdio: &[OwnedFd], terminal: Option<&UnixStream>) -> Result<(), String> {
    let at = |doing: &'static str| move |err: nix::Error| format!("{doing}: {}", err.desc().to_lowercase());
    setsid().map_err(at("make session"))?;
    if let Some(socket) = terminal {
        let (master, slave) = corten_sys::terminal::open().map_err(|err| format!("open terminal: {err}"))?;
        fchown(&slave, Some(Uid::from_raw(process.uid)), None).map_err(at("own terminal"))?;
        corten_sys::terminal::control(slave.as_fd()).map_err(|err| format!("take terminal: {err}"))?;
        corten_sys::fds::send(socket.as_fd(), b"t", &[master.as_fd()]).map_err(|err| format!("pass terminal: {err}"))?;
        dup2_stdin(&slave)
            .and_then(|()| dup2_stdout(&slave))
            .and_then(|()| dup2_stderr(&slave))
            .map_err(at("connect streams"))?;
    } else if let [input, output, error] = stdio {
        dup2_stdin(input).and_then(|()| dup2_stdout(output)).and_then(|()| dup2_stderr(error)).map_err(at("connect streams"))?;
    }
    // Nothing of the host may reach the program, whatever this process inherited.
    corten_sys::process::close_on_exec_from(3).map_err(|err| format!("close descriptors: {err}"))?;
    chdir(process.cwd.as_str()).map_err(|err| format!("chdir to {:?}: {}", process.cwd, err.desc().to_lowercase()))?;

    let own = spec.process().as_ref().ok_or("the container has no process")?;
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let no_new_privileges = own.no_new_privileges() == Some(true);
    let confine = || match &seccomp {
        Some(profile) => libcontainer::seccomp::initialize_seccomp(profile).map(drop).map_err(|err| chain(&err)),
        None => Ok(()),
    };
    if no_new_privileges {
        prctl::set_no_new_privs().map_err(at("set no_new_privs"))?;
    } else {
        // Without no_new_privs only a privileged process may install a filter.
        confine()?;
    }
    let groups: Vec<Gid> = process.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    setgroups(&groups).map_err(at("set groups"))?;
    prctl::set_keepcaps(true).map_err(at("keep capabilities"))?;
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    setresgid(gid, gid, gid).map_err(at("set group"))?;
    setresuid(uid, uid, uid).map_err(at("set user"))?;
    prctl::set_keepcaps(false).map_err(at("keep capabilities"))?;
    let syscall = create_syscall();
    capabilities::reset_effective(syscall.as_ref()).map_err(|err| chain(&err))?;
    if let Some(allowed) = own.capabilities() {
        capabilities::drop_privileges(allowed, syscall.as_ref()).map_err(|err| chain(&err))?;
    }
    if no_new_privileges {
        confine()?;
    }
    Ok(())
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let (mut buffer, mut fds) = ([0; 8], Vec::new());
    corten_sys::fds::receive(socket.as_fd(), &mut buffer, &mut fds)?;
    fds.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
