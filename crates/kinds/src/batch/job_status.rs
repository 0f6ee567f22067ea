//! What a job's status may say, and how it may change (KEP-3998: terminal conditions are final and complete).

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::job::{count_indexes, invalid_omitted};
use crate::check;
use crate::doc::Read;

/// Whether a condition is `True`.
pub(super) fn is_true(status: &Value, kind: &str) -> bool {
    status.list("conditions").iter().any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}

/// Faults of a change to the status. Each rule holds only for what the change itself does.
pub(super) fn update(job: &Value, old: &Value) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("status");
    let (status, before) = (&job["status"], &old["status"]);
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        check::field_not_negative(&mut faults, &path, status, key);
    }
    uncounted(&mut faults, &path.child("uncountedTerminatedPods"), &status["uncountedTerminatedPods"]);
    // A job that was finished already may be as odd as it was.
    let turned = |kind: &str| is_true(status, kind) && !is_true(before, kind);
    let complete = is_true(status, "Complete");
    let failed = is_true(status, "Failed");
    let finished_now = turned("Complete") || turned("Failed");
    let conditions = path.child("conditions");
    let completion = path.child("completionTime");
    if complete && failed && finished_now {
        invalid_omitted(&mut faults, &conditions, "cannot set Complete=True and Failed=true conditions");
    }
    if complete && is_true(status, "FailureTarget") && (turned("Complete") || turned("FailureTarget")) {
        invalid_omitted(&mut faults, &conditions, "cannot set Complete=True and FailureTarget=true conditions");
    }
    if status["completionTime"] != before["completionTime"] && status.has("completionTime") && !complete {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        faults.invalid(&completion, &status["completionTime"], detail);
    }
    if turned("Complete") && !status.has("completionTime") {
        faults.required(&completion, "completionTime is required for Complete jobs");
    }
    if let (Some(start), Some(end)) = (status.opt_text("startTime"), status.opt_text("completionTime"))
        && end < start
    {
        faults.invalid_str(&completion, end, "completionTime cannot be set before startTime");
    }
    if turned("Failed") && !is_true(status, "FailureTarget") {
        let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
        invalid_omitted(&mut faults, &conditions, detail);
    }
    if turned("Complete") && !is_true(status, "SuccessCriteriaMet") {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        invalid_omitted(&mut faults, &conditions, detail);
    }
    if finished_now {
        if status.int("active") > 0 {
            faults.invalid_int(&path.child("active"), status.int("active"), "active>0 is invalid for finished job");
        }
        if !status.has("startTime") {
            faults.required(&path.child("startTime"), "startTime is required for finished job");
        }
        let pods = &status["uncountedTerminatedPods"];
        if !pods.list("succeeded").is_empty() || !pods.list("failed").is_empty() {
            let detail = "uncountedTerminatedPods needs to be empty for finished job";
            invalid_omitted(&mut faults, &path.child("uncountedTerminatedPods"), detail);
        }
    }
    indexes(&mut faults, &path, &job["spec"], status, before);
    transitions(&mut faults, &path, &job["spec"], status, before);
    faults
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

fn indexes(faults: &mut Faults, path: &Path<'_>, spec: &Value, status: &Value, before: &Value) {
    let indexed = spec.text("completionMode") == "Indexed";
    for key in ["completedIndexes", "failedIndexes"] {
        let text = status.text(key);
        if status[key] == before[key] || text.is_empty() {
            continue;
        }
        let at = path.child(key);
        if !indexed {
            faults.invalid_str(&at, text, &format!("cannot set non-empty {key} when non-indexed completion mode"));
        } else if key == "failedIndexes" && !spec.has("backoffLimitPerIndex") {
            faults.invalid_str(&at, text, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
        } else if let Err(why) = count_indexes(text, spec.int("completions")) {
            faults.invalid_str(&at, text, &format!("error parsing {key}: {why}"));
        }
    }
}

fn transitions(faults: &mut Faults, path: &Path<'_>, spec: &Value, status: &Value, before: &Value) {
    for kind in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
        if is_true(before, kind) && !is_true(status, kind) {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            invalid_omitted(faults, &path.child("conditions"), &detail);
        }
    }
    for key in ["failed", "succeeded"] {
        if status.int(key) < before.int(key) {
            faults.invalid_int(&path.child(key), status.int(key), &format!("cannot decrease the {key} counter"));
        }
    }
    if status.int("ready") > status.int("active") && status["ready"] != before["ready"] {
        faults.invalid_int(&path.child("ready"), status.int("ready"), "cannot set more ready pods than active");
    }
    if before.has("startTime") && status["startTime"] != before["startTime"] && !spec.flag("suspend") {
        let detail = "field is immutable for unsuspended job once set";
        faults.invalid(&path.child("startTime"), &status["startTime"], detail);
    }
    if before.has("completionTime") && status["completionTime"] != before["completionTime"] {
        faults.invalid(&path.child("completionTime"), &status["completionTime"], "field is immutable");
    }
}
