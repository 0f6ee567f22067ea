//! Takes down what a pod held once nothing of it runs: sandboxes with their network, volumes, cgroup; and, when its
//! object is gone too, its containers and logs.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Done, Worker};
use crate::cgroups;
use crate::context::Context;
use crate::pod::PodExt;

impl Worker {
    pub(super) fn clean(&mut self) {
        // Until the operation says otherwise, so that it is not begun twice.
        self.cleaned = true;
        let (ctx, pod, wake) = (self.ctx.clone(), self.pod.clone(), self.wake.clone());
        // A pod that merely finished keeps its containers: their logs and exit codes are still asked for.
        let all = self.pod.is_deleting() || self.ending.borrow().as_ref() == Some(&super::End::Gone);
        self.operations.push(Box::pin(async move {
            let result = take_down(&ctx, &pod, all).await;
            ctx.volumes.config_maps.release(&wake);
            ctx.volumes.secrets.release(&wake);
            ctx.volumes.tokens.release(pod.uid());
            ctx.images.release(&pod);
            Done::Cleaned(result)
        }));
    }
}

async fn take_down(ctx: &Arc<Context>, pod: &Pod, all: bool) -> Result<(), String> {
    for sandbox in ctx.cache.pod(pod.uid()).sandboxes {
        let netns = sandbox.network_namespace.as_deref();
        ctx.network.detach(&sandbox.id, netns).await.map_err(|err| crate::chain(&err))?;
        ctx.runtime.stop_sandbox(&sandbox.id).await.map_err(|err| crate::chain(&err))?;
    }
    let (shared, uid) = (ctx.clone(), pod.uid().to_owned());
    let removed = tokio::task::spawn_blocking(move || shared.volumes.remove_pod(&uid)).await;
    removed.map_err(|err| err.to_string())?.map_err(|err| format!("remove volumes: {err}"))?;
    if ctx.config.host.manage {
        let path = cgroups::pod_path(&ctx.config.cgroup_root, pod);
        if let Err(err) = ctx.cgroups.remove(&path) {
            tracing::debug!(error = %crate::chain(&err), "remove a pod's cgroup");
        }
    }
    if all { Ok(()) } else { ctx.cache.observe_sandboxes().await.map_err(|err| crate::chain(&err)) }
}

/// Removes the sandboxes, containers and logs of a pod that is gone for good.
pub async fn forget(ctx: &Arc<Context>, uid: &str) -> Result<(), String> {
    let known = ctx.cache.pod(uid);
    for sandbox in &known.sandboxes {
        let netns = sandbox.network_namespace.as_deref();
        ctx.network.detach(&sandbox.id, netns).await.map_err(|err| crate::chain(&err))?;
        ctx.runtime.remove_sandbox(&sandbox.id).await.map_err(|err| crate::chain(&err))?;
        ctx.cache.remove_sandbox(uid, &sandbox.id);
        let logs = ctx.log_dir(&sandbox.namespace, &sandbox.name, uid);
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(logs)).await;
        if let Ok(Err(err)) = removed
            && err.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(error = %err, "remove a pod's logs");
        }
    }
    if let Some(links) = &ctx.config.container_logs {
        for container in &known.containers {
            let suffix = format!("-{}.log", container.id);
            for entry in std::fs::read_dir(links).into_iter().flatten().flatten() {
                if entry.file_name().to_str().is_some_and(|name| name.ends_with(&suffix)) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
    let (shared, owned) = (ctx.clone(), uid.to_owned());
    let removed = tokio::task::spawn_blocking(move || shared.volumes.remove_pod(&owned)).await;
    removed.map_err(|err| err.to_string())?.map_err(|err| format!("remove volumes: {err}"))
}
