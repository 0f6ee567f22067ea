//! `eviction`: a deletion that asks the PodDisruptionBudgets first (KEP-85). Refused evictions are 429, to be tried again.

use std::sync::Arc;

use http::header;
use serde_json::{Value, json};

use corten_api::selector::LabelSelector;
use corten_api::status::{Cause, Details, Status};

use super::super::codec::{self, Expected};
use super::super::delete;
use super::super::options::{DeleteOptions, WriteOptions};
use super::super::read;
use super::super::target::Target;
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
    let expected = Expected { group: "policy", version: "v1", kind: "Eviction", type_name: "policy.v1.Eviction" };
    let mut eviction = codec::decode_as(&mut writing, &expected, call.header(header::CONTENT_TYPE), &body)?;
    let name = call.info().name.clone();
    if meta_text(&eviction, "name") != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut deletion = DeleteOptions::from_document(eviction["deleteOptions"].clone())?;
    let inside: Vec<&str> =
        eviction["deleteOptions"]["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let outside: Vec<&str> = call.query.all("dryRun").collect();
    if !inside.is_empty() && !outside.is_empty() && inside != outside {
        let (outside, inside) = (outside.join(" "), inside.join(" "));
        let why = format!("Non-matching dry-run flags in request and content: [{outside}] and [{inside}]");
        return Err(Status::failure(500, "", why));
    }
    deletion.dry_run |= writing.options.dry_run;
    writing.options.dry_run = deletion.dry_run;
    state.caches.catch_up().await;
    let pod = writing.cached(&name)?.ok_or_else(|| target.not_found(&name))?.decode();
    writing.mutate(Operation::Create, &name, &mut eviction, None).await?;
    let admitted = writing.judge(Operation::Create, &name, Some(&mut eviction), None).await?;

    if !ignores_budgets(&pod) {
        ask_budget(state, &writing, &admitted, &pod).await?;
        if deletion.resource_version.is_none() && !is_ready(&pod) {
            // What the budget allowed was the eviction of this state of the pod.
            deletion.resource_version = Some(meta_text(&pod, "resourceVersion").to_owned());
        }
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

/// Takes one disruption from the budget of the pod, if it has one.
async fn ask_budget(
    state: &Arc<State>,
    writing: &Writing<'_>,
    admitted: &crate::proof::Admitted,
    pod: &Value,
) -> Result<(), Status> {
    let budgets = Target::stored_as(state, "policy", "poddisruptionbudgets").ok_or_else(super::super::target::missing)?;
    let matching: Vec<Value> = state
        .reader
        .list("policy", "poddisruptionbudgets", &writing.namespace)
        .iter()
        .map(|entry| entry.decode())
        .filter(|budget| selects(budget, pod))
        .collect();
    let budget = match matching.as_slice() {
        [] => return Ok(()),
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
            return Ok(());
        }
    }
    let name = meta_text(budget, "name").to_owned();
    let pod_name = meta_text(pod, "name").to_owned();
    let mut taking = Writing::own(state, &budgets, writing.user, &writing.namespace);
    taking.subresource = "status".into();
    taking.options.dry_run = writing.options.dry_run;
    modify(&taking, &name, admitted, |budget| take(budget, &pod_name, taking.now)).await?;
    Ok(())
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
        let failed = budget["status"]["conditions"].as_array().and_then(|list| {
            list.iter().find(|c| c["type"] == "DisruptionAllowed" && c["status"] == "False" && c["reason"] == "SyncFailed")
        });
        let why = match failed {
            Some(condition) => {
                let message = condition["message"].as_str().unwrap_or_default();
                format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}")
            }
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number("desiredHealthy"),
                number("currentHealthy")
            ),
        };
        return Err(too_many(0, why));
    }
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if !budget["status"]["disruptedPods"].is_object() {
        budget["status"]["disruptedPods"] = json!({});
    }
    budget["status"]["disruptedPods"][pod] = stamp(now);
    Ok(())
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
