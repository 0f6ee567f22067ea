//! What runs on the node, as the runtime told: sandboxes and containers by pod. The runtime's events keep it current, so
//! that nobody lists; each change wakes the worker of the pod it belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use corten_runtime::{Container, ContainerEvent, Runtime, RuntimeError, Sandbox};

use crate::plan::POD_UID;

/// The state of the runtime.
pub struct Cache {
    runtime: Arc<dyn Runtime>,
    pods: Mutex<HashMap<String, PodState>>,
    /// Answers are stored in the order in which they were asked for: a late one must not hide a newer one.
    order: tokio::sync::Mutex<()>,
    changes: watch::Sender<()>,
}

/// One pod at the runtime.
#[derive(Clone, Debug, Default)]
pub struct PodState {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
}

impl Cache {
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, pods: Mutex::default(), order: tokio::sync::Mutex::default(), changes: watch::Sender::default() }
    }

    /// Tells that containers have come, changed or gone.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// What is known of a pod.
    pub fn pod(&self, uid: &str) -> PodState {
        self.pods.lock().get(uid).cloned().unwrap_or_default()
    }

    /// UIDs of all pods that the runtime has something of.
    pub fn uids(&self) -> Vec<String> {
        self.pods.lock().keys().cloned().collect()
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Container> {
        self.pods.lock().values().flat_map(|pod| pod.containers.iter().cloned()).collect()
    }

    /// The pod that a container belongs to.
    pub fn owner(&self, id: &str) -> Option<(String, Container)> {
        let pods = self.pods.lock();
        pods.iter().find_map(|(uid, pod)| {
            let container = pod.containers.iter().find(|container| container.id == id)?;
            Some((uid.clone(), container.clone()))
        })
    }

    /// Lists everything.
    pub async fn relist(&self) -> Result<(), RuntimeError> {
        let _order = self.order.lock().await;
        let (sandboxes, containers) = (self.runtime.list_sandboxes().await?, self.runtime.list_containers().await?);
        let mut pods: HashMap<String, PodState> = HashMap::new();
        let mut owners = HashMap::new();
        for sandbox in sandboxes {
            owners.insert(sandbox.id.clone(), sandbox.uid.clone());
            pods.entry(sandbox.uid.clone()).or_default().sandboxes.push(sandbox);
        }
        for container in containers {
            let uid = container.labels.get(POD_UID).or_else(|| owners.get(&container.sandbox)).cloned().unwrap_or_default();
            pods.entry(uid).or_default().containers.push(container);
        }
        pods.values_mut().for_each(PodState::sort);
        *self.pods.lock() = pods;
        self.changes.send_replace(());
        Ok(())
    }

    /// Asks the runtime for one container and notes the answer. `uid` is its pod.
    pub async fn observe(&self, uid: &str, id: &str) -> Result<Option<Container>, RuntimeError> {
        let _order = self.order.lock().await;
        let found = match self.runtime.container_status(id).await {
            Ok(container) => Some(container),
            Err(RuntimeError::NotFound { .. }) => None,
            Err(err) => return Err(err),
        };
        let mut pods = self.pods.lock();
        let pod = pods.entry(uid.to_owned()).or_default();
        pod.containers.retain(|container| container.id != id);
        pod.containers.extend(found.clone());
        pod.sort();
        if pod.sandboxes.is_empty() && pod.containers.is_empty() {
            pods.remove(uid);
        }
        self.changes.send_replace(());
        Ok(found)
    }

    /// Notes a sandbox that was just made.
    pub fn add_sandbox(&self, sandbox: Sandbox) {
        let mut pods = self.pods.lock();
        let pod = pods.entry(sandbox.uid.clone()).or_default();
        pod.sandboxes.retain(|known| known.id != sandbox.id);
        pod.sandboxes.push(sandbox);
        pod.sort();
    }

    /// Forgets a sandbox and its containers, which were just removed.
    pub fn remove_sandbox(&self, uid: &str, id: &str) {
        let mut pods = self.pods.lock();
        if let Some(pod) = pods.get_mut(uid) {
            pod.sandboxes.retain(|sandbox| sandbox.id != id);
            pod.containers.retain(|container| container.sandbox != id);
            if pod.sandboxes.is_empty() && pod.containers.is_empty() {
                pods.remove(uid);
            }
        }
        self.changes.send_replace(());
    }

    /// Asks for the sandboxes of all pods again: one has changed.
    pub async fn observe_sandboxes(&self) -> Result<(), RuntimeError> {
        let _order = self.order.lock().await;
        let sandboxes = self.runtime.list_sandboxes().await?;
        let mut pods = self.pods.lock();
        pods.values_mut().for_each(|pod| pod.sandboxes.clear());
        for sandbox in sandboxes {
            pods.entry(sandbox.uid.clone()).or_default().sandboxes.push(sandbox);
        }
        pods.retain(|_, pod| !pod.sandboxes.is_empty() || !pod.containers.is_empty());
        pods.values_mut().for_each(PodState::sort);
        Ok(())
    }

    /// Follows the runtime's events for ever; `wake` is told the pod that changed, or `None` when all may have.
    pub async fn follow(&self, mut events: tokio::sync::broadcast::Receiver<ContainerEvent>, wake: impl Fn(Option<&str>)) {
        loop {
            let (result, uid) = match events.recv().await {
                Ok(ContainerEvent::Changed { pod_uid, container }) if container.is_empty() => {
                    (self.observe_sandboxes().await, Some(pod_uid))
                }
                Ok(ContainerEvent::Changed { pod_uid, container }) => {
                    (self.observe(&pod_uid, &container).await.map(drop), Some(pod_uid))
                }
                Err(RecvError::Lagged(_)) => (self.relist().await, None),
                Err(RecvError::Closed) => return,
            };
            if let Err(err) = result {
                tracing::warn!(error = %crate::chain(&err), "the runtime does not tell its state");
            }
            wake(uid.as_deref());
        }
    }
}

impl PodState {
    fn sort(&mut self) {
        self.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        self.containers.sort_by_key(|container| std::cmp::Reverse((container.created_at, container.attempt)));
    }
}
