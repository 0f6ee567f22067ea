//! What a Job needs next: its status, the pods to count, to create and to delete. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use corten_client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::{self, Indexes};
use super::policy::{self, Verdict};
use super::{FINALIZER, INDEX};
use crate::clock::{elapsed, whole_seconds};
use crate::meta::{annotation, has_finalizer, is_deleting, uid};
use crate::pods::{is_active, is_ready, is_terminal, phase};

/// A failed pod is replaced after 10 s, doubled with every failure in a row, at most 10 min.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(600);
/// Pods created in one run at most.
const BURST: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) status: JobStatus,
    pub(super) events: Vec<(EventType, &'static str, String)>,
    /// Pods whose finalizer can go, once the status is written.
    pub(super) release: Vec<Arc<Pod>>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// One entry a pod; the index if the job is indexed.
    pub(super) create: Vec<Option<u32>>,
    /// When to look again.
    pub(super) again: Option<Duration>,
}

pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], may_act: bool, now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let before = job.status.clone().unwrap_or_default();
    if has(&before, "Complete") || has(&before, "Failed") {
        // What ended is not counted again; its last pods are only let go.
        let release = pods.iter().filter(|pod| has_finalizer(&pod.metadata, FINALIZER)).cloned().collect();
        return Plan { status: before, release, ..Plan::default() };
    }
    let mut plan = Plan { status: before.clone(), ..Plan::default() };
    let suspended = spec.suspend == Some(true);
    if plan.status.start_time.is_none() && !suspended {
        plan.status.start_time = Some(whole_seconds(now));
    }
    let outcome = count(job, &spec, pods, &mut plan);
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let terminating = pods.iter().filter(|pod| is_deleting(&pod.metadata) && !is_terminal(pod)).count();

    let verdict = judge(job, &spec, &plan.status, &outcome, active.len(), now);
    let mut active_left = active.len();
    if let Some((kind, reason, text)) = &verdict {
        // Said first; the terminal condition follows when no pod runs any more.
        let target = if *kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
        set(&mut plan.status, target, "True", reason, text, now);
        plan.delete = active;
        active_left = 0;
        let counted = plan.release.is_empty() && plan.status.uncounted_terminated_pods.as_ref().is_none_or(is_empty);
        if plan.delete.is_empty() && terminating == 0 && counted {
            set(&mut plan.status, kind, "True", reason, text, now);
            if *kind == "Complete" {
                plan.status.completion_time = Some(whole_seconds(now));
                plan.events.push((EventType::Normal, "Completed", "Job completed".into()));
            } else {
                plan.events.push((EventType::Warning, reason_of(reason), text.clone()));
            }
        }
    } else if suspended {
        if may_act {
            plan.delete = active;
            active_left = 0;
        }
        plan.status.start_time = None;
        if set(&mut plan.status, "Suspended", "True", "JobSuspended", "Job suspended", now) {
            plan.events.push((EventType::Normal, "Suspended", "Job suspended".into()));
        }
    } else {
        if has(&plan.status, "Suspended") {
            set(&mut plan.status, "Suspended", "False", "JobResumed", "Job resumed", now);
            plan.status.start_time = Some(whole_seconds(now));
            plan.events.push((EventType::Normal, "Resumed", "Job resumed".into()));
        }
        if may_act && !is_deleting(&job.metadata) {
            scale(&spec, &active, terminating, &outcome, &mut plan, now);
            active_left = active.len() + plan.create.len() - plan.delete.len();
        }
        if let (Some(limit), Some(start)) = (spec.active_deadline_seconds, &plan.status.start_time) {
            let left = Duration::from_secs(u64::try_from(limit).unwrap_or(0)).saturating_sub(elapsed(start.0, now))
                + Duration::from_secs(1);
            plan.again = Some(plan.again.map_or(left, |known| known.min(left)));
        }
    }
    plan.status.active = some(active_left);
    plan.status.ready = Some(i32::try_from(pods.iter().filter(|pod| is_active(pod) && is_ready(pod)).count()).unwrap_or(0));
    plan.status.terminating = Some(i32::try_from(terminating).unwrap_or(0));
    plan
}

/// What the ended pods amount to.
#[derive(Debug, Default)]
struct Outcome {
    succeeded: i32,
    failed: i32,
    completed: Indexes,
    fail_job: Option<String>,
    /// Failures since the last success, and when the last of them ended.
    in_a_row: u32,
    last_failure: Option<Timestamp>,
}

/// Moves ended pods one step further: into the list of the uncounted, out of it into the totals.
fn count(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], plan: &mut Plan) -> Outcome {
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let limit = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
    let mut outcome = Outcome::default();
    let status = &mut plan.status;
    if indexed {
        outcome.completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), limit);
    }
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let mut succeeded: BTreeSet<String> = uncounted.succeeded.into_iter().flatten().collect();
    let mut failed: BTreeSet<String> = uncounted.failed.into_iter().flatten().collect();
    let held: BTreeMap<&str, &Arc<Pod>> =
        pods.iter().filter(|pod| has_finalizer(&pod.metadata, FINALIZER)).map(|pod| (uid(&pod.metadata), pod)).collect();
    // Without its finalizer a pod was counted in the list: it moves to the totals.
    let settle = |list: &mut BTreeSet<String>| {
        let all = list.len();
        list.retain(|uid| held.contains_key(uid.as_str()));
        i32::try_from(all - list.len()).unwrap_or(0)
    };
    let (new_succeeded, new_failed) = (settle(&mut succeeded), settle(&mut failed));
    status.succeeded = some_i32(status.succeeded.unwrap_or(0) + new_succeeded);
    status.failed = some_i32(status.failed.unwrap_or(0) + new_failed);

    // With a failure policy, a pod must have ended before it can be judged.
    let waits_for_end = spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed");
    for (uid, pod) in held {
        let has_succeeded = phase(pod) == "Succeeded";
        let has_failed = phase(pod) == "Failed"
            || (is_deleting(&pod.metadata) && !has_succeeded && (!waits_for_end || is_deleting(&job.metadata)));
        if has_succeeded {
            let index = indexed.then(|| index_of(pod)).flatten().filter(|&index| index < limit);
            match index {
                Some(index) => _ = outcome.completed.insert(index),
                None if indexed => {}
                None => _ = succeeded.insert(uid.to_owned()),
            }
            plan.release.push(pod.clone());
        } else if has_failed {
            match policy::judge(job, pod) {
                Verdict::Ignore => {}
                Verdict::FailJob(why) => {
                    outcome.fail_job.get_or_insert(why);
                    failed.insert(uid.to_owned());
                }
                Verdict::Count | Verdict::FailIndex => _ = failed.insert(uid.to_owned()),
            }
            plan.release.push(pod.clone());
        }
    }
    if indexed {
        status.completed_indexes = Some(indexes::format(&outcome.completed)).filter(|text| !text.is_empty());
        status.succeeded = some(outcome.completed.len());
    }
    outcome.succeeded = status.succeeded.unwrap_or(0) + i32::try_from(succeeded.len()).unwrap_or(0);
    outcome.failed = status.failed.unwrap_or(0) + i32::try_from(failed.len()).unwrap_or(0);
    let list = |set: BTreeSet<String>| (!set.is_empty()).then(|| set.into_iter().collect());
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods { succeeded: list(succeeded), failed: list(failed) });
    failures_in_a_row(pods, &mut outcome);
    outcome
}

fn failures_in_a_row(pods: &[Arc<Pod>], outcome: &mut Outcome) {
    let mut ended: Vec<(Timestamp, bool)> =
        pods.iter().filter(|pod| is_terminal(pod)).filter_map(|pod| Some((ended_at(pod)?, phase(pod) == "Failed"))).collect();
    ended.sort_by(|a, b| b.cmp(a));
    let failures = ended.iter().take_while(|(_, failed)| *failed);
    outcome.in_a_row = u32::try_from(failures.count()).unwrap_or(u32::MAX);
    outcome.last_failure = ended.first().filter(|(_, failed)| *failed).map(|(at, _)| *at);
}

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0).max().or(pod.metadata.deletion_timestamp.as_ref().map(|time| time.0)).or(pod
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0))
}

fn index_of(pod: &Pod) -> Option<u32> {
    annotation(&pod.metadata, INDEX)?.parse().ok()
}

/// Whether the job is over: the type of its terminal condition, reason and message.
fn judge(
    job: &Job,
    spec: &JobSpec,
    status: &JobStatus,
    outcome: &Outcome,
    active: usize,
    now: Timestamp,
) -> Option<(&'static str, String, String)> {
    let already =
        |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == "True");
    if let Some(target) = already("FailureTarget") {
        return Some(("Failed", target.reason.clone().unwrap_or_default(), target.message.clone().unwrap_or_default()));
    }
    if let Some(met) = already("SuccessCriteriaMet") {
        return Some(("Complete", met.reason.clone().unwrap_or_default(), met.message.clone().unwrap_or_default()));
    }
    if let Some(why) = &outcome.fail_job {
        return Some(("Failed", "PodFailurePolicy".into(), why.clone()));
    }
    let restarts_in_place = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
    let limit = spec.backoff_limit.unwrap_or(6);
    let over_limit = outcome.failed > limit && spec.backoff_limit_per_index.is_none();
    if over_limit && !(restarts_in_place && outcome.failed == 0) {
        return Some(("Failed", "BackoffLimitExceeded".into(), "Job has reached the specified backoff limit".into()));
    }
    if let (Some(limit), Some(start), false) = (spec.active_deadline_seconds, &status.start_time, spec.suspend == Some(true)) {
        let limit = Duration::from_secs(u64::try_from(limit).unwrap_or(0));
        if elapsed(start.0, now) >= limit && !is_deleting(&job.metadata) {
            return Some(("Failed", "DeadlineExceeded".into(), "Job was active longer than specified deadline".into()));
        }
    }
    if let Some(text) = success_policy(spec, &outcome.completed) {
        return Some(("Complete", "SuccessPolicy".into(), text));
    }
    let complete = match spec.completions {
        // A work queue: one success means that the work is done, and the others finish.
        None => outcome.succeeded > 0 && active == 0,
        Some(completions) => outcome.succeeded >= completions,
    };
    complete.then(|| ("Complete", "CompletionsReached".into(), "Reached expected number of succeeded pods".into()))
}

fn success_policy(spec: &JobSpec, completed: &Indexes) -> Option<String> {
    let limit = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    let mut matched = rules.enumerate().filter(|(_, rule)| {
        let wanted = rule.succeeded_indexes.as_deref().map(|text| indexes::parse(text, limit));
        let done = wanted.as_ref().map_or(completed.len(), |wanted| wanted.intersection(completed).count());
        match (rule.succeeded_count, &wanted) {
            (Some(count), _) => done >= usize::try_from(count).unwrap_or(0),
            (None, Some(wanted)) => done == wanted.len(),
            (None, None) => false,
        }
    });
    matched.next().map(|(n, _)| format!("Matched rules at index {n}"))
}

/// Creates or deletes pods towards the number that should be active.
fn scale(spec: &JobSpec, active: &[Arc<Pod>], terminating: usize, outcome: &Outcome, plan: &mut Plan, now: Timestamp) {
    let size = |count: i32| usize::try_from(count).unwrap_or(0);
    let parallelism = size(spec.parallelism.unwrap_or(1));
    let wanted = match spec.completions {
        None if outcome.succeeded > 0 => active.len(),
        None => parallelism,
        Some(completions) => parallelism.min(size(completions - outcome.succeeded)),
    };
    if active.len() > wanted {
        let mut surplus: Vec<Arc<Pod>> = active.to_vec();
        surplus.sort_by(|a, b| crate::pods::deletion_order((a, 0), (b, 0), now));
        surplus.truncate(active.len() - wanted);
        plan.delete = surplus;
        return;
    }
    let waits_for_end = spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some();
    let occupied = active.len() + if waits_for_end { terminating } else { 0 };
    let missing = wanted.saturating_sub(occupied).min(BURST);
    if missing == 0 {
        return;
    }
    if let Some(last) = outcome.last_failure {
        let delay = 2u32.checked_pow(outcome.in_a_row.saturating_sub(1)).and_then(|factor| FIRST_DELAY.checked_mul(factor));
        let left = delay.map_or(LONGEST_DELAY, |delay| delay.min(LONGEST_DELAY)).saturating_sub(elapsed(last, now));
        if !left.is_zero() {
            plan.again = Some(left);
            return;
        }
    }
    plan.create = if spec.completion_mode.as_deref() == Some("Indexed") {
        let taken: Indexes = active.iter().filter_map(|pod| index_of(pod)).collect();
        let limit = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        (0..limit).filter(|index| !taken.contains(index) && !outcome.completed.contains(index)).take(missing).map(Some).collect()
    } else {
        vec![None; missing]
    };
}

fn has(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Sets a condition. Returns whether its status changed.
fn set(status: &mut JobStatus, kind: &str, value: &str, reason: &str, text: &str, now: Timestamp) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|condition| condition.type_ == kind && condition.status == value) {
        return false;
    }
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(text.into()),
        last_probe_time: Some(whole_seconds(now)),
        last_transition_time: Some(whole_seconds(now)),
    });
    true
}

fn is_empty(uncounted: &UncountedTerminatedPods) -> bool {
    uncounted.succeeded.is_none() && uncounted.failed.is_none()
}

fn some(count: usize) -> Option<i32> {
    some_i32(i32::try_from(count).unwrap_or(i32::MAX))
}

/// The server drops zeros, so none is zero.
fn some_i32(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn reason_of(reason: &str) -> &'static str {
    match reason {
        "PodFailurePolicy" => "PodFailurePolicy",
        "DeadlineExceeded" => "DeadlineExceeded",
        _ => "BackoffLimitExceeded",
    }
}
