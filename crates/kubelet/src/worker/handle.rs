//! What others hold of a worker: its pod, its end, its bell and its last status.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Worker, forget};
use crate::context::Context;
use crate::objects::Wake;
use crate::pod::PodExt;

/// Why a pod ends though its object does not say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The object is gone from the API, or a static pod's manifest from its directory.
    Gone,
    /// The node does not take the pod: reason and message of its status.
    Rejected { reason: String, message: String },
    /// The node takes back what it gave: reason, message and grace period.
    Evicted { reason: String, message: String, grace: Option<Duration>, disruption: bool },
}

/// The handle others hold of a worker.
pub struct Handle {
    pub pod: watch::Sender<Arc<Pod>>,
    pub wake: Arc<Wake>,
    end: watch::Sender<Option<End>>,
    /// The last status generated, for the node's endpoint and for admission.
    pub status: Arc<Mutex<PodStatus>>,
}

impl Handle {
    /// Starts a worker in the kubelet's tasks. `done` is called when it has nothing left to do for ever.
    pub fn start(ctx: &Arc<Context>, pod: Arc<Pod>, done: impl FnOnce() + Send + 'static) -> Self {
        let (sender, incoming) = watch::channel(pod.clone());
        let (end, ending) = watch::channel(None);
        let wake = Arc::new(Wake::default());
        let status = Arc::new(Mutex::new(pod.status.clone().unwrap_or_default()));
        let mut worker = Worker::new(ctx.clone(), pod, incoming, ending, wake.clone(), status.clone());
        ctx.tasks.spawn("pod worker", async move {
            worker.run().await;
            let mut retry = Duration::from_secs(1);
            while let Err(err) = forget(&worker.ctx, worker.pod.uid()).await {
                tracing::warn!(pod = %worker.pod.described(), error = err, "remove what is left of a pod");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(Duration::from_secs(60));
            }
            done();
        });
        Self { pod: sender, wake, end, status }
    }

    /// Hands over a newer version of the pod.
    pub fn update(&self, pod: Arc<Pod>) {
        let old = self.pod.send_replace(pod.clone());
        // Its own status coming back changes nothing that a volume shows.
        let (before, after) = (&old.metadata, &pod.metadata);
        if before.labels != after.labels || before.annotations != after.annotations || old.spec != pod.spec {
            self.wake.content_changed();
        } else {
            self.wake.wake();
        }
    }

    /// Ends the pod; the first reason stays, except that a gone object ends everything.
    pub fn end(&self, end: End) {
        self.end.send_if_modified(|known| {
            let newer = known.is_none() || (end == End::Gone && *known != Some(End::Gone));
            if newer {
                *known = Some(end);
            }
            newer
        });
        self.wake.wake();
    }

    /// Whether the pod is being stopped or has ended on this node.
    pub fn is_ending(&self) -> bool {
        self.end.borrow().is_some() || self.pod.borrow().is_deleting()
    }
}
