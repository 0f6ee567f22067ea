//! Sandboxes: a shim with namespaces, started, watched and ended.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use corten_sys::process::output;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::{self, Conversation};
use super::record::{self, SandboxPaths, SandboxRecord, ShimRecord, Status};
use super::{Inner, Reply, Request, SandboxEntry, container};
use crate::cri::{ContainerState, DnsConfig, Duplex, RuntimeError, Sandbox, SandboxConfig};
use crate::images::system;

/// A shim that has not come up or gone down by then is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a sandbox.
pub async fn run(inner: &Arc<Inner>, config: &SandboxConfig) -> Result<Sandbox, RuntimeError> {
    let id = super::container::new_id();
    let paths = SandboxPaths::new(&inner.config.state, &id);
    let own_network = !config.namespaces.host_network;
    let cgroup_exists = inner.cgroups.directories(&config.cgroup_parent).iter().all(|(_, directory)| directory.exists());
    let inherits_cgroup = inner
        .sandboxes
        .lock()
        .values()
        .any(|other| other.record.made_cgroup && other.record.config.cgroup_parent == config.cgroup_parent);
    let record = SandboxRecord {
        id: id.clone(),
        config: config.clone(),
        created_at: record::now(),
        netns: own_network.then(|| inner.config.state.join("netns").join(&id)),
        // Of several sandboxes of a pod the last one takes the group along.
        made_cgroup: !cgroup_exists || inherits_cgroup,
        cgroup_root: inner.config.cgroup_root.clone(),
        shim_cgroup: inner.config.shim_cgroup.clone(),
    };
    let (ours, theirs) = UnixStream::pair().map_err(|err| system("make the shim's socket", err))?;
    let mut control = Conversation::over(ours).map_err(|err| system("make the shim's socket", err))?;
    let spawned = super::blocking("start the pod's shim", {
        let (inner, record, paths) = (inner.clone(), record.clone(), paths.clone());
        move || {
            prepare(&inner, &record, &paths)?;
            spawn(&inner, &paths, theirs)
        }
    });
    let ready = async {
        spawned.await?;
        match timeout(PATIENCE, control.next()).await {
            Ok(Ok(Some(Reply::Ready(shim)))) => Ok(shim),
            Ok(Ok(Some(Reply::Failed(why)))) => Err(RuntimeError::Start(format!("sandbox: {why}"))),
            Ok(Ok(_)) => Err(RuntimeError::Start(format!("the shim of sandbox {id} ended: {}", last_words(&paths)))),
            Ok(Err(err)) => Err(system("talk to the pod's shim", err)),
            Err(_) => Err(RuntimeError::Timeout(PATIENCE)),
        }
    };
    let shim = match ready.await {
        Ok(shim) => shim,
        Err(err) => {
            clear(inner, &record, &paths);
            return Err(err);
        }
    };
    let entry = Arc::new(SandboxEntry { record, paths, shim, ready: watch::Sender::new(true) });
    inner.sandboxes.lock().insert(id, entry.clone());
    follow(inner, entry.clone(), control);
    inner.announce(&entry.record.config.uid, "");
    Ok(describe(&entry))
}

/// A sandbox as the seam has it.
pub fn describe(entry: &SandboxEntry) -> Sandbox {
    let config = &entry.record.config;
    Sandbox {
        id: entry.record.id.clone(),
        name: config.name.clone(),
        namespace: config.namespace.clone(),
        uid: config.uid.clone(),
        attempt: config.attempt,
        ready: *entry.ready.borrow(),
        created_at: entry.record.created_at,
        network_namespace: entry.record.netns.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
    }
}

/// Stops a sandbox: its shim kills what runs, and ends.
pub async fn stop(inner: &Arc<Inner>, id: &str) -> Result<(), RuntimeError> {
    let Ok(entry) = inner.sandbox(id) else { return Ok(()) };
    if !*entry.ready.borrow() {
        return Ok(());
    }
    let mut ready = entry.ready.subscribe();
    let asked = client::ask(&entry.paths.directory, &Request::Shutdown).await;
    if asked.is_ok() && timeout(PATIENCE, ready.wait_for(|ready| !ready)).await.is_ok() {
        return Ok(());
    }
    // It does not answer: by force, and its follower clears up.
    kill_shim(&entry.paths);
    match timeout(PATIENCE, ready.wait_for(|ready| !ready)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(RuntimeError::Timeout(PATIENCE)),
    }
}

/// Stops and removes a sandbox with all its containers.
pub async fn remove(inner: &Arc<Inner>, id: &str) -> Result<(), RuntimeError> {
    stop(inner, id).await?;
    let Ok(entry) = inner.sandbox(id) else { return Ok(()) };
    for container in inner.containers_of(id) {
        let id = container.record.lock().id.clone();
        container::remove(inner, &id).await?;
    }
    let cleared = super::blocking("remove the sandbox", {
        let (inner, entry) = (inner.clone(), entry.clone());
        move || {
            clear(&inner, &entry.record, &entry.paths);
            Ok(())
        }
    });
    cleared.await?;
    inner.sandboxes.lock().remove(id);
    inner.announce(&entry.record.config.uid, "");
    Ok(())
}

/// Connects to a port of the sandbox, over a socket made in its namespace: IPv4 first, then IPv6.
pub async fn port_forward(inner: &Arc<Inner>, id: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
    let entry = inner.sandbox(id)?;
    let (_, mut conversation) = client::ask(&entry.paths.directory, &Request::Sockets).await?;
    let addresses = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    let mut last = RuntimeError::Invalid(format!("sandbox {id} has no network"));
    for (fd, address) in conversation.take_fds().into_iter().zip(addresses) {
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
        let target = address.parse().expect("a literal address and a port");
        match socket.connect(target).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(source) => last = system(&format!("connect to {address} in sandbox {id}"), source),
        }
    }
    Err(last)
}

/// Keeps the memory true to what the shim says, until it is gone.
pub fn follow(inner: &Arc<Inner>, entry: Arc<SandboxEntry>, mut conversation: Conversation) {
    // The task must not keep the runtime alive, or hold its memory after it.
    let weak = Arc::downgrade(inner);
    inner.tasks.spawn("shim events", async move {
        loop {
            match conversation.next().await {
                Ok(Some(reply)) => {
                    let Some(inner) = weak.upgrade() else { return };
                    take(&inner, &entry, reply);
                    continue;
                }
                Ok(None) => {}
                Err(err) => tracing::debug!(sandbox = %entry.record.id, %err, "shim's events"),
            }
            // A shim drops a subscriber that lags: it is asked again. Only one that refuses is dead.
            match resubscribe(&entry.paths).await {
                Ok(again) => conversation = again,
                Err(_) => break,
            }
        }
        let Some(inner) = weak.upgrade() else { return };
        let cleared = entry.clone();
        let _ = super::blocking("clear up after a shim", move || {
            lost(&inner, &cleared);
            Ok(())
        })
        .await;
    });
}

async fn resubscribe(paths: &SandboxPaths) -> io::Result<Conversation> {
    let mut conversation = Conversation::open(&paths.directory)?;
    conversation.send(&Request::Subscribe).await?;
    Ok(conversation)
}

/// Takes one reply of a subscription.
pub fn take(inner: &Inner, entry: &SandboxEntry, reply: Reply) {
    let news: Vec<(String, Status)> = match reply {
        Reply::All(all) => all.into_iter().collect(),
        Reply::Changed { container, status } => vec![(container, status)],
        _ => return,
    };
    for (id, status) in news {
        if inner.container(&id).is_ok_and(|container| container.learn(status)) {
            inner.announce(&entry.record.config.uid, &id);
        }
    }
}

/// The shim is gone, by order or by force: nothing of the sandbox may go on without it.
pub fn lost(inner: &Inner, entry: &SandboxEntry) {
    for container in inner.containers_of(&entry.record.id) {
        let record = container.record.lock().clone();
        let paths = entry.paths.container(&record.id);
        // What the shim had time to write is better than what can be guessed.
        let written = record::load::<Status>(&paths.status()).ok().filter(|status| status.state == ContainerState::Exited);
        inner.cgroups.kill_and_wait(&record.cgroup);
        let _ = inner.cgroups.remove(&record.cgroup);
        let status = match (written, container.status.borrow().state) {
            (Some(written), _) => written,
            (None, ContainerState::Running) => Status {
                state: ContainerState::Exited,
                pid: 0,
                finished_at: record::now(),
                exit_code: 137,
                signal: 9,
                reason: "Error".to_owned(),
                message: "the pod's shim ended".to_owned(),
                ..container.status.borrow().clone()
            },
            // Never started, and never will be.
            _ => continue,
        };
        let _ = record::save(&paths.status(), &status);
        if container.learn(status) {
            inner.announce(&entry.record.config.uid, &record.id);
        }
    }
    if let Some(init) = entry.shim.init {
        let known = fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
        if known.trim() == "corten-pause" {
            let _ = kill(Pid::from_raw(init), Signal::SIGKILL);
        }
    }
    unmount(&entry.record, &entry.paths);
    entry.ready.send_replace(false);
    inner.announce(&entry.record.config.uid, "");
}

/// Ends a shim by force, when it is still the process its record names.
pub fn kill_shim(paths: &SandboxPaths) {
    if let Ok(shim) = record::load::<ShimRecord>(&paths.shim())
        && record::process_start(shim.pid) == Some(shim.start_time)
    {
        let _ = kill(Pid::from_raw(shim.pid), Signal::SIGKILL);
    }
}

/// Removes what a dead sandbox left: mounts, namespace, cgroup and files.
pub fn clear(inner: &Inner, record: &SandboxRecord, paths: &SandboxPaths) {
    kill_shim(paths);
    unmount(record, paths);
    let shared = inner
        .sandboxes
        .lock()
        .values()
        .any(|other| other.record.id != record.id && other.record.config.cgroup_parent == record.config.cgroup_parent);
    if record.made_cgroup && !shared {
        // The kubelet may have removed it first, or still use it.
        let _ = inner.cgroups.remove(&record.config.cgroup_parent);
    }
    if let Err(err) = fs::remove_dir_all(&paths.directory)
        && err.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(sandbox = %record.id, %err, "remove the sandbox's directory");
    }
}

fn unmount(record: &SandboxRecord, paths: &SandboxPaths) {
    let _ = umount2(&paths.shm(), MntFlags::MNT_DETACH);
    for container in fs::read_dir(paths.containers()).into_iter().flatten().flatten() {
        let _ = umount2(&container.path().join("rootfs"), MntFlags::MNT_DETACH);
    }
    if let Some(netns) = &record.netns {
        let _ = umount2(netns, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(netns);
    }
}

fn prepare(inner: &Inner, record: &SandboxRecord, paths: &SandboxPaths) -> io::Result<()> {
    fs::create_dir_all(paths.containers())?;
    inner.cgroups.create(&record.config.cgroup_parent)?;
    let config = &record.config;
    match &config.dns {
        Some(dns) => fs::write(paths.etc("resolv.conf"), resolver(dns))?,
        // A node without a resolver makes pods without one.
        None => drop(
            fs::copy("/etc/resolv.conf", paths.etc("resolv.conf"))
                .or_else(|_| fs::write(paths.etc("resolv.conf"), "").map(|()| 0))?,
        ),
    }
    fs::write(paths.etc("hostname"), format!("{}\n", hostname(config)))?;
    fs::write(paths.etc("hosts"), "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")?;
    record::save(&paths.record(), record)
}

/// The host name inside: the node's own on its network.
pub fn hostname(config: &SandboxConfig) -> String {
    if !config.hostname.is_empty() {
        return config.hostname.clone();
    }
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

fn resolver(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

fn spawn(inner: &Inner, paths: &SandboxPaths, control: UnixStream) -> io::Result<()> {
    let (name, args) = inner.config.shim.split_first().ok_or_else(|| io::Error::other("no shim command"))?;
    // The descriptor is closed by `exec` itself, after the path was looked up.
    let mut command = match &inner.program {
        Some(program) => Command::new(format!("/proc/self/fd/{}", program.as_raw_fd())),
        None => Command::new(name),
    };
    let log = fs::OpenOptions::new().create(true).append(true).open(paths.directory.join("shim.log"))?;
    command.arg0(name).args(args).arg(&paths.directory).env_clear();
    let lent = [Some(control.as_raw_fd()), Some(log.as_raw_fd()), inner.program.as_ref().map(AsRawFd::as_raw_fd)];
    command.stdin(OwnedFd::from(control)).stdout(Stdio::null()).stderr(log).current_dir("/");
    let status = output(&mut command, &lent.into_iter().flatten().collect::<Vec<_>>())?.status;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{status}: {}", last_words(paths)))) }
}

fn last_words(paths: &SandboxPaths) -> String {
    let text = fs::read_to_string(paths.directory.join("shim.log")).unwrap_or_default();
    text.lines().last().unwrap_or("it left no message").to_owned()
}

/// Takes a path off the node's mounts, whatever it is.
pub fn detach(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_file() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into(), "::1".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let expected =
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver ::1\noptions ndots:5\n";
        assert_eq!(resolver(&dns), expected);
        assert_eq!(resolver(&DnsConfig::default()), "");
    }
}
