//! The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::{Wanted, replicas};
use crate::clock::{elapsed, whole_seconds};
use crate::meta::name;

pub(crate) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";

pub(crate) const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(crate) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub(crate) const PAUSED: &str = "DeploymentPaused";

/// The seconds within which a rollout has to move on, if it has to.
pub(crate) fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds.filter(|&seconds| seconds != i32::MAX)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// A condition at `now`.
pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(whole_seconds(now)),
        last_transition_time: Some(whole_seconds(now)),
    }
}

pub(crate) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Puts `new` in place of the condition of its type. Nothing happens when status and reason are the same already.
pub(crate) fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &new.type_.clone());
    status.conditions.get_or_insert_default().push(new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// The counts and the Available condition. `sets` are all sets, the new one included.
pub(crate) fn count(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let wanted = Wanted::of(deployment);
    let sum = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
        sets.iter().filter_map(|set| set.status.as_ref()).map(of).sum::<i32>()
    };
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let total: i32 = sets.iter().map(|set| replicas(set)).sum();
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(|status| status.replicas)),
        updated_replicas: Some(new.and_then(|new| new.status.as_ref()).map_or(0, |status| status.replicas)),
        ready_replicas: Some(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((total - available).max(0)),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let available = if available >= wanted.fewest_available() {
        condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into(), now)
    } else {
        condition(AVAILABLE, "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".into(), now)
    };
    set(&mut status, available);
    status
}

/// Whether all pods are of the new set, and available.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(Wanted::of(deployment).replicas);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let of = |count: Option<i32>| count.unwrap_or(0);
    let old_pods = |status: &DeploymentStatus| of(status.replicas) - of(status.updated_replicas);
    of(after.updated_replicas) > of(before.updated_replicas)
        || old_pods(after) < old_pods(before)
        || of(after.ready_replicas) > of(before.ready_replicas)
        || of(after.available_replicas) > of(before.available_replicas)
}

/// The status during a rollout: the counts, plus how it comes along.
pub(crate) fn rollout(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = count(deployment, sets, new, now);
    let before = deployment.status.clone().unwrap_or_default();
    let current = find(&before, PROGRESSING);
    let subject = new.map_or_else(
        || format!("Deployment {:?}", name(&deployment.metadata)),
        |new| format!("ReplicaSet {:?}", name(&new.metadata)),
    );
    // A rollout that ended well stays so; what happens to its pods later is not its business.
    let ended = status.replicas == status.updated_replicas
        && current.is_some_and(|current| current.reason.as_deref() == Some(NEW_AVAILABLE));
    match deadline(deployment) {
        None => remove(&mut status, PROGRESSING),
        Some(_) if ended => {}
        Some(_) if is_complete(deployment, &status) => {
            let message = format!("{subject} has successfully progressed.");
            set(&mut status, condition(PROGRESSING, "True", NEW_AVAILABLE, message, now));
        }
        Some(_) if has_progressed(&before, &status) => {
            let message = format!("{subject} is progressing.");
            let mut progress = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
            if let Some(current) = current.filter(|current| current.status == "True") {
                progress.last_transition_time = current.last_transition_time.clone();
            }
            // Removed first, so that the time of the update moves on and the deadline with it.
            remove(&mut status, PROGRESSING);
            set(&mut status, progress);
        }
        Some(limit) if is_timed_out(current, limit, now) => {
            let message = format!("{subject} has timed out progressing.");
            set(&mut status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
        }
        Some(_) => {}
    }
    remove(&mut status, FAILURE);
    if let Some(failure) = failure(sets, new) {
        status.conditions.get_or_insert_default().push(failure);
    }
    status
}

fn is_timed_out(progress: Option<&DeploymentCondition>, limit: Duration, now: Timestamp) -> bool {
    let Some(progress) = progress else { return false };
    match progress.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => progress.last_update_time.as_ref().is_some_and(|Time(from)| elapsed(*from, now) > limit),
    }
}

/// When to look whether the deadline has passed.
pub(crate) fn next_check(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let limit = deadline(deployment)?;
    let progress = find(status, PROGRESSING)?;
    if is_complete(deployment, status) || matches!(progress.reason.as_deref(), Some(TIMED_OUT | NEW_AVAILABLE | PAUSED)) {
        return None;
    }
    let from = progress.last_update_time.as_ref()?.0;
    // One second more, because times in the API have no fractions.
    Some(limit.saturating_sub(elapsed(from, now)) + Duration::from_secs(1))
}

fn failure(sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    let of = |set: &ReplicaSet| {
        let found = set.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == FAILURE)?;
        Some(DeploymentCondition {
            type_: FAILURE.into(),
            status: found.status.clone(),
            reason: found.reason.clone(),
            message: found.message.clone(),
            last_transition_time: found.last_transition_time.clone(),
            last_update_time: found.last_transition_time.clone(),
        })
    };
    new.and_then(of).or_else(|| sets.iter().find_map(|set| of(set)))
}

/// Whether two statuses say the same; the server drops zeros, so none is zero.
pub(crate) fn is_equal(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let plain = |status: &DeploymentStatus| {
        let zero = |count: Option<i32>| Some(count.unwrap_or(0));
        DeploymentStatus {
            replicas: zero(status.replicas),
            updated_replicas: zero(status.updated_replicas),
            ready_replicas: zero(status.ready_replicas),
            available_replicas: zero(status.available_replicas),
            unavailable_replicas: zero(status.unavailable_replicas),
            terminating_replicas: zero(status.terminating_replicas),
            conditions: Some(status.conditions.clone().unwrap_or_default()),
            ..status.clone()
        }
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::pods::tests::at;

    fn deployment(status: serde_json::Value) -> Deployment {
        from_value(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "generation": 1},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}}, "status": status}))
        .unwrap()
    }

    fn set_of(name: &str, available: i32) -> Arc<ReplicaSet> {
        Arc::new(
            from_value(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
                "spec": {"replicas": 2, "selector": {}},
                "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available}}))
            .unwrap(),
        )
    }

    #[test]
    fn a_rollout_progresses_completes_or_times_out() {
        let reason = |status: &DeploymentStatus| {
            find(status, PROGRESSING).and_then(|progress| progress.reason.clone()).unwrap_or_default()
        };
        let new = set_of("web-1", 0);
        let sets = [new.clone()];

        let status = rollout(&deployment(json!({})), &sets, Some(&new), at(0));
        assert_eq!(reason(&status), "ReplicaSetUpdated");
        assert_eq!(find(&status, AVAILABLE).unwrap().status, "False");
        assert_eq!(next_check(&deployment(json!({})), &status, at(10)), Some(Duration::from_secs(51)));

        // No change for a minute and a second: it is stuck, and stays so.
        let stuck = deployment(serde_json::to_value(&status).unwrap());
        assert_eq!(reason(&rollout(&stuck, &sets, Some(&new), at(60))), "ReplicaSetUpdated");
        let status = rollout(&stuck, &sets, Some(&new), at(61));
        assert_eq!(reason(&status), TIMED_OUT);
        assert_eq!(
            find(&status, PROGRESSING).unwrap().message.as_deref(),
            Some("ReplicaSet \"web-1\" has timed out progressing.")
        );
        assert_eq!(next_check(&stuck, &status, at(61)), None);

        // Better late than never.
        let new = set_of("web-1", 2);
        let late = deployment(serde_json::to_value(&status).unwrap());
        let status = rollout(&late, std::slice::from_ref(&new), Some(&new), at(200));
        assert_eq!(reason(&status), NEW_AVAILABLE);
        assert_eq!(find(&status, AVAILABLE).unwrap().status, "True");

        // A pod that fails after the rollout does not restart its clock.
        let done = deployment(serde_json::to_value(&status).unwrap());
        let new = set_of("web-1", 1);
        assert_eq!(reason(&rollout(&done, std::slice::from_ref(&new), Some(&new), at(900))), NEW_AVAILABLE);
    }
}
