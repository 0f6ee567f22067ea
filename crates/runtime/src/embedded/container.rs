//! Containers: prepared here, run by their pod's shim.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{major, minor};
use tokio::time::timeout;

use super::client;
use super::filter;
use super::record::{self, ContainerRecord, DeviceNode, ProcessRecord, Status};
use super::spec::{self, Facts};
use super::{ContainerEntry, Inner, Reply, Request, SandboxEntry, Stream, sandbox, streams};
use crate::cri::{
    AttachRequest, Container, ContainerConfig, ContainerState, ContainerStats, Device, ExecRequest, FsUsage, Process, Resources,
    RuntimeError, SeccompProfile,
};
use crate::images::system;
use crate::images::users::Users;

/// How long the end of a killed container is awaited: a process in an uninterruptible call ends only after it.
const AFTER_KILL: Duration = Duration::from_secs(120);
/// How long a measurement of a writable layer is good: walking it is work.
const MEASURED: Duration = Duration::from_secs(10);

/// 64 random hex digits.
pub fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Prepares a container.
pub async fn create(inner: &Arc<Inner>, sandbox: &str, config: &ContainerConfig) -> Result<String, RuntimeError> {
    let sandbox = inner.sandbox(sandbox)?;
    if !*sandbox.ready.borrow() {
        return Err(RuntimeError::Invalid(format!("sandbox {} is not running", sandbox.record.id)));
    }
    let image = inner.images.find(&config.image);
    let image = image.ok_or_else(|| RuntimeError::NotFound { what: "image", id: config.image.clone() })?;
    let layers = inner.images.layer_paths(&image);
    let users = users_of(inner, &image.id, &layers).await?;
    let hostname = sandbox::hostname(&sandbox.record.config);
    let process = spec::process(config, &image.config.config, &users, &hostname).map_err(RuntimeError::Start)?;
    let target = match &config.security.target_container {
        Some(id) => Some(inner.container(id)?.status.borrow().pid),
        None => None,
    };
    let id = new_id();
    let shared = sandbox.record.config.namespaces;
    let own_pids = !shared.host_pid && sandbox.shim.init.is_none() && target.is_none();
    let stop_signal = config.stop_signal.clone().filter(|signal| !signal.is_empty());
    let default_signal = || match image.config.config.stop_signal.as_str() {
        "" => "SIGTERM".to_owned(),
        signal => signal.to_owned(),
    };
    let log = match config.log_path.as_os_str().is_empty() || sandbox.record.config.log_directory.as_os_str().is_empty() {
        true => PathBuf::new(),
        false => sandbox.record.config.log_directory.join(&config.log_path),
    };
    let mut record = ContainerRecord {
        id: id.clone(),
        sandbox: sandbox.record.id.clone(),
        config: config.clone(),
        image_id: image.id.clone(),
        image_ref: image.reference(),
        created_at: record::now(),
        layers,
        writable: inner.config.root.join("containers").join(&id),
        process,
        cgroup: format!("{}/{id}", sandbox.record.config.cgroup_parent.trim_end_matches('/')),
        log,
        stop_signal: stop_signal.unwrap_or_else(default_signal),
        seccomp: None,
        devices: Vec::new(),
        own_pids,
    };
    record = super::blocking("prepare the container", {
        let (inner, sandbox) = (inner.clone(), sandbox.clone());
        move || {
            record.devices = devices(&record.config)?;
            record.seccomp = seccomp(&inner, &record.config)?;
            write(&inner, &sandbox, &record, target)?;
            Ok(record)
        }
    })
    .await?;
    inner.containers.lock().insert(id.clone(), Arc::new(ContainerEntry::new(record, Status::default())));
    inner.announce(&sandbox.record.config.uid, &id);
    Ok(id)
}

async fn users_of(inner: &Arc<Inner>, image: &str, layers: &[PathBuf]) -> Result<Arc<Users>, RuntimeError> {
    if let Some(known) = inner.users.lock().get(image) {
        return Ok(known.clone());
    }
    let layers = layers.to_vec();
    let users = Arc::new(super::blocking("read the image's users", move || Users::of_layers(&layers)).await?);
    inner.users.lock().insert(image.to_owned(), users.clone());
    Ok(users)
}

/// Writes the container's directory: specification first, record last, since a directory without one is half made.
fn write(inner: &Inner, sandbox: &SandboxEntry, record: &ContainerRecord, target: Option<i32>) -> io::Result<()> {
    let paths = sandbox.paths.container(&record.id);
    fs::create_dir_all(&paths.directory)?;
    if let Some(directory) = record.log.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let shared = sandbox.record.config.namespaces;
    let shim = sandbox.shim.pid;
    let mut join = Vec::new();
    if !shared.host_network {
        join.push(("network", format!("/proc/{shim}/ns/net")));
        join.push(("uts", format!("/proc/{shim}/ns/uts")));
    }
    if !shared.host_ipc {
        join.push(("ipc", format!("/proc/{shim}/ns/ipc")));
    }
    match (target, sandbox.shim.init) {
        (Some(0), _) => return Err(io::Error::other("the target container is not running")),
        (Some(pid), _) => join.push(("pid", format!("/proc/{pid}/ns/pid"))),
        (None, Some(init)) if !shared.host_pid => join.push(("pid", format!("/proc/{init}/ns/pid"))),
        _ => {}
    }
    let capabilities = spec::capabilities::available(&fs::read_to_string("/proc/self/status")?);
    let own_score = fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse().unwrap_or(0);
    let facts = Facts {
        rootfs: paths.rootfs(),
        cgroup: record.cgroup.clone(),
        cgroup_directories: if inner.cgroups.unified() { Vec::new() } else { inner.cgroups.directories(&record.cgroup) },
        join,
        own_pids: record.own_pids,
        shm: if shared.host_ipc { PathBuf::from("/dev/shm") } else { sandbox.paths.shm() },
        etc: ["resolv.conf", "hostname", "hosts"].map(|name| (name, sandbox.paths.etc(name))).to_vec(),
        devices: record.devices.clone(),
        open_files: open_files(),
        // Only with CAP_SYS_RESOURCE may the score go below what it is.
        lowest_oom_score: if capabilities.contains("CAP_SYS_RESOURCE") { -1000 } else { own_score },
        capabilities,
    };
    fs::write(paths.spec(), serde_json::to_vec(&spec::build(&record.config, &record.process, &facts))?)?;
    record::save(&paths.record(), record)
}

/// The container's seccomp profile, compiled.
fn seccomp(inner: &Inner, config: &ContainerConfig) -> io::Result<Option<PathBuf>> {
    let local = match &config.security.seccomp {
        SeccompProfile::Localhost(path) => {
            let named = |err: &dyn std::fmt::Display| io::Error::other(format!("seccomp profile {}: {err}", path.display()));
            let text = fs::read(path).map_err(|err| named(&err))?;
            Some(serde_json::from_slice(&text).map_err(|err| named(&err))?)
        }
        _ => None,
    };
    let available = spec::capabilities::available(&fs::read_to_string("/proc/self/status")?);
    match spec::profile(config, local, &available) {
        Some(profile) => filter::compiled(&inner.config.state.join("seccomp"), &profile).map(Some).map_err(io::Error::other),
        None => Ok(None),
    }
}

/// What containers get as their limit of open files: the usual 1048576, or as many as this process may grant.
fn open_files() -> u64 {
    const USUAL: u64 = 1_048_576;
    static GRANTED: OnceLock<u64> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        // Shims inherit what this process may raise for itself.
        match hard < USUAL && setrlimit(Resource::RLIMIT_NOFILE, soft, USUAL).is_ok() {
            true => USUAL,
            false => hard.min(USUAL),
        }
    })
}

/// Device nodes of a container: all of the node's for a privileged one, otherwise those asked for.
fn devices(config: &ContainerConfig) -> io::Result<Vec<DeviceNode>> {
    let mut found = Vec::new();
    if config.security.privileged {
        // What every container gets anew is left out.
        let own = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
        for entry in fs::read_dir("/dev")?.flatten() {
            if own.iter().all(|name| entry.file_name() != *name) {
                collect(&entry.path(), &entry.path(), "rwm", &mut found);
            }
        }
        return Ok(found);
    }
    for Device { host_path, container_path, permissions } in &config.devices {
        let real = fs::canonicalize(host_path)
            .map_err(|err| io::Error::new(err.kind(), format!("device {}: {err}", host_path.display())))?;
        let access = if permissions.is_empty() { "rwm" } else { permissions };
        collect(&real, container_path, access, &mut found);
    }
    Ok(found)
}

fn collect(host: &Path, container: &Path, access: &str, found: &mut Vec<DeviceNode>) {
    let Ok(meta) = fs::symlink_metadata(host) else { return };
    let kind = meta.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(host).into_iter().flatten().flatten() {
            collect(&entry.path(), &container.join(entry.file_name()), access, found);
        }
    } else if kind.is_char_device() || kind.is_block_device() {
        let number = |part: u64| u32::try_from(part).unwrap_or_default();
        found.push(DeviceNode {
            path: container.to_owned(),
            block: kind.is_block_device(),
            major: number(major(meta.rdev())),
            minor: number(minor(meta.rdev())),
            access: access.to_owned(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
        });
    }
}

/// Starts a created container.
pub async fn start(inner: &Arc<Inner>, id: &str) -> Result<(), RuntimeError> {
    let (entry, directory) = inner.shim_of(id)?;
    let state = entry.status.borrow().state;
    if state != ContainerState::Created {
        return Err(RuntimeError::Invalid(format!("container {id} is in state {state:?}, expected Created")));
    }
    let asked = client::ask(&directory, &Request::Start { container: id.to_owned() }).await;
    let uid = || inner.sandbox(&entry.record.lock().sandbox).map(|sandbox| sandbox.record.config.uid.clone()).unwrap_or_default();
    let news = match &asked {
        Ok((Reply::Changed { status, .. }, _)) => Some(status.clone()),
        // The reason is on disk: the caller sees it in the status at once, not when the event arrives.
        Err(RuntimeError::Start(_)) => record::load(&directory.join("containers").join(id).join("status.json")).ok(),
        _ => None,
    };
    if news.is_some_and(|news| entry.learn(news)) {
        inner.announce(&uid(), id);
    }
    asked.map(drop)
}

/// Stops a container: its stop signal, then SIGKILL.
pub async fn stop(inner: &Arc<Inner>, id: &str, grace: Duration) -> Result<(), RuntimeError> {
    let Ok((entry, directory)) = inner.shim_of(id) else { return Ok(()) };
    let mut status = entry.status.subscribe();
    if status.borrow().state != ContainerState::Running {
        return Ok(());
    }
    let signal = signal_number(&entry.record.lock().stop_signal);
    if !grace.is_zero() {
        client::ask(&directory, &Request::Signal { container: id.to_owned(), signal, all: false }).await?;
        if timeout(grace, status.wait_for(exited)).await.is_ok() {
            return Ok(());
        }
    }
    let kill = Request::Signal { container: id.to_owned(), signal: Signal::SIGKILL as i32, all: true };
    client::ask(&directory, &kill).await?;
    match timeout(AFTER_KILL, status.wait_for(exited)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(RuntimeError::Timeout(AFTER_KILL)),
    }
}

fn exited(status: &Status) -> bool {
    status.state == ContainerState::Exited
}

/// A signal's number from its name or number; SIGTERM for what is neither.
fn signal_number(name: &str) -> i32 {
    let upper = name.trim().to_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return if (1..=64).contains(&number) { number } else { Signal::SIGTERM as i32 };
    }
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let real_time = |base: i32, sign: i32, rest: &str| match rest {
        "" => Some(base),
        rest => rest[1..].parse::<i32>().ok().map(|offset| base + sign * offset),
    };
    if let Some(rest) = full.strip_prefix("SIGRTMIN") {
        return real_time(34, 1, rest).filter(|number| (34..=64).contains(number)).unwrap_or(Signal::SIGTERM as i32);
    }
    if let Some(rest) = full.strip_prefix("SIGRTMAX") {
        return real_time(64, -1, rest).filter(|number| (34..=64).contains(number)).unwrap_or(Signal::SIGTERM as i32);
    }
    Signal::from_str(&full).unwrap_or(Signal::SIGTERM) as i32
}

/// Removes a container and its writable layer.
pub async fn remove(inner: &Arc<Inner>, id: &str) -> Result<(), RuntimeError> {
    let Ok((entry, directory)) = inner.shim_of(id) else { return Ok(()) };
    stop(inner, id, Duration::ZERO).await?;
    // A sandbox that is stopped has no shim to tell.
    let _ = client::ask(&directory, &Request::Forget { container: id.to_owned() }).await;
    let record = entry.record.lock().clone();
    super::blocking("remove the container", {
        let (inner, directory) = (inner.clone(), directory.join("containers").join(id));
        move || {
            sandbox::detach(&directory.join("rootfs"));
            inner.cgroups.kill_and_wait(&record.cgroup);
            inner.cgroups.remove(&record.cgroup)?;
            remove_tree(&record.writable)?;
            remove_tree(&directory)
        }
    })
    .await?;
    inner.containers.lock().remove(id);
    let uid = inner.sandbox(&entry.record.lock().sandbox).map(|sandbox| sandbox.record.config.uid.clone());
    inner.announce(&uid.unwrap_or_default(), id);
    Ok(())
}

pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// A container as the seam has it.
pub fn describe(entry: &ContainerEntry) -> Container {
    let (record, status) = (entry.record.lock(), entry.status.borrow());
    let process = &record.process;
    let groups = process.groups.iter().map(|&gid| i64::from(gid)).collect();
    Container {
        id: record.id.clone(),
        sandbox: record.sandbox.clone(),
        name: record.config.name.clone(),
        attempt: record.config.attempt,
        image: record.config.image.clone(),
        image_id: record.image_id.clone(),
        image_ref: record.image_ref.clone(),
        state: status.state,
        created_at: record.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        signal: status.signal,
        pid: u32::try_from(status.pid).unwrap_or_default(),
        log_path: record.log.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        resources: record.config.resources.clone(),
        mounts: record.config.mounts.clone(),
        user: Some((i64::from(process.uid), i64::from(process.gid), groups)),
        stop_signal: record.stop_signal.clone(),
    }
}

/// Changes limits.
pub async fn update(inner: &Arc<Inner>, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
    let (entry, directory) = inner.shim_of(id)?;
    if exited(&entry.status.borrow()) {
        return Err(RuntimeError::Invalid(format!("container {id} is not running")));
    }
    let mut record = entry.record.lock().clone();
    record.config.resources = spec::merge(&record.config.resources, resources);
    // One that is not started takes its limits from the record.
    let running = entry.status.borrow().state == ContainerState::Running;
    super::blocking("change the container's limits", {
        let (inner, resources, record) = (inner.clone(), resources.clone(), record.clone());
        move || {
            if running {
                inner.cgroups.apply(&record.cgroup, &resources)?;
            }
            record::save(&directory.join("containers").join(&record.id).join("container.json"), &record)
        }
    })
    .await?;
    entry.record.lock().config.resources = record.config.resources;
    Ok(())
}

/// Usage.
pub async fn stats(inner: &Arc<Inner>, id: &str) -> Result<ContainerStats, RuntimeError> {
    let entry = inner.container(id)?;
    let (cgroup, upper) = {
        let record = entry.record.lock();
        (record.cgroup.clone(), record.writable.join("upper"))
    };
    let known = entry.writable.lock().filter(|(at, _)| at.elapsed() < MEASURED).map(|(_, usage)| usage);
    let inner = inner.clone();
    let (mut stats, writable) = super::blocking("read the container's usage", move || {
        let writable = known.unwrap_or_else(|| measure(&upper));
        Ok((inner.cgroups.stats(&cgroup), writable))
    })
    .await?;
    if known.is_none() {
        *entry.writable.lock() = Some((Instant::now(), writable));
    }
    (stats.timestamp, stats.writable) = (record::now(), writable);
    Ok(stats)
}

/// What a tree takes on disk.
fn measure(path: &Path) -> FsUsage {
    let mut usage = FsUsage::default();
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            usage.inodes += 1;
            usage.bytes += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    usage
}

/// Runs a command in a container.
pub async fn exec(inner: &Arc<Inner>, id: &str, request: &ExecRequest) -> Result<Process, RuntimeError> {
    let (entry, directory) = inner.shim_of(id)?;
    let mut process: ProcessRecord = entry.record.lock().process.clone();
    process.args.clone_from(&request.command);
    if request.tty && !process.env.iter().any(|entry| entry.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    let asked = Request::Exec { container: id.to_owned(), process, tty: request.tty, stdin: request.stdin };
    let (reply, conversation) = client::ask(&directory, &asked).await?;
    let mut process = made(inner, reply, conversation)?;
    if !request.stdin {
        process.stdin = None;
    }
    Ok(process)
}

/// Attaches to a container's main process.
pub async fn attach(inner: &Arc<Inner>, id: &str, request: &AttachRequest) -> Result<Process, RuntimeError> {
    let (entry, directory) = inner.shim_of(id)?;
    let (tty, takes_input) = {
        let record = entry.record.lock();
        (record.config.tty, record.config.stdin)
    };
    let stdin = request.stdin && takes_input;
    let asked = Request::Attach { container: id.to_owned(), stdin, stdout: request.stdout, stderr: request.stderr };
    let (reply, conversation) = client::ask(&directory, &asked).await?;
    let Reply::Streams(names) = &reply else { return Err(unexpected()) };
    let (names, has_output) = (names.clone(), names.contains(&Stream::Stdout));
    let mut process = streams::process(&names, conversation, &inner.tasks).map_err(|err| system("open streams", err))?;
    if !stdin {
        process.stdin = None;
    }
    if tty && !has_output {
        // The terminal's output goes through the shim, to the log and all clients.
        process.stdout = None;
    }
    Ok(process)
}

fn made(inner: &Inner, reply: Reply, conversation: client::Conversation) -> Result<Process, RuntimeError> {
    let Reply::Streams(names) = reply else { return Err(unexpected()) };
    streams::process(&names, conversation, &inner.tasks).map_err(|err| system("open streams", err))
}

fn unexpected() -> RuntimeError {
    RuntimeError::Invalid("the pod's shim gave another answer than asked for".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (name, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGQUIT", 3),
            ("nonsense", 15),
            ("99", 15),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
