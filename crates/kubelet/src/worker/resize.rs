//! Resizes running containers in place.

use corten_client::EventType;
use corten_runtime::{ContainerState, Resources};

use super::{Done, Worker, sandbox};
use crate::plan::latest;
use crate::pod::PodExt;

impl Worker {
    /// Brings the limits of running containers to what the specification now says.
    pub(super) fn resize(&mut self) {
        if self.resizing {
            return;
        }
        let mut changes = Vec::new();
        for (_, spec) in self.pod.containers() {
            let Some(running) = latest(&self.seen.containers, &spec.name) else { continue };
            if running.state != ContainerState::Running || running.resources == Resources::default() {
                continue;
            }
            let wanted = crate::cgroups::container(&self.pod, &spec, self.ctx.cgroup_node());
            let key = |resources: &Resources| (resources.cpu_shares, resources.cpu_quota, resources.memory_limit);
            // What this process set counts as set, however the runtime rounds it.
            let known = self.applied.get(&running.id).unwrap_or(&running.resources);
            if key(&wanted) != key(known) {
                changes.push((running.id.clone(), wanted));
            }
        }
        if changes.is_empty() {
            return;
        }
        self.resizing = true;
        self.applied.retain(|id, _| self.seen.containers.iter().any(|container| container.id == *id));
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.operations.push(Box::pin(async move {
            sandbox::limit(&ctx, &pod);
            let mut failed = false;
            let mut done = Vec::new();
            for (id, wanted) in changes {
                if let Err(err) = ctx.runtime.update_resources(&id, &wanted).await {
                    let message = format!("Error resizing container {id}: {}", crate::chain(&err));
                    ctx.events.pod(&pod, EventType::Warning, "ResizeError", &message);
                    failed = true;
                    continue;
                }
                if let Err(err) = ctx.cache.observe(pod.uid(), &id).await {
                    tracing::warn!(error = %crate::chain(&err), "observe a resized container");
                }
                done.push((id, wanted));
            }
            Done::Resized { failed, done }
        }));
    }
}
