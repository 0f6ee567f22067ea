//! The shim's loop: children that end, output that comes, requests of the runtime.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use corten_sys::poll::{Watch, wait};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::container::Container;
use super::{exec, namespaces};
use crate::cri::ContainerState;
use crate::embedded::cgroup::Cgroups;
use crate::embedded::protocol::{Reply, Request, Stream, line, take};
use crate::embedded::record::{self, ContainerRecord, SandboxPaths, SandboxRecord, ShimRecord, Status};

/// Longest request, in bytes; a connection that sends more is closed.
const MOST_REQUEST: usize = 4 << 20;

/// Everything the shim has.
pub struct Server {
    record: SandboxRecord,
    paths: SandboxPaths,
    shim: ShimRecord,
    cgroups: Cgroups,
    listener: UnixListener,
    signals: SignalFd,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    containers: BTreeMap<String, Container>,
    /// Containers that failed to start: only their status is left.
    failed: BTreeMap<String, Status>,
    /// Running execs: process to connection.
    execs: BTreeMap<i32, u64>,
    ending: bool,
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    role: Role,
}

#[derive(Clone, PartialEq, Eq)]
enum Role {
    Asking,
    Subscriber,
    Exec(i32),
    Attached(String),
}

/// What a watched descriptor is.
enum Source {
    Signals,
    Listener,
    Connection(u64),
    Container(String),
}

impl Server {
    /// With `control`, the connection to the runtime that started the shim, as the first subscriber.
    ///
    /// # Errors
    /// When there are no control groups, or the sockets refuse.
    pub fn new(
        record: SandboxRecord,
        paths: SandboxPaths,
        shim: ShimRecord,
        listener: UnixListener,
        signals: SignalFd,
        control: UnixStream,
    ) -> io::Result<Self> {
        let cgroups = Cgroups::detect(&record.cgroup_root)?;
        listener.set_nonblocking(true)?;
        control.set_nonblocking(true)?;
        let subscriber = Connection { stream: control, buffer: Vec::new(), role: Role::Subscriber };
        Ok(Self {
            record,
            paths,
            shim,
            cgroups,
            listener,
            signals,
            connections: BTreeMap::from([(0, subscriber)]),
            next: 1,
            containers: BTreeMap::new(),
            failed: BTreeMap::new(),
            execs: BTreeMap::new(),
            ending: false,
        })
    }

    /// Serves until told to end.
    pub fn run(&mut self) -> i32 {
        while !self.ending {
            let (mut watches, sources) = self.watches();
            if let Err(err) = wait(&mut watches) {
                eprintln!("poll: {err}");
                return 1;
            }
            for (watch, source) in watches.iter().zip(sources) {
                match source {
                    Source::Signals if watch.readable() => self.reap(),
                    Source::Listener if watch.readable() => self.accept(),
                    Source::Connection(id) if watch.readable() => self.hear(id),
                    Source::Container(id) if watch.readable() || watch.writable() => {
                        if let Some(container) = self.containers.get_mut(&id) {
                            container.progress();
                            container.close_idle_clients();
                        }
                        self.dismiss(&id);
                    }
                    _ => {}
                }
            }
        }
        self.end();
        0
    }

    fn watches(&self) -> (Vec<Watch>, Vec<Source>) {
        let mut watches = vec![Watch::new(self.signals.as_fd(), true, false), Watch::new(self.listener.as_fd(), true, false)];
        let mut sources = vec![Source::Signals, Source::Listener];
        for (id, connection) in &self.connections {
            watches.push(Watch::new(connection.stream.as_fd(), true, false));
            sources.push(Source::Connection(*id));
        }
        for (id, container) in &self.containers {
            for (_, fd, reading) in container.sources() {
                watches.push(Watch::new(fd.as_fd(), reading, !reading));
                sources.push(Source::Container(id.clone()));
            }
        }
        (watches, sources)
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => status,
            };
            let Some(pid) = status.pid().map(Pid::as_raw) else { continue };
            let running = |container: &&mut Container| container.status.pid == pid;
            if let Some(container) = self.containers.values_mut().find(running) {
                container.finish(status, &self.paths, &self.cgroups);
                container.close_idle_clients();
                let (id, status) = (container.record.id.clone(), container.status.clone());
                self.announce(&id, status);
                self.dismiss(&id);
            } else if let Some(connection) = self.execs.remove(&pid) {
                let code = match status {
                    WaitStatus::Exited(_, code) => code,
                    WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
                    _ => 255,
                };
                self.say(connection, &Reply::Exited(code), Vec::new());
                self.connections.remove(&connection);
            } else if Some(pid) == self.shim.init {
                // The pod's PID namespace is gone, and all its processes with it.
                self.shim.init = None;
            }
        }
    }

    /// Tells attached clients of an ended container its exit code, once they have all its output.
    fn dismiss(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if container.status.state != ContainerState::Exited {
            return;
        }
        let code = container.status.exit_code;
        let attached = |(id_of, connection): (&u64, &Connection)| {
            let waiting = connection.role == Role::Attached(id.to_owned()) && !container.is_sending(*id_of);
            waiting.then_some(*id_of)
        };
        let done: Vec<u64> = self.connections.iter().filter_map(attached).collect();
        for connection in done {
            self.say(connection, &Reply::Exited(code), Vec::new());
            self.connections.remove(&connection);
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.connections.insert(self.next, Connection { stream, buffer: Vec::new(), role: Role::Asking });
                self.next += 1;
            }
        }
    }

    fn hear(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut chunk = [0; 8192];
        let open = loop {
            match connection.stream.read(&mut chunk) {
                Ok(0) => break false,
                Ok(count) => connection.buffer.extend_from_slice(&chunk[..count]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break true,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        let requests: Vec<_> = std::iter::from_fn(|| take::<Request>(&mut connection.buffer)).collect();
        let overfull = connection.buffer.len() > MOST_REQUEST;
        for request in requests {
            match request {
                Ok(request) => self.answer(id, request),
                Err(err) => self.say(id, &Reply::Failed(format!("bad request: {err}")), Vec::new()),
            }
        }
        if !open || overfull {
            self.hang_up(id);
        }
    }

    fn hang_up(&mut self, id: u64) {
        match self.connections.remove(&id).map(|connection| connection.role) {
            // Whoever ran it is gone, and nobody will hear of its end.
            Some(Role::Exec(pid)) => exec::kill_tree(pid),
            Some(Role::Attached(container)) => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.detach(id);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, connection: u64, request: Request) {
        let reply = match request {
            Request::Subscribe => {
                self.set_role(connection, Role::Subscriber);
                let running = self.containers.iter().map(|(id, container)| (id.clone(), container.status.clone()));
                Reply::All(running.chain(self.failed.clone()).collect())
            }
            Request::Start { container } => self.start(&container),
            Request::Signal { container, signal, all } => match self.containers.get(&container) {
                Some(container) => done(container.signal(signal, all, &self.cgroups)),
                None => Reply::Done,
            },
            Request::Exec { container, process, tty, stdin } => {
                let Some(running) = self.containers.get(&container) else {
                    return self.say(connection, &not_running(&container), Vec::new());
                };
                let paths = self.paths.container(&container);
                match exec::start(running, &paths, &self.cgroups, process, tty, stdin) {
                    Ok((pid, streams)) => {
                        self.execs.insert(pid, connection);
                        self.set_role(connection, Role::Exec(pid));
                        let (names, fds): (Vec<Stream>, Vec<OwnedFd>) = streams.into_iter().unzip();
                        return self.say(connection, &Reply::Streams(names), fds);
                    }
                    Err(why) => Reply::Failed(why),
                }
            }
            Request::Attach { container, stdin, stdout, stderr } => {
                let attached = match self.containers.get_mut(&container) {
                    Some(running) => running.attach(connection, stdin, stdout, stderr),
                    None => return self.say(connection, &not_running(&container), Vec::new()),
                };
                match attached {
                    Ok(streams) => {
                        self.set_role(connection, Role::Attached(container));
                        let (names, fds): (Vec<Stream>, Vec<OwnedFd>) = streams.into_iter().unzip();
                        return self.say(connection, &Reply::Streams(names), fds);
                    }
                    Err(why) => Reply::Failed(why),
                }
            }
            Request::ReopenLog { container } => match self.containers.get_mut(&container) {
                Some(container) => done(container.reopen_log()),
                None => not_running(&container),
            },
            Request::Sockets => match sockets() {
                Ok(fds) => return self.say(connection, &Reply::Streams(vec![Stream::Socket; fds.len()]), fds),
                Err(err) => Reply::Failed(format!("make sockets: {err}")),
            },
            Request::Forget { container } => {
                if let Some(gone) = self.containers.remove(&container) {
                    let _ = self.cgroups.remove(&gone.record.cgroup);
                }
                self.failed.remove(&container);
                Reply::Done
            }
            Request::Shutdown => {
                self.ending = true;
                Reply::Done
            }
        };
        self.say(connection, &reply, Vec::new());
    }

    fn start(&mut self, id: &str) -> Reply {
        if self.containers.contains_key(id) || self.failed.contains_key(id) {
            return Reply::Failed(format!("container {id} was started before"));
        }
        let path = self.paths.container(id).record();
        let record: ContainerRecord = match record::load(&path) {
            Ok(record) => record,
            Err(err) => return Reply::Failed(format!("read {}: {err}", path.display())),
        };
        match Container::start(record, &self.paths, &self.cgroups) {
            Ok(container) => {
                container.save(&self.paths);
                let status = container.status.clone();
                self.containers.insert(id.to_owned(), container);
                self.announce(id, status.clone());
                Reply::Changed { container: id.to_owned(), status }
            }
            Err(why) => {
                let message = format!("failed to start: {why}");
                // As containerd reports it: 128, and times that say it never ran.
                let now = record::now();
                let status = Status {
                    state: ContainerState::Exited,
                    exit_code: 128,
                    reason: "StartError".to_owned(),
                    message: message.clone(),
                    finished_at: now,
                    ..Status::default()
                };
                let _ = record::save(&self.paths.container(id).status(), &status);
                self.failed.insert(id.to_owned(), status.clone());
                self.announce(id, status);
                Reply::Failed(message)
            }
        }
    }

    fn announce(&mut self, container: &str, status: Status) {
        let change = Reply::Changed { container: container.to_owned(), status };
        let subscribers: Vec<u64> =
            self.connections.iter().filter(|(_, connection)| connection.role == Role::Subscriber).map(|(id, _)| *id).collect();
        for subscriber in subscribers {
            self.say(subscriber, &change, Vec::new());
        }
    }

    /// Sends a reply. A peer that does not read is dropped: it will ask again.
    fn say(&mut self, id: u64, reply: &Reply, fds: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get(&id) else { return };
        let bytes = line(reply);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        match corten_sys::fds::send(connection.stream.as_fd(), &bytes, &borrowed) {
            Ok(count) if count == bytes.len() => {}
            _ => self.hang_up(id),
        }
    }

    fn set_role(&mut self, id: u64, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = role;
        }
    }

    /// Kills what runs and lets everything of the sandbox go, except its directory.
    pub fn end(&mut self) {
        for container in self.containers.values() {
            if container.status.state == ContainerState::Running {
                let _ = container.signal(Signal::SIGKILL as i32, true, &self.cgroups);
            }
        }
        // Killed processes end at once, and this process is told of each.
        while self.containers.values().any(|container| container.status.state == ContainerState::Running) {
            let mut watches = [Watch::new(self.signals.as_fd(), true, false)];
            if wait(&mut watches).is_err() {
                break;
            }
            self.reap();
        }
        if let Some(init) = self.shim.init.take() {
            let _ = kill(Pid::from_raw(init), Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(init), None);
        }
        for container in mem::take(&mut self.containers).into_values() {
            let _ = self.cgroups.remove(&container.record.cgroup);
        }
        namespaces::leave(&self.record, &self.paths);
    }
}

fn sockets() -> nix::Result<Vec<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let mut made = vec![socket(AddressFamily::Inet, SockType::Stream, flags, None)?];
    // A kernel without IPv6 still forwards IPv4.
    made.extend(socket(AddressFamily::Inet6, SockType::Stream, flags, None).ok());
    Ok(made)
}

fn not_running(container: &str) -> Reply {
    Reply::Failed(format!("container {container} is not running"))
}

fn done(result: Result<(), String>) -> Reply {
    result.map_or_else(Reply::Failed, |()| Reply::Done)
}
