//! The status of PodDisruptionBudgets: how many of their pods may be evicted now. The eviction API takes from it.

use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::PostParams;

use crate::clock::{elapsed, now, whole_seconds};
use crate::context::{Context, synced};
use crate::deployment::rollout::scaled;
use crate::error::{During, Result, gone_is_fine};
use crate::meta::{controller_of, is_deleting, map, namespace, reference};
use crate::pods::{is_ready, is_terminal};
use crate::selector::selects;

/// An eviction that was granted is believed for so long, until the pod shows that it is being deleted.
const GRANTED: Duration = Duration::from_secs(120);

struct Disruption {
    client: Client,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    stateful: Informer<StatefulSet>,
    replication: Informer<ReplicationController>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Disruption {
        client: ctx.client.clone(),
        budgets: ctx.informers.of(),
        pods: ctx.informers.of(),
        deployments: ctx.informers.of(),
        sets: ctx.informers.of(),
        stateful: ctx.informers.of(),
        replication: ctx.informers.of(),
        recorder: ctx.recorder("controllermanager"),
    });
    controller.budgets.on_change({
        let queue = queue.clone();
        move |change: &Change<PodDisruptionBudget>| queue.add(Key::of(&**change.object()))
    });
    controller.pods.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Pod>| {
            let pod = change.object();
            for budget in controller.budgets.list_in(namespace(&pod.metadata)) {
                if is_covered(&budget, pod) || change.old().is_some_and(|old| is_covered(&budget, old)) {
                    queue.add(Key::of(&*budget));
                }
            }
        }
    });
    let first = synced!(controller.budgets, controller.pods, controller.deployments);
    let second = synced!(controller.sets, controller.stateful, controller.replication);
    let synced = async move {
        first.await;
        second.await;
    };
    ctx.run("disruption", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

fn is_covered(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    // An absent selector covers nothing, an empty one everything (policy/v1).
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selects(selector, map(&pod.metadata.labels)))
}

/// A selector as Go prints it.
fn go_selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions = selector.match_expressions.iter().flatten().map(|wanted| {
        let values = wanted.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", wanted.key, wanted.operator)
    });
    let expressions: String = expressions.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

impl Disruption {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Requeue::OnChange) };
        let pods: Vec<Arc<Pod>> =
            self.pods.list_in(&key.namespace).into_iter().filter(|pod| is_covered(&budget, pod) && !is_terminal(pod)).collect();
        if pods.is_empty() {
            self.recorder.event(&reference(&*budget), EventType::Normal, "NoPods", "No matching pods found");
        }
        let expected = self.expected(&budget, &pods);
        match &expected {
            Err(why) => {
                let text = format!("Failed to calculate the number of expected pods: {why}");
                self.recorder.event(&reference(&*budget), EventType::Warning, "CalculateExpectedPodCountFailed", text);
            }
            Ok((_, true)) => {
                let selector = go_selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()));
                let text = format!(
                    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of \
                     the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
                     \".spec.minAvailable\" field of the PDB to an integer value."
                );
                self.recorder.event(&reference(&*budget), EventType::Warning, "UnmanagedPods", text);
            }
            Ok(_) => {}
        }
        let expected = expected.map(|(count, _)| count);
        let (status, again) = plan(&budget, &pods, expected, now());
        if Some(&status) != budget.status.as_ref() {
            let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
            let next = PodDisruptionBudget { status: Some(status), ..PodDisruptionBudget::clone(&budget) };
            let written = api.replace_status(&key.name, &PostParams::default(), &next).await;
            gone_is_fine(written).during("update the status of pod disruption budget", key)?;
        }
        Ok(again.map_or(Requeue::OnChange, Requeue::After))
    }

    /// How many pods there should be: the sum over the owners of the pods; and whether some have no owner, which are left
    /// out. Err is why that is not known.
    fn expected(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> std::result::Result<(i32, bool), String> {
        let spec = budget.spec.clone().unwrap_or_default();
        let counted = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        // A plain number that must stay needs no owner to be compared with.
        if matches!(spec.min_available, Some(IntOrString::Int(_))) {
            return Ok((counted, false));
        }
        let mut unmanaged = false;
        let mut owners: Vec<(String, i32)> = Vec::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if owners.iter().any(|(uid, _)| *uid == owner.uid) {
                continue;
            }
            let key = Key::new(namespace(&pod.metadata), &owner.name);
            let (uid, size) = self
                .size_of(&owner.kind, &key)
                .ok_or_else(|| format!("{}.{} does not implement the scale subresource", owner.kind, owner.api_version))?;
            if !owners.iter().any(|(known, _)| *known == uid) {
                owners.push((uid, size));
            }
        }
        Ok((owners.iter().map(|(_, size)| size).sum(), unmanaged))
    }

    /// UID and size of a workload; a ReplicaSet of a Deployment counts as the Deployment.
    fn size_of(&self, kind: &str, key: &Key) -> Option<(String, i32)> {
        match kind {
            "ReplicaSet" => {
                let set = self.sets.get(key)?;
                if let Some(owner) = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")
                    && let Some(deployment) = self.deployments.get(&Key::new(&key.namespace, &owner.name))
                {
                    return Some((owner.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)));
                }
                Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                let set = self.stateful.get(key)?;
                Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "ReplicationController" => {
                let controller = self.replication.get(key)?;
                Some((controller.metadata.uid.clone()?, controller.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}

fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: std::result::Result<i32, String>,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let spec = budget.spec.clone().unwrap_or_default();
    let before = budget.status.clone().unwrap_or_default();
    let mut again: Option<Duration> = None;
    let mut granted = before.disrupted_pods.clone().unwrap_or_default();
    granted.retain(|name, at| {
        let left = GRANTED.saturating_sub(elapsed(at.0, now));
        let waits =
            !left.is_zero() && pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(name) && !is_deleting(&pod.metadata));
        if waits {
            again = Some(again.map_or(left, |known| known.min(left)));
        }
        waits
    });
    let is_healthy = |pod: &&Arc<Pod>| {
        is_ready(pod) && !is_deleting(&pod.metadata) && pod.metadata.name.as_ref().is_none_or(|name| !granted.contains_key(name))
    };
    let healthy = i32::try_from(pods.iter().filter(is_healthy).count()).unwrap_or(i32::MAX);
    let (desired, expected, reason, text) = match expected {
        Err(why) => (before.desired_healthy.unwrap_or(0), before.expected_pods.unwrap_or(0), "SyncFailed", why),
        Ok(expected) => {
            let desired = match (&spec.max_unavailable, &spec.min_available) {
                (Some(unavailable), _) => (expected - scaled(Some(unavailable), expected, true)).max(0),
                (None, Some(available)) => scaled(Some(available), expected, true),
                (None, None) => 0,
            };
            let allowed = expected > 0 && healthy > desired;
            (desired, expected, if allowed { "SufficientPods" } else { "InsufficientPods" }, String::new())
        }
    };
    let allowed = if reason == "SufficientPods" { healthy - desired } else { 0 };
    let state = if allowed > 0 { "True" } else { "False" };
    let old = before.conditions.iter().flatten().find(|condition| condition.type_ == "DisruptionAllowed");
    let condition = Condition {
        type_: "DisruptionAllowed".into(),
        status: state.into(),
        reason: reason.into(),
        message: text,
        observed_generation: budget.metadata.generation,
        last_transition_time: old
            .filter(|old| old.status == state)
            .map_or_else(|| whole_seconds(now), |old| old.last_transition_time.clone()),
    };
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        disrupted_pods: (!granted.is_empty()).then_some(granted),
        observed_generation: budget.metadata.generation,
        conditions: Some(vec![condition]),
    };
    (status, again)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::pods::tests::{at, pod};

    #[test]
    #[rustfmt::skip]
    fn how_many_may_go() {
        //    budget                           ready  expected   healthy, desired, allowed
        check(json!({"minAvailable": 2}),      3,     Ok(3),     (3, 2, 1));
        check(json!({"minAvailable": 2}),      2,     Ok(3),     (2, 2, 0));
        check(json!({"minAvailable": "50%"}),  4,     Ok(5),     (4, 3, 1)); // rounded up
        check(json!({"maxUnavailable": 1}),    5,     Ok(5),     (5, 4, 1));
        check(json!({"maxUnavailable": 1}),    4,     Ok(5),     (4, 4, 0));
        check(json!({"maxUnavailable": "30%"}), 5,    Ok(5),     (5, 3, 2));
        check(json!({"maxUnavailable": 0}),    5,     Ok(5),     (5, 5, 0));
        check(json!({"maxUnavailable": 1}),    5,     Err("?"),  (5, 0, 0));
        #[track_caller]
        fn check(spec: Value, ready: usize, expected: std::result::Result<i32, &str>, wanted: (i32, i32, i32)) {
            let budget: PodDisruptionBudget = from_value(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {}, "spec": spec})).unwrap();
            let pods: Vec<_> = (0..ready).map(|n| Arc::new(pod(&n.to_string(), json!({})))).collect();
            let (status, _) = plan(&budget, &pods, expected.map_err(str::to_owned), at(0));
            assert_eq!((status.current_healthy, status.desired_healthy, status.disruptions_allowed), (Some(wanted.0), Some(wanted.1), Some(wanted.2)));
        }
    }

    #[test]
    fn a_granted_eviction_counts_until_it_shows_or_expires() {
        let budget: PodDisruptionBudget = from_value(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {},
            "spec": {"minAvailable": 1}, "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
                "disruptedPods": {"0": at(0).to_string()}}}))
        .unwrap();
        let pods = [Arc::new(pod("0", json!({}))), Arc::new(pod("1", json!({})))];
        let (status, again) = plan(&budget, &pods, Ok(2), at(20));
        assert_eq!(
            (status.current_healthy, status.disruptions_allowed, again),
            (Some(1), Some(0), Some(Duration::from_secs(100)))
        );
        let (status, again) = plan(&budget, &pods, Ok(2), at(120));
        assert_eq!((status.current_healthy, status.disruptions_allowed, again), (Some(2), Some(1), None));
    }
}
