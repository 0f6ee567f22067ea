//! Removes pods that nobody else will: ended ones beyond a limit, those of nodes that no longer exist, those that are
//! deleted before they were bound, and terminating ones on nodes that are out of service.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, Informer, Key, Queue, Requeue};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine};
use crate::meta::{is_deleting, name, namespace};
use crate::pods::{BY_NODE, by_node, disrupt, is_ready, is_terminal, node_name};

/// How long a node has to be absent before its pods are taken for orphans: it may be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct PodGc {
    client: Client,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    threshold: usize,
    /// Nodes that pods name but that are not there, and since when we know.
    missing: Mutex<HashMap<String, Instant>>,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(PodGc {
        client: ctx.client.clone(),
        pods: ctx.informers.of(),
        nodes: ctx.informers.of(),
        threshold: ctx.config.terminated_pod_gc_threshold,
        missing: Mutex::default(),
    });
    controller.pods.index(BY_NODE, by_node);
    controller.pods.on_change({
        let queue = queue.clone();
        move |change: &Change<Pod>| {
            let pod = change.object();
            if change.is_deleted() {
                return;
            }
            queue.add(Key::of(&**pod));
            if is_terminal(pod) && !change.old().is_some_and(|old| is_terminal(old)) {
                queue.add(all_terminated());
            }
        }
    });
    controller.nodes.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Node>| {
            let node = name(&change.object().metadata);
            if !change.is_deleted() {
                controller.missing.lock().remove(node);
                if !is_out_of_service(change.object()) {
                    return;
                }
            }
            for pod in controller.pods.indexed(BY_NODE, node) {
                queue.add(Key::of(&*pod));
            }
        }
    });
    let synced = synced!(controller.pods, controller.nodes);
    ctx.run("podgc", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

/// The key for the sum of all ended pods, which no pod can have.
fn all_terminated() -> Key {
    Key::cluster("")
}

#[derive(Debug, PartialEq)]
enum Plan {
    Keep,
    Wait(Duration),
    Delete(Option<(&'static str, &'static str)>),
}

/// `node` is the pod's node; `missing_for` how long it has been known to be absent.
fn plan(pod: &Pod, node: Option<&Node>, missing_for: Option<Duration>) -> Plan {
    if node_name(pod).is_empty() {
        let never_bound = is_deleting(&pod.metadata);
        return if never_bound { Plan::Delete(None) } else { Plan::Keep };
    }
    match (node, missing_for) {
        (None, Some(time)) if time >= QUARANTINE => Plan::Delete(Some(("DeletionByPodGC", "PodGC: node no longer exists"))),
        (None, time) => Plan::Wait(QUARANTINE.saturating_sub(time.unwrap_or_default())),
        (Some(node), _) if is_deleting(&pod.metadata) && is_out_of_service(node) && !is_node_ready(node) => Plan::Delete(None),
        (Some(_), _) => Plan::Keep,
    }
}

fn is_out_of_service(node: &Node) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == OUT_OF_SERVICE)
}

fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

impl PodGc {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        if *key == all_terminated() {
            return self.limit_terminated().await;
        }
        let Some(pod) = self.pods.get(key) else { return Ok(Requeue::OnChange) };
        let node = self.nodes.get(&Key::cluster(node_name(&pod)));
        let missing_for = (node.is_none() && !node_name(&pod).is_empty()).then(|| {
            let mut missing = self.missing.lock();
            missing.entry(node_name(&pod).to_owned()).or_insert_with(Instant::now).elapsed()
        });
        match plan(&pod, node.as_deref(), missing_for) {
            Plan::Keep => Ok(Requeue::OnChange),
            Plan::Wait(time) => Ok(Requeue::After(time)),
            Plan::Delete(reason) => {
                if reason.is_some() {
                    // The cache may be wrong about a node; losing its pods for that would be bad.
                    let nodes: Api<Node> = Api::all(self.client.clone());
                    if nodes.get_opt(node_name(&pod)).await.during("get node", node_name(&pod))?.is_some() {
                        return Ok(Requeue::OnChange);
                    }
                }
                self.delete(&pod, reason).await?;
                Ok(Requeue::OnChange)
            }
        }
    }

    async fn limit_terminated(&self) -> Result<Requeue> {
        if self.threshold == 0 {
            return Ok(Requeue::OnChange);
        }
        let mut ended: Vec<Arc<Pod>> = self.pods.list().into_iter().filter(|pod| is_terminal(pod)).collect();
        let surplus = ended.len().saturating_sub(self.threshold);
        if surplus > 0 {
            ended.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
            for pod in &ended[..surplus] {
                self.delete(pod, None).await?;
            }
        }
        Ok(Requeue::OnChange)
    }

    async fn delete(&self, pod: &Pod, reason: Option<(&'static str, &'static str)>) -> Result<()> {
        // Nobody will report its end, so it is written here.
        if !is_terminal(pod) {
            let reason = reason.or(is_ready(pod).then_some(("DeletionByPodGC", "PodGC: node out of service")));
            disrupt(&self.client, pod, reason.unwrap_or_default(), true).await?;
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(&pod.metadata));
        let this = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(this);
        gone_is_fine(api.delete(name(&pod.metadata), &params).await).during("delete pod", name(&pod.metadata))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::tests::pod;

    #[test]
    fn who_is_to_go() {
        let node = |taint: &str, ready: &str| -> Node {
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
                "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let unbound = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": ""}});
        let secs = Duration::from_secs;
        let orphan = Plan::Delete(Some(("DeletionByPodGC", "PodGC: node no longer exists")));
        assert_eq!(plan(&pod("a", json!({})), Some(&node("x", "True")), None), Plan::Keep);
        assert_eq!(plan(&pod("a", json!({})), None, Some(secs(10))), Plan::Wait(secs(30)));
        assert_eq!(plan(&pod("a", json!({})), None, Some(secs(40))), orphan);
        assert_eq!(plan(&pod("a", json!({"spec": {"nodeName": ""}})), None, None), Plan::Keep);
        assert_eq!(plan(&pod("a", unbound), None, None), Plan::Delete(None));
        assert_eq!(plan(&pod("a", deleting.clone()), Some(&node(OUT_OF_SERVICE, "Unknown")), None), Plan::Delete(None));
        assert_eq!(plan(&pod("a", deleting.clone()), Some(&node(OUT_OF_SERVICE, "True")), None), Plan::Keep);
        assert_eq!(plan(&pod("a", deleting), Some(&node("x", "Unknown")), None), Plan::Keep);
    }
}
