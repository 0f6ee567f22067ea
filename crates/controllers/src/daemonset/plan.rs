//! What each node needs of a DaemonSet, and the set's status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fit::{on_node, target};
use crate::deployment::rollout::scaled;
use crate::history::HASH_LABEL;
use crate::meta::{is_deleting, label, name};
use crate::pods::{Availability, availability, is_ready, min_ready, phase};

/// Pods created or deleted in one run at most.
const BURST: usize = 250;

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Names of nodes that need a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Doomed>,
    pub(super) status: DaemonSetStatus,
    /// When a pod may have become available.
    pub(super) again: Option<Duration>,
}

/// A pod to delete.
#[derive(Clone, Debug)]
pub(super) struct Doomed {
    pub(super) pod: Arc<Pod>,
    /// Because it has failed.
    pub(super) failed: bool,
}

pub(super) fn plan(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], hash: &str, now: Timestamp) -> Plan {
    let mut on: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        on.entry(target(pod).unwrap_or_default()).or_default().push(pod);
    }
    let mut plan = Plan { status: count(set, nodes, &on, hash, now), ..Plan::default() };
    let ready_time = min_ready(set.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    for pod in pods {
        if let Availability::In(left) = availability(pod, ready_time, now) {
            plan.again = Some(plan.again.map_or(left, |known| known.min(left)));
        }
    }
    let limits = Limits::of(set, plan.status.desired_number_scheduled);
    for node in nodes {
        let (should_run, may_stay) = on_node(set, node);
        let here = on.remove(name(&node.metadata)).unwrap_or_default();
        place(should_run, may_stay, name(&node.metadata), &here, limits.surge > 0, hash, ready_time, now, &mut plan);
    }
    // What is left is on nodes that are gone; the pod garbage collector sees to bound ones, these are not bound.
    for pod in on.into_values().flatten().filter(|pod| crate::pods::node_name(pod).is_empty() && !is_deleting(&pod.metadata)) {
        plan.delete.push(Doomed { pod: (*pod).clone(), failed: false });
    }
    if limits.rolling {
        update(set, nodes, pods, hash, &limits, now, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

#[expect(clippy::too_many_arguments, reason = "the facts of one node, used once")]
fn place(
    should_run: bool,
    may_stay: bool,
    node: &str,
    here: &[&Arc<Pod>],
    surge: bool,
    hash: &str,
    ready_time: Duration,
    now: Timestamp,
    plan: &mut Plan,
) {
    let doom = |pod: &Arc<Pod>, failed: bool| Doomed { pod: pod.clone(), failed };
    if !may_stay {
        plan.delete.extend(here.iter().filter(|pod| !is_deleting(&pod.metadata)).map(|pod| doom(pod, false)));
        return;
    }
    let mut alive: Vec<&Arc<Pod>> = Vec::new();
    let mut leaving = false;
    for pod in here {
        if is_deleting(&pod.metadata) {
            leaving = true;
        } else if phase(pod) == "Failed" || phase(pod) == "Succeeded" {
            plan.delete.push(doom(pod, phase(pod) == "Failed"));
            leaving = true;
        } else {
            alive.push(pod);
        }
    }
    if alive.is_empty() {
        if should_run && (!leaving || surge) {
            plan.create.push(node.to_owned());
        }
        return;
    }
    // Two may be there on purpose, the old one until the new one is available.
    let (new, mut old): (Vec<_>, Vec<_>) = alive.into_iter().partition(|pod| label(&pod.metadata, HASH_LABEL) == Some(hash));
    let new_works = new.iter().any(|pod| availability(pod, ready_time, now) == Availability::Available);
    if surge && !new_works && !new.is_empty() && !old.is_empty() {
        old.truncate(1);
    } else {
        let mut both: Vec<&Arc<Pod>> = new.iter().chain(&old).copied().collect();
        if surge && new_works {
            plan.delete.extend(old.iter().map(|pod| doom(pod, false)));
            both = new;
        }
        // Of several, the one that was there first stays.
        both.sort_by_key(|pod| (!is_ready(pod), pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone()));
        plan.delete.extend(both.iter().skip(1).map(|pod| doom(pod, false)));
    }
}

/// The limits of a rolling update.
struct Limits {
    rolling: bool,
    unavailable: usize,
    surge: usize,
}

impl Limits {
    fn of(set: &DaemonSet, desired: i32) -> Self {
        let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let resolve = |value: Option<&IntOrString>, default: i32| {
            let count = value.map_or(default, |value| scaled(Some(value), desired, true));
            usize::try_from(count).unwrap_or(0)
        };
        let surge = if rolling { resolve(update.and_then(|update| update.max_surge.as_ref()), 0) } else { 0 };
        let unavailable = resolve(update.and_then(|update| update.max_unavailable.as_ref()), 1);
        // Both zero would never move.
        Self { rolling, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable }, surge }
    }
}

/// Replaces old pods, as many as may be unavailable, or adds new ones beside them, as many as may surge.
fn update(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], hash: &str, limits: &Limits, now: Timestamp, plan: &mut Plan) {
    let ready_time = min_ready(set.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    let is_doomed = |plan: &Plan, pod: &Arc<Pod>| plan.delete.iter().any(|doomed| doomed.pod.metadata.uid == pod.metadata.uid);
    let works = |pod: &Pod| availability(pod, ready_time, now) == Availability::Available;
    let (mut missing, mut surging) = (0, 0);
    let mut broken_old: Vec<Arc<Pod>> = Vec::new();
    let mut working_old: Vec<(Arc<Pod>, String)> = Vec::new();
    for node in nodes.iter().filter(|node| on_node(set, node).0) {
        let node = name(&node.metadata);
        let here: Vec<&Arc<Pod>> =
            pods.iter().filter(|pod| target(pod) == Some(node) && !is_deleting(&pod.metadata) && !is_doomed(plan, pod)).collect();
        let is_new = |pod: &&&Arc<Pod>| label(&pod.metadata, HASH_LABEL) == Some(hash);
        let new = here.iter().find(is_new);
        let old = here.iter().find(|pod| !is_new(pod));
        match (new, old) {
            (Some(_), Some(_)) => surging += 1,
            (None, Some(old)) if works(old) => working_old.push(((*old).clone(), node.to_owned())),
            (None, Some(old)) => {
                // It does not work anyway: replacing it costs nothing.
                missing += 1;
                broken_old.push((*old).clone());
            }
            (Some(new), None) => missing += usize::from(!works(new)),
            (None, None) => missing += 1,
        }
    }
    if limits.surge > 0 {
        let room = limits.surge.saturating_sub(surging);
        plan.create.extend(working_old.into_iter().take(room).map(|(_, node)| node));
        plan.delete.extend(broken_old.into_iter().map(|pod| Doomed { pod, failed: false }));
        return;
    }
    let room = limits.unavailable.saturating_sub(missing);
    let replaced = broken_old.into_iter().chain(working_old.into_iter().take(room).map(|(pod, _)| pod));
    plan.delete.extend(replaced.map(|pod| Doomed { pod, failed: false }));
}

fn count(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    on: &BTreeMap<&str, Vec<&Arc<Pod>>>,
    hash: &str,
    now: Timestamp,
) -> DaemonSetStatus {
    let ready_time = min_ready(set.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    let (mut desired, mut current, mut misplaced, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0, 0);
    for node in nodes {
        let (should_run, _) = on_node(set, node);
        let here = on.get(name(&node.metadata)).map(Vec::as_slice).unwrap_or_default();
        if !should_run {
            misplaced += i32::from(!here.is_empty());
            continue;
        }
        desired += 1;
        let mut sorted: Vec<&&Arc<Pod>> = here.iter().collect();
        sorted.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let Some(pod) = sorted.first() else { continue };
        current += 1;
        ready += i32::from(here.iter().any(|pod| is_ready(pod)));
        available += i32::from(here.iter().any(|pod| availability(pod, ready_time, now) == Availability::Available));
        updated += i32::from(label(&pod.metadata, HASH_LABEL) == Some(hash));
    }
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misplaced,
        number_ready: ready,
        updated_number_scheduled: Some(updated),
        number_available: Some(available),
        number_unavailable: Some(desired - available),
        observed_generation: set.metadata.generation,
        collision_count: set.status.as_ref().and_then(|status| status.collision_count),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

/// Whether two statuses say the same; the server drops zeros, so none is zero.
pub(super) fn is_equal(a: &DaemonSetStatus, b: &DaemonSetStatus) -> bool {
    let plain = |status: &DaemonSetStatus| DaemonSetStatus {
        updated_number_scheduled: Some(status.updated_number_scheduled.unwrap_or(0)),
        number_available: Some(status.number_available.unwrap_or(0)),
        number_unavailable: Some(status.number_unavailable.unwrap_or(0)),
        ..status.clone()
    };
    plain(a) == plain(b)
}
