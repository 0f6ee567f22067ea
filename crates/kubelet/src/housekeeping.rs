//! What keeps a node in order besides its pods: logs that grow, local storage that is used up, pressure on memory and
//! disk, images and containers that nobody needs.
//!
//! Where the kernel tells of a change it is waited for. It does not tell of file systems and memory that fill up: these
//! are looked at again when, at their fastest, they could have reached a threshold.

mod logs;
mod pressure;
mod storage;

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use corten_runtime::{FsUsage, Images};
use corten_task::Tasks;

use crate::context::Context;
use crate::eviction::Pressure;
use crate::pod::PodExt;
use crate::pods::Pods;

/// Starts all of it in `tasks`.
pub fn start(ctx: &Arc<Context>, pods: &Arc<Pods>, images: Arc<dyn Images>, pressure: watch::Sender<Pressure>, tasks: &Tasks) {
    tasks.spawn("log rotation", logs::rotate(ctx.clone()));
    tasks.spawn("local storage", storage::enforce(ctx.clone(), pods.clone()));
    tasks.spawn("node pressure", pressure::Watcher::new(ctx.clone(), pods.clone(), images, pressure).run());
}

/// Removes an ended container and its log files.
pub async fn remove_container(ctx: &Context, id: &str) {
    let Some((uid, container)) = ctx.cache.owner(id) else { return };
    if let Err(err) = ctx.runtime.remove_container(id).await {
        tracing::warn!(container = id, error = %crate::chain(&err), "remove an ended container");
        return;
    }
    crate::logs::remove(&container.log_path);
    if let Err(err) = ctx.cache.observe(&uid, id).await {
        tracing::warn!(container = id, error = %crate::chain(&err), "observe a removed container");
    }
}

/// The volumes of a pod that the kubelet keeps: name, size, and whether it counts as the node's disk.
pub async fn volume_sizes(ctx: &Context, pod: &Pod) -> Vec<(String, FsUsage, bool)> {
    let mut sizes = Vec::new();
    for volume in pod.spec().volumes.iter().flatten().filter(|volume| volume.host_path.is_none()) {
        let path = ctx.volumes.path(pod, volume);
        let used = tokio::task::spawn_blocking(move || size_of_tree(&path)).await.unwrap_or_default();
        let in_memory = volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref() == Some("Memory"));
        let on_disk = (volume.empty_dir.is_some() && !in_memory) || volume.config_map.is_some();
        sizes.push((volume.name.clone(), used, on_disk));
    }
    sizes
}

/// Bytes and inodes of the files below `path`, mounts of other file systems left out.
pub fn size_of_tree(path: &Path) -> FsUsage {
    use std::os::unix::fs::MetadataExt;
    let Ok(root) = std::fs::symlink_metadata(path) else { return FsUsage::default() };
    let mut total = FsUsage { bytes: root.blocks() * 512, inodes: 1 };
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != root.dev() {
                continue;
            }
            total.bytes += meta.blocks() * 512;
            total.inodes += 1;
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    total
}
