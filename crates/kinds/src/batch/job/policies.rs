//! When a Job gives up and when it is content: the policies of failure and success, and the indexes they are about.

use std::collections::HashSet;

use corten_api::field::{Faults, Path, quoted};
use serde_json::{Value, json};

use super::{falling, invalid_omitted};
use crate::check;
use crate::doc::Read;

pub(super) fn failure_policy(faults: &mut Faults, path: &Path<'_>, policy: &Value, spec: &Value) {
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let at = path.child("rules");
    let rules = policy.list("rules");
    if rules.len() > 20 {
        faults.too_many(&at, rules.len(), 20);
    }
    let pod = &spec["template"]["spec"];
    let containers: HashSet<&str> =
        pod.list("containers").iter().chain(pod.list("initContainers")).map(|container| container.text("name")).collect();
    for (i, rule) in rules.iter().enumerate() {
        let here = at.index(i);
        let action_at = here.child("action");
        match rule.text("action") {
            "" => faults.required(&action_at, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                faults.invalid_str(&action_at, "FailIndex", "requires the backoffLimitPerIndex to be set");
            }
            action => check::one_of(faults, &action_at, action, ACTIONS),
        }
        let conditions = rule.list("onPodConditions");
        if let Some(codes) = rule.opt("onExitCodes") {
            exit_codes(faults, &here.child("onExitCodes"), codes, &containers);
        }
        pod_conditions(faults, &here.child("onPodConditions"), conditions);
        match (rule.has("onExitCodes"), conditions.is_empty()) {
            (true, false) => {
                invalid_omitted(faults, &here, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => invalid_omitted(faults, &here, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

fn pod_conditions(faults: &mut Faults, path: &Path<'_>, patterns: &[Value]) {
    if patterns.len() > 20 {
        faults.too_many(path, patterns.len(), 20);
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = path.index(i);
        check::qualified_name(faults, &at.child("type"), pattern.text("type"));
        match pattern.text("status") {
            "" => faults.required(&at.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]"),
            status => check::one_of(faults, &at.child("status"), status, &["False", "True", "Unknown"]),
        }
    }
}

fn exit_codes(faults: &mut Faults, path: &Path<'_>, codes: &Value, containers: &HashSet<&str>) {
    let operator = codes.text("operator");
    match operator {
        "" => faults.required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]"),
        other => check::one_of(faults, &path.child("operator"), other, &["In", "NotIn"]),
    }
    if let Some(name) = codes.opt_text("containerName").filter(|name| !containers.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        faults.invalid_str(&path.child("containerName"), name, detail);
    }
    let at = path.child("values");
    let values: Vec<i64> = codes.list("values").iter().map(|value| value.as_i64().unwrap_or_default()).collect();
    if values.is_empty() {
        faults.invalid(&at, &codes["values"], "at least one value is required");
    } else if values.len() > 255 {
        faults.too_many(&at, values.len(), 255);
    }
    let mut seen = HashSet::new();
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            faults.invalid_int(&at.index(i), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            faults.duplicate(&at.index(i), &json!(value));
        }
    }
    if !values.is_sorted() {
        faults.invalid(&at, &codes["values"], "must be ordered");
    }
}

pub(super) fn success_policy(faults: &mut Faults, path: &Path<'_>, policy: &Value, spec: &Value) {
    let at = path.child("rules");
    let rules = policy.list("rules");
    if rules.is_empty() {
        faults.required(&at, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > 20 {
        faults.too_many(&at, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let here = at.index(i);
        let (count, indexes) = (rule.opt_int("succeededCount"), rule.opt_text("succeededIndexes"));
        if count.is_none() && indexes.is_none() {
            faults.required(&here, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            let indexes_at = here.child("succeededIndexes");
            if indexes.len() > 64 * 1024 {
                faults.too_long(&indexes_at, 64 * 1024);
            }
            match count_indexes(indexes, spec.int("completions")) {
                Ok(found) => total = found,
                Err(why) => faults.invalid_str(&indexes_at, indexes, &format!("error parsing succeededIndexes: {why}")),
            }
        }
        let Some(count) = count else { continue };
        let count_at = here.child("succeededCount");
        check::not_negative(faults, &count_at, count);
        if let Some(completions) = spec.opt_int("completions").filter(|completions| count > *completions) {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            faults.invalid_int(&count_at, count, &detail);
        }
        if indexes.is_some() && count > total {
            let detail =
                format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)");
            faults.invalid_int(&count_at, count, &detail);
        }
    }
}

/// How many indexes a list such as `0,2-4` names, all below `completions` and rising.
pub(in crate::batch) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last) = (0, None);
    for part in text.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(falling(last, first));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first and last index of `4` or `2-4`, both below `completions`.
pub(in crate::batch) fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |text: &str| -> Result<i64, String> {
        let value: i64 = text.parse().map_err(|_| format!("cannot convert string to integer for index: {}", quoted(text)))?;
        if value >= completions { Err(format!("too large index: {}", quoted(text))) } else { Ok(value) }
    };
    match text.split('-').collect::<Vec<_>>()[..] {
        [one] => number(one).map(|one| (one, one)),
        [first, end] => match (number(first)?, number(end)?) {
            (first, end) if first >= end => Err(falling(first, end)),
            both => Ok(both),
        },
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            quoted(text)
        )),
    }
}
