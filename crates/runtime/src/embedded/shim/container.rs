//! One container of the pod, from its start to the record of its end.

use std::collections::VecDeque;
use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use corten_sys::devices::Rule;
use libcontainer::oci_spec::runtime::Spec;
use nix::fcntl::{FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, Pid, Uid, fchown};

use super::init;
use super::inside::{Stdio, receive_terminal};
use super::log::{Framer, Log, timestamp};
use super::namespaces;
use crate::cri::ContainerState;
use crate::embedded::cgroup::Cgroups;
use crate::embedded::protocol::Stream;
use crate::embedded::record::{self, ContainerRecord, SandboxPaths, Status};

/// Output that attached clients have not taken yet, in bytes, above which the container's is not read on.
const MOST_PENDING: usize = 256 << 10;

/// A container that was started here.
pub struct Container {
    pub record: ContainerRecord,
    pub status: Status,
    outputs: Vec<Output>,
    log: Log,
    /// Kept so that an attached client's end is not the end of the container's input.
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    clients: Vec<Client>,
}

struct Output {
    from: OwnedFd,
    stream: Stream,
    framer: Framer,
}

/// An attached client's part of the output.
struct Client {
    connection: u64,
    stream: Stream,
    to: OwnedFd,
    pending: VecDeque<u8>,
}

impl Container {
    /// Makes the control group and root file system, and starts the container. On failure nothing is left.
    ///
    /// # Errors
    /// In the words that users see in the container's status.
    pub fn start(record: ContainerRecord, paths: &SandboxPaths, cgroups: &Cgroups) -> Result<Self, String> {
        let log = Log::open(&record.log).map_err(|err| format!("open log {}: {err}", record.log.display()))?;
        let started = start(&record, paths, cgroups, log);
        // The container has its own copy of the mount by now; none stays on the node.
        let _ = umount2(&paths.container(&record.id).rootfs(), MntFlags::MNT_DETACH);
        if started.is_err() {
            discard(&record, cgroups);
        }
        let mut container = started?;
        container.record = record;
        Ok(container)
    }

    /// What `poll` is to watch: output of the container, unless clients are too far behind, and clients with room.
    pub fn sources(&self) -> impl Iterator<Item = (usize, &OwnedFd, bool)> {
        let behind = self.clients.iter().any(|client| client.pending.len() > MOST_PENDING);
        let outputs = self.outputs.iter().enumerate().filter(move |_| !behind).map(|(at, output)| (at, &output.from, true));
        let count = self.outputs.len();
        let clients = self.clients.iter().enumerate().filter(|(_, client)| !client.pending.is_empty());
        outputs.chain(clients.map(move |(at, client)| (count + at, &client.to, false)))
    }

    /// Something came from or can go to the descriptors of [`Container::sources`].
    pub fn progress(&mut self) {
        self.clients.retain_mut(Client::flush);
        let behind = self.clients.iter().any(|client| client.pending.len() > MOST_PENDING);
        if !behind {
            self.copy(1);
        }
    }

    /// Reads each output up to `rounds` times, to the log and to clients.
    fn copy(&mut self, rounds: usize) {
        let mut buffer = [0; 16 * 1024];
        let mut time = None;
        let mut lines = Vec::new();
        let (clients, log) = (&mut self.clients, &mut self.log);
        self.outputs.retain_mut(|output| {
            for _ in 0..rounds {
                match nix::unistd::read(&output.from, &mut buffer) {
                    Ok(count) if count > 0 => {
                        let time = time.get_or_insert_with(timestamp);
                        output.framer.push(&buffer[..count], time, &mut lines);
                        log.append(&lines);
                        lines.clear();
                        let wanting = clients.iter_mut().filter(|client| client.stream == output.stream);
                        wanting.for_each(|client| client.pending.extend(&buffer[..count]));
                    }
                    Err(nix::Error::EAGAIN | nix::Error::EINTR) => return true,
                    // The end, for a terminal as EIO.
                    _ => {
                        output.framer.finish(&timestamp(), &mut lines);
                        log.append(&lines);
                        lines.clear();
                        return false;
                    }
                }
            }
            true
        });
        clients.retain_mut(Client::flush);
    }

    /// The main process has ended: keeps its last output, its exit and whether memory ran out, and lets everything go.
    pub fn finish(&mut self, wait: WaitStatus, paths: &SandboxPaths, cgroups: &Cgroups) {
        if !self.record.own_pids {
            cgroups.kill_and_wait(&self.record.cgroup);
        }
        // The namespace's other processes died before the first one could be reaped, so all they wrote is here.
        self.copy(usize::MAX);
        let mut lines = Vec::new();
        for mut output in self.outputs.drain(..) {
            output.framer.finish(&timestamp(), &mut lines);
        }
        self.log.append(&lines);
        (self.stdin, self.terminal) = (None, None);
        let (exit_code, signal) = match wait {
            WaitStatus::Exited(_, code) => (code, 0),
            WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, signal as i32),
            _ => (255, 0),
        };
        let reason = match (cgroups.oom_kills(&self.record.cgroup), exit_code) {
            (1.., _) => "OOMKilled",
            (0, 0) => "Completed",
            (0, _) => "Error",
        };
        let status = &mut self.status;
        (status.state, status.pid, status.finished_at) = (ContainerState::Exited, 0, record::now());
        (status.exit_code, status.signal, status.reason) = (exit_code, signal, reason.to_owned());
        self.save(paths);
        discard(&self.record, cgroups);
    }

    /// Writes the status where a later runtime, or this one after the shim's death, finds it.
    pub fn save(&self, paths: &SandboxPaths) {
        let path = paths.container(&self.record.id).status();
        if let Err(err) = record::save(&path, &self.status) {
            eprintln!("write {}: {err}", path.display());
        }
    }

    /// Streams for a new client: `(what, descriptor)` in the order wanted.
    ///
    /// # Errors
    /// When the container has ended or has no such stream.
    pub fn attach(&mut self, connection: u64, stdin: bool, stdout: bool, stderr: bool) -> Result<Vec<(Stream, OwnedFd)>, String> {
        if self.status.state != ContainerState::Running {
            return Err(format!("container {} is not running", self.record.id));
        }
        let system = |err: io::Error| format!("make streams: {err}");
        let mut streams = Vec::new();
        if let Some(terminal) = &self.terminal {
            // Passed even without input: sizes are set through it.
            streams.push((Stream::Terminal, terminal.try_clone().map_err(system)?));
        } else if stdin {
            // With `stdinOnce` the client gets the only copy, so that its end is the end of the container's input.
            let input =
                if self.record.config.stdin_once { self.stdin.take() } else { copy_of(self.stdin.as_ref()).map_err(system)? };
            streams.extend(input.map(|input| (Stream::Stdin, input)));
        }
        let terminal = self.terminal.is_some();
        for (stream, wanted) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr && !terminal)] {
            if wanted {
                let (from, to) = io::pipe().map_err(system)?;
                let to = OwnedFd::from(to);
                nonblocking(&to).map_err(|err| format!("make streams: {err}"))?;
                self.clients.push(Client { connection, stream, to, pending: VecDeque::new() });
                streams.push((stream, from.into()));
            }
        }
        Ok(streams)
    }

    /// A client is gone.
    pub fn detach(&mut self, connection: u64) {
        self.clients.retain(|client| client.connection != connection);
    }

    /// Whether `connection` still has output to take.
    pub fn is_sending(&self, connection: u64) -> bool {
        self.clients.iter().any(|client| client.connection == connection && !client.pending.is_empty())
    }

    /// Lets a client's streams end once they are empty.
    pub fn close_idle_clients(&mut self) {
        if self.status.state == ContainerState::Exited {
            self.clients.retain(|client| !client.pending.is_empty());
        }
    }

    /// Opens the log file again.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reopen_log(&mut self) -> Result<(), String> {
        self.log.reopen().map_err(|err| format!("open log {}: {err}", self.record.log.display()))
    }

    /// Sends a signal to the main process, or kills all.
    ///
    /// # Errors
    /// When the signal number is unknown or the system refuses.
    pub fn signal(&self, signal: i32, all: bool, cgroups: &Cgroups) -> Result<(), String> {
        if self.status.state != ContainerState::Running {
            return Ok(());
        }
        if all {
            cgroups.kill(&self.record.cgroup);
        }
        let pid = Pid::from_raw(self.status.pid);
        let sent = if signal > 31 {
            corten_sys::process::kill_raw(self.status.pid, signal).map_err(|err| err.to_string())
        } else {
            Signal::try_from(signal).and_then(|signal| kill(pid, signal)).map_err(|err| err.to_string())
        };
        sent.map_err(|err| format!("send signal {signal} to {pid}: {err}"))
    }
}

impl Client {
    /// Sends what the client can take. False when it is gone.
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match nix::unistd::write(&self.to, front) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(nix::Error::EAGAIN) => return true,
                Err(nix::Error::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

fn start(record: &ContainerRecord, paths: &SandboxPaths, cgroups: &Cgroups, log: Log) -> Result<Container, String> {
    let at = paths.container(&record.id);
    let config = &record.config;
    cgroups
        .create(&record.cgroup)
        .and_then(|()| cgroups.apply(&record.cgroup, &config.resources))
        .and_then(|()| match config.security.privileged {
            true => Ok(()),
            false => cgroups.restrict_devices(&record.cgroup, &device_rules(record)),
        })
        .map_err(|err| format!("set up cgroup {}: {err}", record.cgroup))?;
    mount_root(record, &at.rootfs()).map_err(|err| format!("mount root file system: {err}"))?;
    make_working_directory(record, &at.rootfs())?;

    let spec = Spec::load(at.spec()).map_err(|err| chain(&err))?;
    let system = |err: io::Error| format!("make streams: {err}");
    let (mut outputs, mut stdin, mut terminal) = (Vec::new(), None, None);
    let pid = if config.tty {
        let (ours, theirs) = UnixStream::pair().map_err(system)?;
        let pid = init::start(record, &spec, &at.rootfs(), cgroups, Stdio::Terminal(theirs))?;
        let master = receive_terminal(&ours).map_err(|err| format!("receive terminal: {err}"))?;
        nonblocking(&master).map_err(|err| format!("receive terminal: {err}"))?;
        let from = master.try_clone().map_err(system)?;
        outputs.push(Output { from, stream: Stream::Stdout, framer: Framer::new("stdout") });
        terminal = Some(master);
        pid
    } else {
        let input = if config.stdin {
            let (from, to) = io::pipe().map_err(system)?;
            own(&from, record)?;
            stdin = Some(OwnedFd::from(to));
            Some(OwnedFd::from(from))
        } else {
            None
        };
        let mut output = |stream, name| -> Result<OwnedFd, String> {
            let (from, to) = io::pipe().map_err(system)?;
            // A program that is not root may open /dev/stdout anew.
            own(&to, record)?;
            let from = OwnedFd::from(from);
            nonblocking(&from).map_err(|err| format!("make streams: {err}"))?;
            outputs.push(Output { from, stream, framer: Framer::new(name) });
            Ok(to.into())
        };
        let (out, err) = (output(Stream::Stdout, "stdout")?, output(Stream::Stderr, "stderr")?);
        init::start(record, &spec, &at.rootfs(), cgroups, Stdio::Pipes(input, out, err))?
    };
    let status = Status { state: ContainerState::Running, pid, started_at: record::now(), ..Status::default() };
    Ok(Container { record: record.clone(), status, outputs, log, stdin, terminal, clients: Vec::new() })
}

fn mount_root(record: &ContainerRecord, rootfs: &Path) -> io::Result<()> {
    let (upper, work) = (record.writable.join("upper"), record.writable.join("work"));
    for directory in [rootfs, &upper, &work] {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let lower: Vec<&Path> = record.layers.iter().map(PathBuf::as_path).collect();
    // `volatile`: the writable layer is thrown away with the container, so syncing it to disk serves nobody.
    let overlay = corten_sys::mount::overlay(&lower, Some((&upper, &work)), &[c"volatile"])
        .or_else(|_| corten_sys::mount::overlay(&lower, Some((&upper, &work)), &[]))?;
    corten_sys::mount::attach(overlay.as_fd(), rootfs)?;
    Ok(namespaces::private(rootfs)?)
}

/// Makes the working directory when the image or volume lacks it, as runc does. Paths are resolved inside their root:
/// links in an image lead nowhere else.
fn make_working_directory(record: &ContainerRecord, rootfs: &Path) -> Result<(), String> {
    let cwd = Path::new(&record.process.cwd);
    let below = |mount: &&crate::cri::Mount| cwd.starts_with(&mount.container_path) && mount.host_path.is_dir();
    let deepest = record.config.mounts.iter().filter(below).max_by_key(|mount| mount.container_path.components().count());
    let (root, rest) = match deepest {
        Some(mount) if mount.readonly => return Ok(()),
        Some(mount) => (mount.host_path.as_path(), cwd.strip_prefix(&mount.container_path).unwrap_or(cwd)),
        None => (rootfs, cwd),
    };
    make_inside(root, rest).map_err(|err| format!("mkdir {}: {}", cwd.display(), err.desc().to_lowercase()))
}

/// Makes `path` and its parents below `root`, which nothing on the way can leave.
fn make_inside(root: &Path, path: &Path) -> nix::Result<()> {
    let root = fs::File::open(root).map_err(|err| nix::Error::from_raw(err.raw_os_error().unwrap_or(5)))?;
    let how = OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let mut parent = root.as_fd().try_clone_to_owned().map_err(|_| nix::Error::EMFILE)?;
    let mut so_far = PathBuf::from(".");
    for part in path.components() {
        let std::path::Component::Normal(part) = part else { continue };
        so_far.push(part);
        let next = match openat2(&root, &so_far, how) {
            Err(nix::Error::ENOENT) => {
                mkdirat(&parent, part, Mode::from_bits_truncate(0o755))?;
                openat2(&root, &so_far, how)?
            }
            other => other?,
        };
        parent = next;
    }
    Ok(())
}

/// What every container may do with devices, and what this one may besides.
fn device_rules(record: &ContainerRecord) -> Vec<Rule> {
    let node = |block| Rule { block, major: None, minor: None, read: false, write: false, mknod: true };
    let common = |major, minor| Rule { block: false, major: Some(major), minor, read: true, write: true, mknod: true };
    // Any node may be made, but only null, zero, full, random, urandom, tty, console, ptmx and terminals be used.
    let mut rules = vec![node(false), node(true)];
    rules.extend([3, 5, 7, 8, 9].map(|minor| common(1, Some(minor))));
    rules.extend([0, 1, 2].map(|minor| common(5, Some(minor))));
    rules.push(common(136, None));
    rules.extend(record.devices.iter().map(|device| Rule {
        block: device.block,
        major: Some(device.major),
        minor: Some(device.minor),
        read: device.access.contains('r'),
        write: device.access.contains('w'),
        mknod: device.access.contains('m'),
    }));
    rules
}

/// Lets go of what a container held besides its writable layer and records.
pub fn discard(record: &ContainerRecord, cgroups: &Cgroups) {
    cgroups.kill_and_wait(&record.cgroup);
    // Removal of the container tries again.
    let _ = cgroups.remove(&record.cgroup);
}

fn own(fd: impl AsFd, record: &ContainerRecord) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(record.process.uid), Gid::from_raw(record.process.gid));
    fchown(fd, Some(uid), Some(gid)).map_err(|err| format!("own streams: {err}"))
}

pub fn nonblocking(fd: impl AsFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

fn copy_of(fd: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    fd.map(OwnedFd::try_clone).transpose()
}

/// An error and its causes, each once.
pub fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let words = err.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = err.source();
    }
    text
}
