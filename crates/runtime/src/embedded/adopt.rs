//! What an earlier process left: living shims are taken over with their containers; the rest is cleared away.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::client::Conversation;
use super::protocol::{Reply, Request, line, take};
use super::record::{self, ContainerRecord, SOCKET, SandboxPaths, SandboxRecord, ShimRecord, Status};
use super::{ContainerEntry, Inner, ReadyShim, SandboxEntry, container, link, sandbox};
use crate::cri::ContainerState;

/// How long one shim may take to answer: it is busy for milliseconds at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// Adopts everything below the state directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn adopt(inner: &Arc<Inner>) -> io::Result<()> {
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(inner.config.state.join("sandboxes"))?.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let paths = SandboxPaths::new(&inner.config.state, &id);
        let Ok(record) = record::load::<SandboxRecord>(&paths.record()) else {
            // Died before it was written: nothing was started yet.
            container::remove_tree(&paths.directory)?;
            continue;
        };
        let Ok(shim) = record::load::<ShimRecord>(&paths.shim()) else {
            sandbox::clear(inner, &record, &paths);
            continue;
        };
        load_containers(inner, &paths)?;
        known.insert(id.clone());
        let sandbox = SandboxEntry { record, paths, shim: ReadyShim::from(&shim), ready: watch::Sender::new(true) };
        let sandbox = Arc::new(sandbox);
        inner.sandboxes.lock().insert(id, sandbox.clone());
        let alive = record::process_start(shim.pid) == Some(shim.start_time);
        let greeted = if alive { greet(&sandbox.paths) } else { Err(io::ErrorKind::NotFound.into()) };
        match greeted {
            Ok((all, stream)) => {
                sandbox::take(inner, &sandbox, Reply::All(all));
                sandbox::follow(inner, sandbox, Conversation::over(stream)?);
            }
            Err(err) => {
                tracing::warn!(sandbox = %sandbox.record.id, %err, "shim is gone, stopping its containers");
                sandbox::kill_shim(&sandbox.paths);
                sandbox::lost(inner, &sandbox);
            }
        }
    }
    sweep(inner, &known)
}

fn load_containers(inner: &Inner, paths: &SandboxPaths) -> io::Result<()> {
    for entry in fs::read_dir(paths.containers()).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let at = paths.container(&id);
        let Ok(record) = record::load::<ContainerRecord>(&at.record()) else {
            container::remove_tree(&at.directory)?;
            continue;
        };
        let status: Status = record::load(&at.status()).unwrap_or_default();
        inner.containers.lock().insert(id, Arc::new(ContainerEntry::new(record, status)));
    }
    Ok(())
}

/// Subscribes to a shim and reads its first answer, before anything asynchronous exists.
fn greet(paths: &SandboxPaths) -> io::Result<(std::collections::BTreeMap<String, Status>, std::os::unix::net::UnixStream)> {
    let mut stream = link::connect(&paths.directory, SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&line(&Request::Subscribe))?;
    let mut buffer = Vec::new();
    let mut byte = [0];
    // Byte by byte: what follows the first line belongs to the follower.
    loop {
        stream.read_exact(&mut byte)?;
        buffer.push(byte[0]);
        if let Some(reply) = take::<Reply>(&mut buffer) {
            return match reply? {
                Reply::All(all) => Ok((all, stream)),
                _ => Err(io::ErrorKind::InvalidData.into()),
            };
        }
    }
}

/// Removes namespaces, mounts and writable layers of no known sandbox.
fn sweep(inner: &Inner, known: &BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(inner.config.state.join("netns"))?.flatten() {
        if !known.contains(&*entry.file_name().to_string_lossy()) {
            sandbox::detach(&entry.path());
            let _ = fs::remove_file(entry.path());
        }
    }
    let sandboxes = inner.config.state.join("sandboxes");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for point in leaked(&mounts, &sandboxes, known) {
        sandbox::detach(Path::new(&point));
    }
    let living: BTreeSet<String> = inner.containers.lock().keys().cloned().collect();
    for entry in fs::read_dir(inner.config.root.join("containers"))?.flatten() {
        if !living.contains(&*entry.file_name().to_string_lossy()) {
            container::remove_tree(&entry.path())?;
        }
    }
    // A container that is neither running nor ended was never started, or its start was cut off with the shim.
    let containers: Vec<_> = inner.containers.lock().values().cloned().collect();
    for entry in containers {
        if entry.status.borrow().state == ContainerState::Created {
            let record = entry.record.lock();
            sandbox::detach(&SandboxPaths::new(&inner.config.state, &record.sandbox).container(&record.id).rootfs());
        }
    }
    Ok(())
}

/// Mount points below `sandboxes` that belong to none of `known`, deepest last in the table first to go.
fn leaked(mountinfo: &str, sandboxes: &Path, known: &BTreeSet<String>) -> Vec<String> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.filter(|point| {
        let below = Path::new(point).strip_prefix(sandboxes).ok().and_then(|rest| rest.components().next());
        below.is_some_and(|id| !known.contains(&*id.as_os_str().to_string_lossy()))
    });
    let mut points: Vec<String> = points.map(str::to_owned).collect();
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_unknown_sandboxes_are_leaks() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /run/c/sandboxes/a/shm rw - tmpfs t rw\n\
                     3 1 0:6 / /run/c/sandboxes/b/shm rw - tmpfs t rw\n4 1 0:6 / /run/c/sandboxes/b/containers/x/rootfs rw - overlay o rw\n";
        let known = BTreeSet::from(["a".to_owned()]);
        let expected = ["/run/c/sandboxes/b/containers/x/rootfs", "/run/c/sandboxes/b/shm"];
        assert_eq!(leaked(table, Path::new("/run/c/sandboxes"), &known), expected);
    }
}
