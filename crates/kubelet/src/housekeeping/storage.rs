//! Limits on local storage: `emptyDir` volumes on disk with a size limit, and containers with a limit on
//! `ephemeral-storage` (their writable layer and logs). The kernel does not tell how much a directory holds, so what has
//! a limit is measured again and again; without one on the node nothing is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use corten_client::EventType;
use corten_runtime::{ContainerState, FsUsage};

use super::size_of_tree;
use crate::context::Context;
use crate::plan::latest;
use crate::pod::PodExt;
use crate::pods::Pods;
use crate::quantity;
use crate::worker::End;

/// Time between two measurements, upstream's eviction monitoring period.
const PAUSE: Duration = Duration::from_secs(10);
const STORAGE: &str = "ephemeral-storage";

/// What is limited of one pod.
#[derive(Default)]
struct Limits {
    /// Volume, its directory, bytes, and the limit as it was written.
    empty_dirs: Vec<(String, PathBuf, i64, String)>,
    /// Container, bytes, and the limit as it was written.
    containers: Vec<(String, i64, String)>,
    /// All containers together, bytes.
    pod: Option<i64>,
}

/// What a pod uses of the node's disk.
#[derive(Default)]
pub struct Usage {
    /// Writable layer and logs, by container.
    pub containers: Vec<(String, FsUsage)>,
    /// Volumes on disk and the kubelet's files.
    pub volumes: FsUsage,
}

impl Usage {
    /// All of it.
    pub fn total(&self) -> FsUsage {
        let parts = self.containers.iter().map(|(_, usage)| usage).chain([&self.volumes]);
        parts.fold(FsUsage::default(), |sum, part| FsUsage { bytes: sum.bytes + part.bytes, inodes: sum.inodes + part.inodes })
    }
}

/// Measures a pod.
pub async fn usage(ctx: &Context, pod: &Pod) -> Usage {
    let known = ctx.cache.pod(pod.uid()).containers;
    let mut containers = Vec::new();
    for (_, spec) in pod.containers() {
        let Some(container) = latest(&known, &spec.name) else { continue };
        let writable = match container.state {
            ContainerState::Running => ctx.runtime.container_stats(&container.id).await.ok(),
            _ => None,
        };
        let writable = writable.map(|stats| stats.writable).unwrap_or_default();
        let logs = measured(container.log_path.parent().map(ToOwned::to_owned).unwrap_or_default()).await;
        let used = FsUsage { bytes: writable.bytes + logs.bytes, inodes: writable.inodes + logs.inodes };
        containers.push((spec.name.clone(), used));
    }
    Usage { containers, volumes: measured(ctx.volumes.pod_dir(pod.uid())).await }
}

async fn measured(path: PathBuf) -> FsUsage {
    tokio::task::spawn_blocking(move || size_of_tree(&path)).await.unwrap_or_default()
}

/// Evicts pods that use more local storage than they may, for ever.
pub async fn enforce(ctx: Arc<Context>, pods: Arc<Pods>) {
    let mut changes = ctx.cache.changes();
    loop {
        let limited: Vec<_> = pods.active().into_iter().map(|pod| (limits(&ctx, &pod), pod)).collect();
        let limited: Vec<_> =
            limited.into_iter().filter(|(limits, _)| !limits.empty_dirs.is_empty() || limits.pod.is_some()).collect();
        if limited.is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        for (limits, pod) in limited.into_iter().filter(|(_, pod)| !pod.is_critical()) {
            if let Some(message) = exceeded(&ctx, &pod, limits).await {
                ctx.events.pod(&pod, EventType::Warning, "Evicted", &message);
                let grace = Some(Duration::from_secs(1));
                // The pod's own doing: nothing disrupted it.
                pods.end(pod.uid(), End::Evicted { reason: "Evicted".to_owned(), message, grace, disruption: false });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn limits(ctx: &Context, pod: &Pod) -> Limits {
    let volumes = pod.spec().volumes.iter().flatten();
    let empty_dirs = volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let text = source.size_limit.as_ref()?;
        let limit = Some(quantity::value(text)).filter(|limit| *limit > 0)?;
        // The kernel keeps to the limit of one in memory.
        let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        on_disk.then(|| (volume.name.clone(), ctx.volumes.path(pod, volume), limit, text.0.clone()))
    });
    let containers = pod.spec().containers.iter().filter_map(|container| {
        let text = container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)?;
        let limit = Some(quantity::value(text)).filter(|limit| *limit > 0)?;
        Some((container.name.clone(), limit, text.0.clone()))
    });
    Limits { empty_dirs: empty_dirs.collect(), containers: containers.collect(), pod: pod.limits().get(STORAGE).copied() }
}

/// The message about a limit that the pod exceeds: of a volume, of all together, of a container.
async fn exceeded(ctx: &Context, pod: &Pod, limits: Limits) -> Option<String> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    for (name, path, limit, text) in limits.empty_dirs {
        if number(measured(path).await.bytes) > limit {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "));
        }
    }
    let all = limits.pod?;
    let used = usage(ctx, pod).await;
    if number(used.total().bytes) > all {
        let limit = quantity::bytes(all).0;
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
    }
    limits.containers.into_iter().find_map(|(name, limit, text)| {
        let (_, usage) = used.containers.iter().find(|(known, _)| *known == name)?;
        (number(usage.bytes) > limit).then(|| format!("Container {name} exceeded its local ephemeral storage limit {text:?}. "))
    })
}
