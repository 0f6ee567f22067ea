//! Limits on local storage: `emptyDir` volumes on disk with a size limit, and containers with a limit on
//! `ephemeral-storage` (their writable layer and logs). The kernel does not tell how much a directory holds, so what has
//! a limit is measured again and again; without one on the node nothing is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use corten_client::EventType;

use super::size_of_tree;
use crate::context::Context;
use crate::pod::PodExt;
use crate::pods::Pods;
use crate::quantity;
use crate::worker::End;

/// Time between two measurements, upstream's eviction monitoring period.
const PAUSE: Duration = Duration::from_secs(10);

/// What is limited of one pod.
#[derive(Default)]
struct Limits {
    /// Volume, its directory, bytes.
    empty_dirs: Vec<(String, PathBuf, i64)>,
    /// Container, bytes.
    containers: Vec<(String, i64)>,
}

/// Evicts pods that use more local storage than they may, for ever.
pub async fn enforce(ctx: Arc<Context>, pods: Arc<Pods>) {
    let mut changes = ctx.cache.changes();
    loop {
        let limited: Vec<_> = pods.active().into_iter().map(|pod| (limits(&ctx, &pod), pod)).collect();
        let limited: Vec<_> =
            limited.into_iter().filter(|(limits, _)| !limits.empty_dirs.is_empty() || !limits.containers.is_empty()).collect();
        if limited.is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        for (limits, pod) in limited {
            if let Some(message) = exceeded(&ctx, &pod, limits).await {
                ctx.events.pod(&pod, EventType::Warning, "Evicted", &message);
                let grace = Some(Duration::from_secs(1));
                pods.end(pod.uid(), End::Evicted { reason: "Evicted".to_owned(), message, grace, disruption: true });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn limits(ctx: &Context, pod: &Pod) -> Limits {
    let volumes = pod.spec().volumes.iter().flatten();
    let empty_dirs = volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let limit = source.size_limit.as_ref().map(quantity::value).filter(|limit| *limit > 0)?;
        // The kernel keeps to the limit of one in memory.
        let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        on_disk.then(|| (volume.name.clone(), ctx.volumes.path(pod, volume), limit))
    });
    let containers = pod.spec().containers.iter().filter_map(|container| {
        let limits = container.resources.as_ref()?.limits.as_ref();
        Some((container.name.clone(), quantity::amount(limits, "ephemeral-storage").filter(|limit| *limit > 0)?))
    });
    Limits { empty_dirs: empty_dirs.collect(), containers: containers.collect() }
}

/// The message about a limit that the pod exceeds.
async fn exceeded(ctx: &Context, pod: &Pod, limits: Limits) -> Option<String> {
    for (name, path, limit) in limits.empty_dirs {
        let used = tokio::task::spawn_blocking(move || size_of_tree(&path)).await.unwrap_or(0);
        if i64::try_from(used).unwrap_or(i64::MAX) > limit {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", quantity::bytes(limit).0));
        }
    }
    for (name, limit) in limits.containers {
        let containers = ctx.cache.pod(pod.uid()).containers;
        let Some(container) = crate::plan::latest(&containers, &name) else { continue };
        let Ok(stats) = ctx.runtime.container_stats(&container.id).await else { continue };
        let logs = container.log_path.parent().map_or(0, size_of_tree);
        if i64::try_from(stats.writable.bytes + logs).unwrap_or(i64::MAX) > limit {
            let limit = quantity::bytes(limit).0;
            return Some(format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. "));
        }
    }
    None
}
