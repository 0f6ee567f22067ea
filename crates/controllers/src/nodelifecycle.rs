//! Notices nodes that stopped reporting, says so in their conditions, and keeps their taints in step.
//!
//! A node is alive when its Lease or its Ready condition's heartbeat moved within the grace period, measured on this
//! process's own monotonic clock since it saw the movement. There is no polling: each node has one deadline, and a
//! heartbeat only notes the time. Eviction is left to `tainteviction`, which acts on the NoExecute taints set here; these are
//! handed out slowly per zone, and not at all when everything seems to be down, because then it is more likely that we are.

mod health;
pub(crate) mod taints;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue, Selection};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::clock::{now, now_time};
use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine};
use crate::meta::{map, name, reference};
use crate::pods::{BY_NODE, by_node, is_ready};
use health::{ZoneState, ready_status, zone_of};

/// Without a lease or a status, a new node is given so long (`--node-startup-grace-period`).
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// One node of a zone is tainted NoExecute in this time (`--node-eviction-rate` 0.1), or in this one when a large part of
/// a large zone is unhealthy (`--secondary-node-eviction-rate` 0.01).
const EVICTION_PAUSE: Duration = Duration::from_secs(10);
const SECONDARY_PAUSE: Duration = Duration::from_secs(100);
/// A zone above this size is large (`--large-cluster-size-threshold`).
const LARGE_ZONE: usize = 50;

struct Lifecycle {
    client: Client,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    recorder: Recorder,
    grace: Duration,
    queue: Queue,
    seen: Mutex<HashMap<Key, Seen>>,
    /// When the next node of a zone may be tainted NoExecute.
    next_eviction: Mutex<HashMap<String, Instant>>,
}

/// What this process knows of a node's reports.
#[derive(Debug)]
struct Seen {
    last: Instant,
    /// Its pods were marked not ready since it was last ready.
    pods_marked: bool,
    /// It was ready when it was last looked at.
    was_ready: bool,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Lifecycle {
        client: ctx.client.clone(),
        nodes: ctx.informers.of(),
        leases: ctx.informers.select_in("kube-node-lease", Selection::default()),
        pods: ctx.informers.of(),
        recorder: ctx.recorder("node-controller"),
        grace: ctx.config.node_monitor_grace_period,
        queue: queue.clone(),
        seen: Mutex::default(),
        next_eviction: Mutex::default(),
    });
    controller.pods.index(BY_NODE, by_node);
    controller.nodes.on_change({
        let controller = controller.clone();
        move |change: &Change<Node>| controller.node_changed(change)
    });
    controller.leases.on_change({
        let controller = controller.clone();
        move |change: &Change<Lease>| {
            if !change.is_deleted() {
                controller.heard_of(&Key::cluster(name(&change.object().metadata)));
            }
        }
    });
    let synced = synced!(controller.nodes, controller.leases, controller.pods);
    ctx.run("nodelifecycle", 8, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Lifecycle {
    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        let key = Key::of(&**node);
        if change.is_deleted() {
            self.seen.lock().remove(&key);
            let text = format!("Removing Node {} from Controller", key.name);
            self.recorder.event(&node_reference(node), EventType::Normal, "RemovingNode", text);
            return;
        }
        match change.old() {
            None => {
                let text = format!("Registered Node {} in Controller", key.name);
                self.recorder.event(&node_reference(node), EventType::Normal, "RegisteredNode", text);
                self.heard_of(&key);
            }
            Some(old) if health::heartbeat(old) != health::heartbeat(node) => self.heard_of(&key),
            Some(_) => {}
        }
        if change.old().is_none_or(|old| is_relevant(old, node)) {
            self.queue.add(key);
        }
    }

    fn heard_of(&self, key: &Key) {
        let mut seen = self.seen.lock();
        match seen.get_mut(key) {
            Some(seen) => seen.last = Instant::now(),
            None => _ = seen.insert(key.clone(), Seen { last: Instant::now(), pods_marked: false, was_ready: false }),
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(node) = self.nodes.get(key) else { return Ok(Requeue::OnChange) };
        let silent = self.seen.lock().get(key).map_or(Duration::ZERO, |seen| seen.last.elapsed());
        let grace = if ready_status(&node).is_some() { self.grace } else { STARTUP_GRACE.max(self.grace) };
        let mut node = node;
        if silent > grace {
            let (next, changed) = health::silenced(&node, now_time());
            if changed {
                let api: Api<Node> = Api::all(self.client.clone());
                let written = gone_is_fine(api.replace_status(&key.name, &PostParams::default(), &next).await);
                let Some(written) = written.during("update the status of node", key)? else { return Ok(Requeue::OnChange) };
                node = Arc::new(written);
            }
        }
        let ready = ready_status(&node).unwrap_or("Unknown").to_owned();
        self.mark_pods(key, &node, ready == "True").await?;
        let mut wait = self.keep_taints(key, &node, &ready).await?;
        if silent <= grace {
            let left = grace - silent + Duration::from_millis(1);
            wait = Some(wait.map_or(left, |wait| wait.min(left)));
        }
        Ok(wait.map_or(Requeue::OnChange, Requeue::After))
    }

    /// The pods of a node that is not ready are not ready either; their kubelet may be unable to say so.
    async fn mark_pods(&self, key: &Key, node: &Node, ready: bool) -> Result<()> {
        {
            let mut seen = self.seen.lock();
            let Some(seen) = seen.get_mut(key) else { return Ok(()) };
            if ready {
                seen.pods_marked = false;
            } else if seen.was_ready {
                let text = format!("Node {} status is now: NodeNotReady", key.name);
                self.recorder.event(&node_reference(node), EventType::Normal, "NodeNotReady", text);
            }
            seen.was_ready = ready;
            if ready || seen.pods_marked {
                return Ok(());
            }
        }
        // A node that never was ready has nothing to withdraw.
        let pods: Vec<Arc<Pod>> = self.pods.indexed(BY_NODE, &key.name).into_iter().filter(|pod| is_ready(pod)).collect();
        for pod in pods {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), crate::meta::namespace(&pod.metadata));
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": now_time()});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": replaced(&pod, condition)}});
            let patched = api.patch_status(name(&pod.metadata), &PatchParams::default(), &Patch::Merge(patch)).await;
            gone_is_fine(patched).during("mark as not ready pod", name(&pod.metadata))?;
            self.recorder.event(&reference(&*pod), EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        if let Some(seen) = self.seen.lock().get_mut(key) {
            seen.pods_marked = true;
        }
        Ok(())
    }

    /// Sets and removes taints. Returns when to come back, if a NoExecute taint has to wait for its turn.
    async fn keep_taints(&self, key: &Key, node: &Node, ready: &str) -> Result<Option<Duration>> {
        let (evict, wait) = if ready == "True" || taints::has_no_execute(node) { (true, None) } else { self.may_evict(node) };
        let Some(wanted) = taints::plan(node, ready, evict, now()) else { return Ok(wait) };
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": wanted},
        });
        let api: Api<Node> = Api::all(self.client.clone());
        gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
            .during("set the taints of node", key)?;
        Ok(wait)
    }

    /// Whether it is the turn of a node of this zone, and if not, when to ask again.
    fn may_evict(&self, node: &Node) -> (bool, Option<Duration>) {
        let mut zones: HashMap<String, (usize, usize)> = HashMap::new();
        for other in self.nodes.list() {
            if map(&other.metadata.labels).contains_key("node.kubernetes.io/exclude-disruption") {
                continue;
            }
            let (ready, unready) = zones.entry(zone_of(&other)).or_default();
            if ready_status(&other) == Some("True") { *ready += 1 } else { *unready += 1 }
        }
        let state = |counts: &(usize, usize)| health::zone_state(counts.0, counts.1);
        if zones.values().all(|counts| state(counts) == ZoneState::FullDisruption) {
            // Everything is down: nothing would be won, and it may be the network of this machine. A node that comes
            // back changes this.
            return (false, Some(EVICTION_PAUSE));
        }
        let zone = zone_of(node);
        let counts = zones.get(&zone).copied().unwrap_or_default();
        let pause = match state(&counts) {
            ZoneState::Normal | ZoneState::FullDisruption => EVICTION_PAUSE,
            ZoneState::PartialDisruption if counts.0 + counts.1 > LARGE_ZONE => SECONDARY_PAUSE,
            ZoneState::PartialDisruption => return (false, Some(EVICTION_PAUSE)),
        };
        let mut next = self.next_eviction.lock();
        let now = Instant::now();
        match next.get(&zone) {
            Some(at) if *at > now => (false, Some(*at - now)),
            _ => {
                next.insert(zone, now + pause);
                (true, None)
            }
        }
    }
}

fn is_relevant(old: &Node, new: &Node) -> bool {
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    health::statuses(old) != health::statuses(new) || spec(old) != spec(new) || zone_of(old) != zone_of(new)
}

/// Events about nodes name the node as UID, as kubelet's do, so that `kubectl describe node` finds them.
fn node_reference(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn replaced(pod: &Pod, condition: serde_json::Value) -> Vec<serde_json::Value> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let others = conditions.filter(|other| other.type_ != "Ready").map(|other| json!(other));
    others.chain([condition]).collect()
}
