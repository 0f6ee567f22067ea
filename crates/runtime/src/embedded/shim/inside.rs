//! The way of a process into a container, shared by its first process and by execs: two forks (the first joins what
//! children inherit, the second is the process), then rights are given up, and the program takes over.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use libcontainer::capabilities;
use libcontainer::oci_spec::runtime::{PosixRlimitType, Spec};
use libcontainer::syscall::syscall::create_syscall;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setgroups, setresgid, setresuid, setsid};

use super::container::chain;
use super::executor::Launcher;
use crate::embedded::filter;
use crate::embedded::record::{ContainerRecord, ProcessRecord};

/// Flags and instructions of a seccomp filter.
pub type Filter = (u32, Vec<u8>);

/// The filter of a container.
pub fn load_filter(record: &ContainerRecord) -> Result<Option<Filter>, String> {
    let load = |path: &std::path::PathBuf| filter::load(path).map_err(|err| format!("read {}: {err}", path.display()));
    record.seccomp.as_ref().map(load).transpose()
}

/// Where the process reads and writes.
pub enum Stdio {
    /// Pipes: input (nothing when `None`), output, errors.
    Pipes(Option<OwnedFd>, OwnedFd, OwnedFd),
    /// A terminal to be made inside, whose master goes to this socket.
    Terminal(UnixStream),
}

/// Starts `process`: `outside` runs in the first fork, `inside` in the second. Returns the pid of the second, a child of
/// this process, once the program runs.
///
/// # Errors
/// In the words of the step that failed.
pub fn spawn(
    process: ProcessRecord,
    outside: impl FnOnce() -> Result<(), String>,
    inside: impl FnOnce(&ProcessRecord) -> Result<(), String>,
) -> Result<i32, String> {
    let system = |err: io::Error| format!("make streams: {err}");
    let (mut failures, errors) = io::pipe().map_err(system)?;
    let (mut pids, mut tell) = io::pipe().map_err(system)?;
    let launcher = Launcher { process: Rc::new(process), errors: Rc::new(errors.into()) };
    let between = corten_sys::process::fork_child(move || {
        // Until it is the program, no other process of the pod may look into it: it holds descriptors of the node.
        let entered = prctl::set_dumpable(false).map_err(|err| format!("hide the process: {err}")).and_then(|()| outside());
        let inner = launcher.clone();
        let forked = entered.and_then(|()| {
            let child = corten_sys::process::fork_child(move || {
                if let Err(failure) = inside(&inner.process) {
                    let _ = nix::unistd::write(&*inner.errors, failure.as_bytes());
                } else {
                    inner.launch();
                }
                126
            });
            child.map_err(|err| format!("fork: {err}"))
        });
        match forked {
            Ok(pid) => i32::from(tell.write_all(pid.to_string().as_bytes()).is_err()),
            Err(failure) => {
                let _ = nix::unistd::write(&*launcher.errors, failure.as_bytes());
                1
            }
        }
    });
    let between = between.map_err(|err| format!("fork: {err}"))?;
    let mut text = String::new();
    pids.read_to_string(&mut text).map_err(system)?;
    let _ = waitpid(between, None);
    // Ends when the program runs, or with the reason why it does not.
    let mut failure = String::new();
    failures.read_to_string(&mut failure).map_err(system)?;
    match text.parse::<i32>() {
        Ok(pid) if failure.is_empty() => Ok(pid),
        // A process that was forked and failed is reaped by the main loop.
        _ if failure.is_empty() => Err("the process did not start".to_owned()),
        _ => Err(failure),
    }
}

/// Limits that are inherited: before the fork into the container, where `/proc` is the node's.
pub fn set_limits(spec: &Spec) -> Result<(), String> {
    let process = spec.process().as_ref();
    if let Some(score) = process.and_then(|process| process.oom_score_adj()) {
        fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|err| format!("set oom_score_adj: {err}"))?;
    }
    for limit in process.and_then(|process| process.rlimits().clone()).unwrap_or_default() {
        if limit.typ() == PosixRlimitType::RlimitNofile {
            setrlimit(Resource::RLIMIT_NOFILE, limit.soft(), limit.hard()).map_err(|err| format!("set limits: {err}"))?;
        }
    }
    Ok(())
}

/// Makes a session and connects the standard streams, inside the container. Returns the terminal's slave.
pub fn connect(process: &ProcessRecord, stdio: Stdio) -> Result<Option<OwnedFd>, String> {
    setsid().map_err(at("make session"))?;
    match stdio {
        Stdio::Terminal(socket) => {
            let (master, slave) = corten_sys::terminal::open().map_err(|err| format!("open terminal: {err}"))?;
            fchown(&slave, Some(Uid::from_raw(process.uid)), None).map_err(at("own terminal"))?;
            corten_sys::terminal::control(slave.as_fd()).map_err(|err| format!("take terminal: {err}"))?;
            corten_sys::fds::send(socket.as_fd(), b"t", &[master.as_fd()]).map_err(|err| format!("pass terminal: {err}"))?;
            let connected = dup2_stdin(&slave).and_then(|()| dup2_stdout(&slave)).and_then(|()| dup2_stderr(&slave));
            connected.map_err(at("connect streams"))?;
            Ok(Some(slave))
        }
        Stdio::Pipes(input, output, errors) => {
            let input = match input {
                Some(input) => input,
                // The container's own, so that no file of the node stays open.
                None => File::open("/dev/null").map_err(|err| format!("open /dev/null: {err}"))?.into(),
            };
            let connected = dup2_stdin(&input).and_then(|()| dup2_stdout(&output)).and_then(|()| dup2_stderr(&errors));
            connected.map_err(at("connect streams"))?;
            Ok(None)
        }
    }
}

/// The last steps: working directory, seccomp, user, capabilities.
pub fn give_up_rights(spec: &Spec, filter: Option<&Filter>, process: &ProcessRecord) -> Result<(), String> {
    // Nothing of the node may reach the program, whatever this process inherited.
    corten_sys::process::close_on_exec_from(3).map_err(|err| format!("close descriptors: {err}"))?;
    let own = spec.process().as_ref().ok_or("the container has no process")?;
    let no_new_privileges = own.no_new_privileges() == Some(true);
    let confine = || match filter {
        Some((flags, filter)) => {
            corten_sys::seccomp::install(filter, *flags).map_err(|err| format!("install seccomp filter: {err}"))
        }
        None => Ok(()),
    };
    // As root first; a directory that only the user may enter (on NFS) is tried again as that user.
    let entered = chdir(process.cwd.as_str());
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
    let entered = entered.or_else(|_| chdir(process.cwd.as_str()));
    entered.map_err(|err| format!("chdir to {:?}: {}", process.cwd, err.desc().to_lowercase()))?;
    if no_new_privileges {
        confine()?;
    }
    Ok(())
}

/// The master of a terminal made inside.
///
/// # Errors
/// When none was passed.
pub fn receive_terminal(socket: &UnixStream) -> io::Result<OwnedFd> {
    let (mut buffer, mut fds) = ([0; 8], Vec::new());
    corten_sys::fds::receive(socket.as_fd(), &mut buffer, &mut fds)?;
    fds.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Words for a refusal.
pub fn at(doing: &'static str) -> impl Fn(nix::Error) -> String {
    move |err| format!("{doing}: {}", err.desc().to_lowercase())
}
