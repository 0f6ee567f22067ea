//! The next steps of a StatefulSet, and its status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::ordinal;
use crate::history::HASH_LABEL;
use crate::meta::{is_deleting, label};
use crate::pods::{Availability, availability, is_ready, is_terminal, min_ready};

/// Names of the revisions of old and of updated pods.
#[derive(Clone, Debug)]
pub(super) struct Revisions {
    pub(super) current: String,
    pub(super) update: String,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Create { ordinal: u32, update: bool, revision: String },
    Delete(Arc<Pod>),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) status: StatefulSetStatus,
    /// When a pod may have become available.
    pub(super) again: Option<Duration>,
}

pub(super) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], revisions: &Revisions, now: Timestamp) -> Plan {
    let spec = set.spec.clone().unwrap_or_default();
    let first =
        spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).and_then(|start| u32::try_from(start).ok()).unwrap_or(0);
    let wanted = first..first + u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let ready_time = min_ready(spec.min_ready_seconds);
    let by_ordinal: BTreeMap<u32, &Arc<Pod>> = pods.iter().filter_map(|pod| Some((ordinal(set, pod)?, pod))).collect();
    let again = pods.iter().filter_map(|pod| match availability(pod, ready_time, now) {
        Availability::In(left) => Some(left),
        _ => None,
    });
    let mut plan = Plan { steps: Vec::new(), status: status(set, pods, revisions, ready_time, now), again: again.min() };

    let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
    let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    let update = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let partition = update.and_then(|update| update.partition).and_then(|partition| u32::try_from(partition).ok()).unwrap_or(0);
    let is_available = |pod: &Pod| availability(pod, ready_time, now) == Availability::Available && !is_deleting(&pod.metadata);

    // 1. From the lowest up: every number has a pod that runs.
    for n in wanted.clone() {
        match by_ordinal.get(&n) {
            None => {
                // Below the partition a lost pod comes back as it was.
                let update = !rolling || n >= partition;
                let revision = if update { &revisions.update } else { &revisions.current };
                plan.steps.push(Step::Create { ordinal: n, update, revision: revision.clone() });
                if !parallel {
                    return plan;
                }
            }
            Some(pod) if is_terminal(pod) && !is_deleting(&pod.metadata) => {
                // Its number is needed again.
                plan.steps.push(Step::Delete((*pod).clone()));
                if !parallel {
                    return plan;
                }
            }
            Some(pod) if !parallel && !is_available(pod) => {
                return plan_broken(plan, &by_ordinal, wanted, rolling, partition, revisions, &is_available);
            }
            Some(_) => {}
        }
    }
    // 2. From the highest down: numbers that are no longer wanted go.
    let condemned: Vec<&&Arc<Pod>> = by_ordinal.iter().rev().filter(|(n, _)| !wanted.contains(n)).map(|(_, pod)| pod).collect();
    // In order, one that is not available stops it, unless it is the only one: it may be what the others wait for.
    let broken = condemned.iter().rev().find(|pod| !is_available(pod)).map(|pod| &pod.metadata.name);
    for pod in &condemned {
        if is_deleting(&pod.metadata) {
            if !parallel {
                return plan;
            }
            continue;
        }
        if !parallel && !is_available(pod) && broken != Some(&pod.metadata.name) {
            return plan;
        }
        plan.steps.push(Step::Delete(Arc::clone(pod)));
        if !parallel {
            return plan;
        }
    }
    if rolling && plan.steps.is_empty() {
        roll(&mut plan, &by_ordinal, wanted, partition, revisions, &is_available);
    }
    plan
}

/// A pod that is not available stops everything under OrderedReady; an update goes on all the same, so that a broken
/// revision can be replaced by a better one (only pods of another revision are replaced, from the top).
fn plan_broken(
    mut plan: Plan,
    pods: &BTreeMap<u32, &Arc<Pod>>,
    wanted: std::ops::Range<u32>,
    rolling: bool,
    partition: u32,
    revisions: &Revisions,
    is_available: &impl Fn(&Pod) -> bool,
) -> Plan {
    // All numbers must have a pod, as in a full pass.
    if rolling && wanted.clone().all(|n| pods.contains_key(&n)) {
        let broken = wanted.clone().rev().filter(|n| *n >= partition).find_map(|n| pods.get(&n).filter(|pod| !is_available(pod)));
        if let Some(broken) = broken
            && label(&broken.metadata, HASH_LABEL) == Some(&revisions.update)
        {
            return plan;
        }
        roll(&mut plan, pods, wanted, partition, revisions, is_available);
    }
    plan
}

/// 3. Replaces the highest pod that is not of the update revision, if all above it are available.
fn roll(
    plan: &mut Plan,
    pods: &BTreeMap<u32, &Arc<Pod>>,
    wanted: std::ops::Range<u32>,
    partition: u32,
    revisions: &Revisions,
    is_available: &impl Fn(&Pod) -> bool,
) {
    for n in wanted.rev().filter(|n| *n >= partition) {
        let Some(pod) = pods.get(&n) else { return };
        if is_deleting(&pod.metadata) {
            return;
        }
        if label(&pod.metadata, HASH_LABEL) != Some(&revisions.update) {
            plan.steps.push(Step::Delete((*pod).clone()));
            return;
        }
        if !is_available(pod) {
            return;
        }
    }
}

fn status(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    revisions: &Revisions,
    ready_time: Duration,
    now: Timestamp,
) -> StatefulSetStatus {
    let count = |of: &dyn Fn(&Pod) -> bool| i32::try_from(pods.iter().filter(|pod| of(pod)).count()).unwrap_or(i32::MAX);
    let is_of = |pod: &Pod, revision: &str| label(&pod.metadata, HASH_LABEL) == Some(revision) && !is_deleting(&pod.metadata);
    let before = set.status.clone().unwrap_or_default();
    let replicas = count(&|_| true);
    let (updated, ready) = (count(&|pod| is_of(pod, &revisions.update)), count(&is_ready));
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let on_delete =
        set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref()).and_then(|strategy| strategy.type_.as_deref())
            == Some("OnDelete");
    // The update is over: from now on it is what the set is.
    let is_over = !on_delete && updated == wanted && replicas == wanted && ready == wanted;
    let current_revision = if is_over { &revisions.update } else { &revisions.current };
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: Some(ready),
        available_replicas: Some(count(&|pod| availability(pod, ready_time, now) == Availability::Available)),
        current_replicas: Some(count(&|pod| is_of(pod, current_revision))),
        updated_replicas: Some(updated),
        current_revision: Some(current_revision.clone()),
        update_revision: Some(revisions.update.clone()),
        collision_count: before.collision_count.or(Some(0)),
        conditions: before.conditions,
    }
}

/// Whether two statuses say the same; the server drops zeros, so none is zero.
pub(super) fn is_equal(a: &StatefulSetStatus, b: &StatefulSetStatus) -> bool {
    let zero = |count: Option<i32>| Some(count.unwrap_or(0));
    let plain = |status: &StatefulSetStatus| StatefulSetStatus {
        ready_replicas: zero(status.ready_replicas),
        available_replicas: zero(status.available_replicas),
        current_replicas: zero(status.current_replicas),
        updated_replicas: zero(status.updated_replicas),
        collision_count: zero(status.collision_count),
        ..status.clone()
    };
    plain(a) == plain(b)
}
