//! `eviction`: a deletion that asks the PodDisruptionBudgets first (KEP-85). Refused evictions are 429, to be tried again.

use std::sync::Arc;

use http::header;
use serde_json::{Value, json};

use corten_api::selector::LabelSelector;
use corten_api::status::{Cause, Details, Status};

use super::super::codec::{self, Expected};
use super::super::delete;
use super::super::managed;
use super::super::options::{DeleteOptions, WriteOptions};
use super::super::read;
use super::super::target::Target;
use super::super::write::check_namespace;
use super::super::write::{Writing, meta_text, stamp};
use super::{modify, set_condition, success};
use crate::admission::Operation;
use crate::negotiate::Endpoint;
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// How many evictions may wait for the disruption controller at one budget.
const MAX_DISRUPTED: usize = 2000;

/// `POST pods/NAME/eviction`
pub(crate) async fn evict(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Action)?;
    let body = call.read_body(state.config.max_request_body).await?;
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let call = &*call;
    let mut writing = Writing::of(state, target, call, options);
    // The beta of this kind is taken for as long as there are clients of it.
    let content_type = call.header(header::CONTENT_TYPE);
    let version = if codec::version_of(content_type, &body) == "policy/v1beta1" { "v1beta1" } else { "v1" };
    let expected = Expected { group: "policy", version, kind: "Eviction", type_name: "policy.v1.Eviction" };
    let mut eviction = codec::decode_as(&mut writing, &expected, content_type, &body)?;
    check_namespace(&writing, &eviction)?;
    let name = call.info().name.clone();
    if meta_text(&eviction, "name") != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    // They are judged when it comes to the deletion.
    let mut deletion = DeleteOptions::unchecked(eviction["deleteOptions"].clone());
    let inside: Vec<&str> =
        eviction["deleteOptions"]["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let outside: Vec<&str> = call.query.all("dryRun").collect();
    if !inside.is_empty() && !outside.is_empty() && inside != outside {
        let (outside, inside) = (outside.join(" "), inside.join(" "));
        let why = format!("Non-matching dry-run options in request and content: [{outside}] and [{inside}]");
        return Err(Status::failure(500, "", why));
    }
    deletion.dry_run |= writing.options.dry_run;
    writing.options.dry_run = deletion.dry_run;
    state.caches.catch_up().await;
    let pod = writing.cached(&name)?.ok_or_else(|| target.not_found(&name))?.decode();
    writing.mutate(Operation::Create, &name, &mut eviction, None).await?;
    let admitted = writing.judge(Operation::Create, &name, Some(&mut eviction), None).await?;

    let of_this_state = if ignores_budgets(&pod) {
        pod["status"]["phase"] == "Pending" && pod["metadata"]["deletionTimestamp"].is_null()
    } else {
        ask_budget(state, &writing, &admitted, &pod).await? == Allowed::AsUnhealthy
    };
    if deletion.resource_version.is_none() && of_this_state {
        // What was allowed was the eviction of this state of the pod.
        deletion.resource_version = Some(meta_text(&pod, "resourceVersion").to_owned());
    }
    if deletion.uid.is_some() || deletion.resource_version.is_some() {
        delete::meets(target, &name, &pod, &deletion)?;
    }
    if !deletion.dry_run {
        let now = writing.now;
        let condition = json!({"type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
        let marked = modify(&writing, &name, &admitted, |pod| {
            set_condition(pod, condition.clone(), now);
            Ok(())
        });
        let marked = marked.await?;
        if deletion.resource_version.is_some() {
            deletion.resource_version = Some(meta_text(&marked, "resourceVersion").to_owned());
        }
    }
    let mut deleting = Writing::of(state, target, call, WriteOptions { dry_run: deletion.dry_run, ..WriteOptions::default() });
    deleting.subresource = String::new();
    deletion.check()?;
    delete::delete_one(&mut deleting, &name, &deletion).await?;
    success(form, call)
}

/// A pod that does not run, or is going anyway, is no disruption.
fn ignores_budgets(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || !pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Why a budget lets a pod go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    /// There is none, or it allowed a disruption.
    AsDisruption,
    /// The pod is not healthy, and does not count.
    AsUnhealthy,
}

/// Takes one disruption from the budget of the pod, if it has one.
async fn ask_budget(
    state: &Arc<State>,
    writing: &Writing<'_>,
    admitted: &crate::proof::Admitted,
    pod: &Value,
) -> Result<Allowed, Status> {
    let budgets = Target::stored_as(state, "policy", "poddisruptionbudgets").ok_or_else(super::super::target::missing)?;
    let matching: Vec<Value> = state
        .reader
        .list("policy", "poddisruptionbudgets", &writing.namespace)
        .iter()
        .map(|entry| entry.decode())
        .filter(|budget| selects(budget, pod))
        .collect();
    let budget = match matching.as_slice() {
        [] => return Ok(Allowed::AsDisruption),
        [one] => one,
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::failure(500, "", why));
        }
    };
    if !is_ready(pod) {
        let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
        let healthy = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
        if budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || healthy {
            return Ok(Allowed::AsUnhealthy);
        }
    }
    let name = meta_text(budget, "name").to_owned();
    let pod_name = meta_text(pod, "name").to_owned();
    let mut taking = Writing::own(state, &budgets, writing.user, &writing.namespace);
    taking.subresource = "status".into();
    taking.options.dry_run = writing.options.dry_run;
    let taken = modify(&taking, &name, admitted, |budget| {
        let old = budget.clone();
        take(budget, &pod_name, taking.now)?;
        managed::track(&taking, Some(&old), budget)?;
        corten_schema::apply::unfold(budget);
        Ok(())
    });
    taken.await.map(|_| Allowed::AsDisruption)
}

fn selects(budget: &Value, pod: &Value) -> bool {
    // Absent selects nothing, empty everything (policy/v1).
    budget["spec"].get("selector").is_some_and(|selector| {
        LabelSelector::from_object(Some(selector)).is_ok_and(|selector| selector.matches(&pod["metadata"]["labels"]))
    })
}

/// Takes one disruption, or says why there is none.
fn take(budget: &mut Value, pod: &str, now: jiff::Timestamp) -> Result<(), Status> {
    let name = meta_text(budget, "name").to_owned();
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let forbidden = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudget", &name, why));
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(too_many(10, format!("The disruption budget {name} is still being processed by the server.")));
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(too_many(0, why_none(budget, &name)));
    }
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if allowed == 1 {
        let generation = budget["status"]["observedGeneration"].as_i64().unwrap_or(0);
        let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": generation});
        set_condition(budget, condition, now);
    }
    if !budget["status"]["disruptedPods"].is_object() {
        budget["status"]["disruptedPods"] = json!({});
    }
    budget["status"]["disruptedPods"][pod] = stamp(now);
    Ok(())
}

/// Why a budget allows no disruption. What it counts is of no use when it could not be counted.
fn why_none(budget: &Value, name: &str) -> String {
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let conditions = budget["status"]["conditions"].as_array().into_iter().flatten();
    let told = conditions
        .filter(|condition| condition["type"] == "DisruptionAllowed")
        .find(|condition| condition["status"] == "False" && !text(condition, "message").is_empty());
    let told = told.map(|condition| (text(condition, "reason"), text(condition, "message")));
    let not_now = format!("The disruption budget {name} does not allow evicting pods currently");
    let (wanted, there) = (number("desiredHealthy"), number("currentHealthy"));
    match told {
        Some((reason, message)) if reason == "SyncFailed" => format!("{not_now} because it failed sync: {message}"),
        _ if there <= wanted => format!("The disruption budget {name} needs {wanted} healthy pods and has {there} currently"),
        Some((reason, message)) => format!("{not_now} ({reason}): {message}"),
        None => not_now,
    }
}

fn too_many(seconds: i32, why: String) -> Status {
    let mut status = Status::failure(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    status.details = Some(Details {
        causes: vec![Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() }],
        retry_after_seconds: seconds,
        ..Details::default()
    });
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_budget_says_why_it_allows_nothing() {
        let condition = |reason: &str| json!([{ "type": "DisruptionAllowed", "status": "False", "reason": reason, "message": "m" }]);
        check(2, 2, json!([]), "The disruption budget b needs 2 healthy pods and has 2 currently");
        check(3, 2, json!([]), "The disruption budget b does not allow evicting pods currently");
        check(3, 2, condition("InsufficientPods"), "The disruption budget b does not allow evicting pods currently (InsufficientPods): m");
        check(2, 2, condition("InsufficientPods"), "The disruption budget b needs 2 healthy pods and has 2 currently");
        check(2, 2, condition("SyncFailed"), "The disruption budget b does not allow evicting pods currently because it failed sync: m");

        #[track_caller]
        fn check(current: i64, desired: i64, conditions: Value, expected: &str) {
            let budget = json!({ "status": { "currentHealthy": current, "desiredHealthy": desired, "conditions": conditions } });
            assert_eq!(why_none(&budget, "b"), expected);
        }
    }

    #[test]
    fn the_last_disruption_is_told_by_a_condition() {
        let mut budget = json!({ "metadata": { "name": "b", "generation": 1 }, "status": { "disruptionsAllowed": 2, "observedGeneration": 1 } });
        take(&mut budget, "p", jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert!(budget["status"]["conditions"].is_null());
        take(&mut budget, "q", jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
        assert!(take(&mut budget, "r", jiff::Timestamp::UNIX_EPOCH).is_err());
    }
}
