//! What a job's status may say, and how it may change (KEP-3998: terminal conditions are final and complete).

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::job::invalid_omitted;
use super::job::policies::{count_indexes, interval};
use crate::doc::{Read, semantic_equal};
use crate::{check, internal};

/// Whether a condition is `True`.
pub(super) fn is_true(status: &Value, kind: &str) -> bool {
    is(status, kind, "True")
}

fn is(status: &Value, kind: &str, value: &str) -> bool {
    status.list("conditions").iter().any(|condition| condition.text("type") == kind && condition.text("status") == value)
}

/// Faults of a change to the status. Most rules hold only for what the change itself does, so that a job that breaks one already
/// can still be updated otherwise.
pub(super) fn update(job: &Value, old: &Value) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("status");
    let (status, before) = (&job["status"], &old["status"]);
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        check::field_not_negative(&mut faults, &path, status, key);
    }
    uncounted(&mut faults, &path.child("uncountedTerminatedPods"), &status["uncountedTerminatedPods"]);
    whole(&mut faults, &path, &job["spec"], status, before);
    indexes(&mut faults, &path, &job["spec"], status, before);
    counts(&mut faults, &path, status, before);
    success(&mut faults, &path.child("conditions"), &job["spec"], status);
    transitions(&mut faults, &path, &job["spec"], status, before);
    faults
}

fn is_finished(status: &Value) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

/// Whether a condition became true, or is no longer.
fn flipped(status: &Value, before: &Value, kind: &str) -> bool {
    is_true(status, kind) != is_true(before, kind)
}

fn differs(status: &Value, before: &Value, key: &str) -> bool {
    !semantic_equal(&status[key], &before[key])
}

fn uncounted(faults: &mut Faults, path: &Path<'_>, pods: &Value) {
    let mut seen = HashSet::new();
    for key in ["succeeded", "failed"] {
        let at = path.child(key);
        for (i, uid) in pods.texts(key).enumerate() {
            if uid.is_empty() {
                faults.invalid_str(&at.index(i), uid, "must not be empty");
            } else if !seen.insert(uid) {
                check::duplicate(faults, &at.index(i), uid);
            }
        }
    }
}

/// What a finished job's status says must be whole: conditions, times, no pods left.
fn whole(faults: &mut Faults, path: &Path<'_>, spec: &Value, status: &Value, before: &Value) {
    let (complete, failed) = (is_true(status, "Complete"), is_true(status, "Failed"));
    let complete_flipped = flipped(status, before, "Complete");
    let failed_flipped = flipped(status, before, "Failed");
    let finished = is_finished(status);
    let finished_flipped = finished != is_finished(before);
    let (start, end) = ("startTime", "completionTime");
    let (start_differs, end_differs) = (differs(status, before, start), differs(status, before, end));
    let conditions = path.child("conditions");
    let end_at = path.child(end);
    if (complete_flipped || failed_flipped) && complete && failed {
        invalid_omitted(faults, &conditions, "cannot set Complete=True and Failed=true conditions");
    }
    if (complete_flipped || flipped(status, before, "FailureTarget")) && complete && is_true(status, "FailureTarget") {
        invalid_omitted(faults, &conditions, "cannot set Complete=True and FailureTarget=true conditions");
    }
    if complete_flipped || end_differs {
        if status.has(end) && !complete {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            check::invalid_shown(faults, &end_at, &status[end].to_string(), detail);
        }
        if !status.has(end) && complete {
            faults.required(&end_at, "completionTime is required for Complete jobs");
        }
    }
    if (start_differs || end_differs)
        && let (Some(from), Some(to)) = (status.opt_text(start), status.opt_text(end))
        && to < from
    {
        check::invalid_shown(faults, &end_at, &status[end].to_string(), "must be equal to or after `startTime`");
    }
    let failed_indexes_differ = differs(status, before, "failedIndexes");
    if (failed_flipped || failed_indexes_differ) && failed && !is_true(status, "FailureTarget") {
        let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
        invalid_omitted(faults, &conditions, detail);
    }
    let met_flipped = flipped(status, before, "SuccessCriteriaMet");
    if (complete_flipped || met_flipped) && complete && !is_true(status, "SuccessCriteriaMet") {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        invalid_omitted(faults, &conditions, detail);
    }
    if !finished {
        return;
    }
    if (finished_flipped || differs(status, before, "active")) && status.int("active") > 0 {
        faults.invalid_int(&path.child("active"), status.int("active"), "active>0 is invalid for finished job");
    }
    let never_runs = spec.flag("suspend") && spec.opt_int("completions") == Some(0);
    if (finished_flipped || start_differs) && !status.has(start) && !never_runs {
        faults.required(&path.child(start), "startTime is required for finished job");
    }
    let pods = &status["uncountedTerminatedPods"];
    if (finished_flipped || differs(status, before, "uncountedTerminatedPods"))
        && !(pods.list("succeeded").is_empty() && pods.list("failed").is_empty())
    {
        let detail = "must be empty for finished job";
        let shown = internal::shown("UncountedTerminatedPods", pods);
        check::invalid_shown(faults, &path.child("uncountedTerminatedPods"), &shown, detail);
    }
}

fn indexes(faults: &mut Faults, path: &Path<'_>, spec: &Value, status: &Value, before: &Value) {
    let indexed = spec.text("completionMode") == "Indexed";
    let (completed, failed) = (status.text("completedIndexes"), status.opt_text("failedIndexes"));
    let (completed_at, failed_at) = (path.child("completedIndexes"), path.child("failedIndexes"));
    let completed_differs = completed != before.text("completedIndexes");
    let failed_differs = failed != before.opt_text("failedIndexes");
    let completions = spec.opt_int("completions");
    if completed_differs
        && let Some(completions) = completions
        && let Err(why) = count_indexes(completed, completions)
    {
        faults.invalid_str(&completed_at, completed, &format!("error parsing completedIndexes: {why}"));
    }
    if failed_differs
        && let (Some(completions), Some(failed)) = (completions.filter(|_| spec.has("backoffLimitPerIndex")), failed)
        && let Err(why) = count_indexes(failed, completions)
    {
        faults.invalid_str(&failed_at, failed, &format!("error parsing failedIndexes: {why}"));
    }
    if completed_differs && !completed.is_empty() && !indexed {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        faults.invalid_str(&completed_at, completed, detail);
    }
    let Some(failed) = failed else { return };
    if failed_differs && !spec.has("backoffLimitPerIndex") {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        faults.invalid_str(&failed_at, failed, detail);
    }
    if (failed_differs || completed_differs)
        && let Some(at) = completions.and_then(|completions| overlap(completed, failed, completions))
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {at}");
        faults.invalid_str(&failed_at, failed, &detail);
    }
}

/// The first index that both lists name; intervals that cannot be read are passed over.
fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> { text.split(',').filter_map(|part| interval(part, completions).ok()).collect() };
    let (completed, failed) = (read(completed), read(failed));
    let (mut i, mut j) = (0, 0);
    while let (Some(&(from, to)), Some(&(start, end))) = (completed.get(i), failed.get(j)) {
        if from <= end && start <= to {
            return Some(from.max(start));
        }
        if from <= start { i += 1 } else { j += 1 }
    }
    None
}

fn counts(faults: &mut Faults, path: &Path<'_>, status: &Value, before: &Value) {
    let terminating = status.int("terminating");
    if (is_finished(status) != is_finished(before) || differs(status, before, "terminating"))
        && terminating > 0
        && is_finished(status)
    {
        faults.invalid_int(&path.child("terminating"), terminating, "terminating>0 is invalid for finished job");
    }
    if (differs(status, before, "ready") || differs(status, before, "active"))
        && status.has("ready")
        && status.int("ready") > status.int("active")
    {
        faults.invalid_int(&path.child("ready"), status.int("ready"), "cannot set more ready pods than active");
    }
}

/// A job cannot have both met the criteria of its success and failed.
fn success(faults: &mut Faults, path: &Path<'_>, spec: &Value, status: &Value) {
    if is_true(status, "SuccessCriteriaMet") {
        if is_true(status, "Failed") {
            invalid_omitted(faults, path, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
        }
        if is_true(status, "FailureTarget") {
            invalid_omitted(faults, path, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
        }
    } else if spec.has("successPolicy") && is_true(status, "Complete") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        invalid_omitted(faults, path, detail);
    }
}

fn transitions(faults: &mut Faults, path: &Path<'_>, spec: &Value, status: &Value, before: &Value) {
    let conditions = path.child("conditions");
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is_true(before, kind) && !is_true(status, kind) {
            invalid_omitted(faults, &conditions, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    // Fewer successes are possible where the number of indexes can shrink.
    let elastic = spec.text("completionMode") == "Indexed" && spec["completions"] == spec["parallelism"];
    for (key, checked) in [("failed", true), ("succeeded", !elastic)] {
        if checked && status.int(key) < before.int(key) {
            faults.invalid_int(&path.child(key), status.int(key), &format!("cannot decrease the {key} counter"));
        }
    }
    let (start, end) = ("startTime", "completionTime");
    if status.has(end) && before.has(end) && status[end] != before[end] {
        check::invalid_shown(faults, &path.child(end), &status[end].to_string(), check::IMMUTABLE);
    }
    let resumes = is_true(before, "Suspended") && is(status, "Suspended", "False");
    if before.has(start) && status[start] != before[start] && !spec.flag("suspend") && !resumes {
        let detail = "field is immutable for unsuspended job once set";
        faults.invalid(&path.child(start), &status[start], detail);
    }
    let met = "SuccessCriteriaMet";
    if is_true(before, met) && !is_true(status, met) {
        invalid_omitted(faults, &conditions, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if is_true(before, "Complete") && !is_true(before, met) && is_true(status, met) {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        invalid_omitted(faults, &conditions, detail);
    }
}
