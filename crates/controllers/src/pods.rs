//! What controllers ask of pods: are they alive, ready, available, and which should go first.

use std::cmp::Ordering;
use std::time::Duration;

use corten_client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::clock::{elapsed, now_time};
use crate::error::{During, Result, gone_is_fine};
use crate::meta::{annotation, is_deleting, name, namespace};

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Has ended, for better or worse.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(&pod.metadata)
}

/// Being deleted and not ended yet.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && is_deleting(&pod.metadata)
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|ready| ready.status == "True")?.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether the pod has been ready for `min_ready`. Otherwise, how long it still has to be ready, if it is.
pub(crate) fn availability(pod: &Pod, min_ready: Duration, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::NotReady;
    }
    if min_ready.is_zero() {
        return Availability::Available;
    }
    let Some(since) = ready_since(pod) else { return Availability::NotReady };
    match min_ready.checked_sub(elapsed(since, now)) {
        Some(left) if !left.is_zero() => Availability::In(left),
        _ => Availability::Available,
    }
}

/// See [`availability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    NotReady,
    In(Duration),
    Available,
}

pub(crate) fn min_ready(seconds: Option<i32>) -> Duration {
    Duration::from_secs(u64::try_from(seconds.unwrap_or(0)).unwrap_or(0))
}

/// A pod made from a template for `owner`. The name is `<prefix>-` and what the server adds.
pub(crate) fn from_template(template: &PodTemplateSpec, namespace: &str, prefix: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(name_prefix(prefix)),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `name-`, or `name` when the dash would make it an invalid prefix.
fn name_prefix(name: &str) -> String {
    if name.len() < 253 { format!("{name}-") } else { name.to_owned() }
}

/// The name of the index of pods by their node, see [`by_node`].
pub(crate) const BY_NODE: &str = "node";

/// Index terms: the node, if the pod is bound.
pub(crate) fn by_node(pod: &Pod) -> Vec<String> {
    Some(node_name(pod)).filter(|node| !node.is_empty()).map(str::to_owned).into_iter().collect()
}

/// Writes on a pod why the control plane is about to delete it (condition DisruptionTarget; no reason, no condition).
/// `failed` also ends it, for pods whose kubelet will not.
pub(crate) async fn disrupt(client: &Client, pod: &Pod, (reason, text): (&str, &str), failed: bool) -> Result<()> {
    let mut conditions: Vec<PodCondition> =
        pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect();
    if !reason.is_empty() {
        conditions.retain(|condition| condition.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(text.into()),
            last_transition_time: Some(now_time()),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    let mut status = json!({"conditions": conditions});
    if failed {
        status["phase"] = json!("Failed");
    }
    let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace(&pod.metadata));
    gone_is_fine(api.patch_status(name(&pod.metadata), &PatchParams::default(), &patch).await)
        .during("update the status of pod", name(&pod.metadata))?;
    Ok(())
}

/// Which of two pods should be deleted first: `Less` is first (upstream's `ActivePodsWithRanks`). The ranks say how
/// many pods of the same service share the pod's node.
pub(crate) fn deletion_order((a, rank_a): (&Pod, usize), (b, rank_b): (&Pod, usize), now: Timestamp) -> Ordering {
    let by = |less: bool, greater: bool| match (less, greater) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => Ordering::Equal,
    };
    // Not assigned before assigned.
    by(node_name(a).is_empty(), node_name(b).is_empty())
        // Pending before unknown before running.
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        // Doubled up before alone on its node.
        .then_with(|| rank_b.cmp(&rank_a))
        // Ready for a short time before ready for long, compared on a logarithmic scale: among the young the choice is free.
        .then_with(|| if is_ready(a) && is_ready(b) { youth(ready_since(a), ready_since(b), now) } else { Ordering::Equal })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| youth(created(a), created(b), now))
        // Upstream flips a coin on the UID; so that runs can be repeated, its order decides here.
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn phase_order(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    annotation(&pod.metadata, "controller.kubernetes.io/pod-deletion-cost").and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The younger first, ages compared by their binary logarithm; an unknown time counts as the youngest.
fn youth(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |at: Option<Timestamp>| at.map(|at| elapsed(at, now).as_secs().checked_ilog2().map_or(0, |log| log + 1));
    magnitude(a).cmp(&magnitude(b))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// A running and ready pod since second 0, changed as the merge patch says.
    pub(crate) fn pod(name: &str, patch: serde_json::Value) -> Pod {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": at(0).to_string()},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(0).to_string()}]}
        });
        merge(&mut pod, &patch);
        serde_json::from_value(pod).unwrap()
    }

    pub(crate) fn merge(target: &mut serde_json::Value, patch: &serde_json::Value) {
        match (target, patch) {
            (serde_json::Value::Object(target), serde_json::Value::Object(patch)) => {
                for (name, value) in patch {
                    merge(target.entry(name.clone()).or_insert(serde_json::Value::Null), value);
                }
            }
            (target, patch) => *target = patch.clone(),
        }
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let not_ready = json!({"status": {"conditions": []}});
        // Each is to be deleted before the next.
        let order = [
            (pod("unassigned", json!({"spec": {"nodeName": ""}})), 1),
            (pod("pending", json!({"status": {"phase": "Pending", "conditions": []}})), 1),
            (pod("unknown", json!({"status": {"phase": "Unknown"}})), 1),
            (pod("not ready", not_ready), 1),
            (pod("cheap", json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}})), 1),
            (pod("doubled", json!({})), 2),
            (
                pod(
                    "just ready",
                    json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": at(990).to_string()}]}}),
                ),
                1,
            ),
            (
                pod(
                    "restarted",
                    json!({"status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]}}),
                ),
                1,
            ),
            (pod("young", json!({"metadata": {"creationTimestamp": at(900).to_string()}})), 1),
            (pod("z", json!({})), 1),
        ];
        for (n, (first, rank)) in order.iter().enumerate() {
            for (second, second_rank) in &order[n + 1..] {
                let order = deletion_order((first, *rank), (second, *second_rank), at(1000));
                let name = |pod: &Pod| pod.metadata.name.clone().unwrap();
                assert_eq!(order, Ordering::Less, "{} before {}", name(first), name(second));
            }
        }
    }

    #[test]
    fn a_pod_is_available_after_its_minimum_of_readiness() {
        let ready = pod("a", json!({}));
        let secs = Duration::from_secs;
        assert_eq!(availability(&ready, secs(0), at(0)), Availability::Available);
        assert_eq!(availability(&ready, secs(10), at(4)), Availability::In(secs(6)));
        assert_eq!(availability(&ready, secs(10), at(10)), Availability::Available);
        let broken = pod("a", json!({"status": {"conditions": []}}));
        assert_eq!(availability(&broken, secs(0), at(100)), Availability::NotReady);
    }
}
