//! Deletes pods from nodes with NoExecute taints that they do not tolerate, at once or when their toleration runs out.
//!
//! The time runs from when the taint and the pod met, read from the objects, so a restart neither shortens nor
//! prolongs it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;

use crate::clock::{elapsed, now};
use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine};
use crate::meta::{is_deleting, name, reference};
use crate::pods::{BY_NODE, by_node, condition, disrupt, node_name};

struct Eviction {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// Pods whose toleration of a taint runs out, by UID.
    counting: Mutex<HashSet<String>>,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Eviction {
        client: ctx.client.clone(),
        nodes: ctx.informers.of(),
        pods: ctx.informers.of(),
        recorder: ctx.recorder("taint-eviction-controller"),
        counting: Mutex::default(),
    });
    controller.pods.index(BY_NODE, by_node);
    controller.nodes.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Node>| {
            let node = change.object();
            let before = change.old().map(|old| no_execute(old)).unwrap_or_default();
            if !change.is_deleted() && before != no_execute(node) {
                for pod in controller.pods.indexed(BY_NODE, name(&node.metadata)) {
                    queue.add(Key::of(&*pod));
                }
            }
        }
    });
    controller.pods.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Pod>| {
            let pod = change.object();
            let of_interest =
                |pod: &Pod| (node_name(pod).to_owned(), pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()));
            if change.is_deleted() {
                controller.counting.lock().remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
            if change.is_deleted()
                || node_name(pod).is_empty()
                || change.old().is_some_and(|old| of_interest(old) == of_interest(pod))
            {
                return;
            }
            let tainted = controller.nodes.get(&Key::cluster(node_name(pod))).is_some_and(|node| !no_execute(&node).is_empty());
            // Before the nodes are known, everything is looked at.
            if tainted || !controller.nodes.is_synced() {
                queue.add(Key::of(&**pod));
            }
        }
    });
    let synced = synced!(controller.nodes, controller.pods);
    ctx.run("tainteviction", 8, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Eviction {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(pod) = self.pods.get(key).filter(|pod| !is_deleting(&pod.metadata)) else { return Ok(Requeue::OnChange) };
        let Some(node) = self.nodes.get(&Key::cluster(node_name(&pod))) else { return Ok(Requeue::OnChange) };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match plan(&no_execute(&node), &pod, now()) {
            Plan::Stay => {
                if self.counting.lock().remove(&uid) {
                    let text = format!("Cancelling deletion of Pod {key}");
                    self.recorder.event(&reference(&*pod), EventType::Normal, "TaintManagerEviction", text);
                }
                Ok(Requeue::OnChange)
            }
            Plan::StayFor(time) => {
                self.counting.lock().insert(uid);
                Ok(Requeue::After(time))
            }
            Plan::Go => {
                self.counting.lock().remove(&uid);
                let text = format!("Marking for deletion Pod {key}");
                self.recorder.event(&reference(&*pod), EventType::Normal, "TaintManagerEviction", text);
                let reason = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
                disrupt(&self.client, &pod, reason, false).await?;
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
                let this = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                gone_is_fine(api.delete(&key.name, &DeleteParams::default().preconditions(this)).await)
                    .during("evict pod", key)?;
                Ok(Requeue::OnChange)
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Plan {
    Stay,
    StayFor(Duration),
    Go,
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

fn plan(taints: &[Taint], pod: &Pod, now: Timestamp) -> Plan {
    let tolerations: &[Toleration] = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let arrived = condition(pod, "PodScheduled").and_then(|scheduled| scheduled.last_transition_time.as_ref());
    let arrived = arrived.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0);
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if matching.peek().is_none() {
            return Plan::Go;
        }
        let seconds = matching.filter_map(|toleration| toleration.toleration_seconds).min();
        let Some(seconds) = seconds else { continue };
        let met = taint.time_added.as_ref().map(|time| time.0).max(arrived).unwrap_or(now);
        let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let left = limit.saturating_sub(elapsed(met, now));
        shortest = Some(shortest.map_or(left, |known| known.min(left)));
    }
    match shortest {
        None => Plan::Stay,
        Some(Duration::ZERO) => Plan::Go,
        Some(left) => Plan::StayFor(left),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    let same = |text: &Option<String>, other: &str| text.as_deref() == Some(other);
    (empty(&toleration.effect) || same(&toleration.effect, &taint.effect))
        && (empty(&toleration.key) || same(&toleration.key, &taint.key))
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => {
                !empty(&toleration.key)
                    && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
            Some(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::pods::tests::{at, pod};

    #[test]
    #[rustfmt::skip]
    fn pods_go_when_their_toleration_ends() {
        let secs = |secs| Plan::StayFor(Duration::from_secs(secs));
        let for_300 = json!([{"key": "down", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
        //    tolerations                                                now   expected
        check(json!([]),                                                 100,  Plan::Go);
        check(json!([{"operator": "Exists"}]),                           9999, Plan::Stay);
        check(for_300.clone(),                                           150,  secs(250));  // the taint is from second 100
        check(for_300,                                                   400,  Plan::Go);
        check(json!([{"key": "down", "value": "x"}]),                    100,  Plan::Go);
        check(json!([{"key": "down", "operator": "Equal", "value": ""}]), 100, Plan::Stay);
        check(json!([{"key": "down", "operator": "Exists", "effect": "NoSchedule"}]), 100, Plan::Go);
        check(json!([{"key": "down", "operator": "Exists", "tolerationSeconds": -1}]), 100, Plan::Go);
        #[track_caller]
        fn check(tolerations: Value, now: i64, expected: Plan) {
            let taint: Taint = from_value(json!({"key": "down", "effect": "NoExecute", "timeAdded": at(100).to_string()})).unwrap();
            assert_eq!(plan(&[taint], &pod("a", json!({"spec": {"tolerations": tolerations}})), at(now)), expected);
        }
    }
}
