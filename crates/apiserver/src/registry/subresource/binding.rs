//! `binding`: gives a pod its node. Schedulers post it; nothing else may set `spec.nodeName` of a pod that exists.

use std::sync::Arc;

use http::header;
use serde_json::{Value, json};

use corten_api::field::{Faults, Path};
use corten_api::status::Status;

use super::super::codec::{self, Expected};
use super::super::options::WriteOptions;
use super::super::read;
use super::super::target::Target;
use super::super::write::check_namespace;
use super::super::write::{Writing, meta_text, metadata};
use super::{modify, set_condition, success};
use crate::admission::Operation;
use crate::negotiate::Endpoint;
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// `POST pods/NAME/binding`, and `POST bindings`, which is older and names the pod in the body.
pub(crate) async fn bind(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Action)?;
    let body = call.read_body(state.config.max_request_body).await?;
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let call = &*call;
    let pods = match target.plural() {
        "pods" => target.clone(),
        _ => Target::stored_as(state, "", "pods").ok_or_else(super::super::target::missing)?,
    };
    let mut writing = Writing::of(state, &pods, call, options);
    writing.subresource = "binding".into();
    let expected = Expected { group: "", version: "v1", kind: "Binding", type_name: "core.v1.Binding" };
    let mut binding = codec::decode_as(&mut writing, &expected, call.header(header::CONTENT_TYPE), &body)?;
    check_namespace(&writing, &binding)?;
    let is_of_pod = !call.info().name.is_empty();
    if !is_of_pod {
        // Only the newer endpoint lets a client say which pod it means.
        metadata(&mut binding).remove("uid");
    }
    let given = meta_text(&binding, "name").to_owned();
    let name = if is_of_pod { call.info().name.clone() } else { given.clone() };
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    if given != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let faults = validate(&binding);
    if !faults.is_empty() {
        return Err(Status::failure(500, "", faults.aggregate()));
    }
    writing.mutate(Operation::Create, &name, &mut binding, None).await?;
    let admitted = writing.judge(Operation::Create, &name, Some(&mut binding), None).await?;
    state.caches.catch_up().await;
    let now = writing.now;
    let dry_run = writing.options.dry_run;
    modify(&writing, &name, &admitted, |pod| assign(pod, &binding, now, dry_run)).await?;
    success(form, call)
}

fn validate(binding: &Value) -> Faults {
    let mut faults = Faults::default();
    let target = Path::new("target");
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        faults.not_supported(&target.child("kind"), kind, &["Node", "<empty>"]);
    }
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        faults.required(&target.child("name"), "");
    }
    faults
}

/// Writes the node into the pod, if it may have one.
fn assign(pod: &mut Value, binding: &Value, now: jiff::Timestamp, dry_run: bool) -> Result<(), Status> {
    let name = meta_text(pod, "name").to_owned();
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", &name, &why));
    for (field, shown) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, there) = (meta_text(binding, field), meta_text(pod, field));
        if !wanted.is_empty() && wanted != there {
            // A trial does not reach the layer that adds the prefix.
            let prefix = if dry_run { "" } else { "/registry" };
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {prefix}/pods/{}/{name}, ResourceVersion: 0, AdditionalErrorMsg: \
                 Precondition failed: {shown} in precondition: {wanted}, {shown} in object meta: {there}",
                meta_text(pod, "namespace")
            );
            return Err(Status::conflict("", "pods", &name, &why));
        }
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    // Where the scheduler had it in mind to go is of no use now.
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    for field in ["annotations", "labels"] {
        let Some(more) = binding["metadata"][field].as_object().filter(|more| !more.is_empty()) else {
            continue;
        };
        let place = metadata(pod).entry(field).or_insert_with(|| json!({}));
        for (key, value) in more {
            place[key.as_str()] = value.clone();
        }
    }
    set_condition(pod, json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null}), now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({ "metadata": { "name": "p", "namespace": "n", "uid": "1", "resourceVersion": "7" }, "spec": {}, "status": { "nominatedNodeName": "m" } })
    }

    #[test]
    fn a_binding_names_the_state_it_means() {
        let binding = |field: &str, value: &str| json!({ "metadata": { field: value }, "target": { "name": "n" } });
        for (field, value, fits) in
            [("uid", "1", true), ("uid", "2", false), ("resourceVersion", "7", true), ("resourceVersion", "8", false)]
        {
            let outcome = assign(&mut pod(), &binding(field, value), jiff::Timestamp::UNIX_EPOCH, false);
            assert_eq!(
                outcome.map_err(|status| status.reason),
                if fits { Ok(()) } else { Err("Conflict".into()) },
                "{field} {value}"
            );
        }
    }

    #[test]
    fn labels_and_annotations_go_along_and_the_nomination_ends() {
        let mut pod = pod();
        let metadata = json!({ "labels": { "x": "y" }, "annotations": { "a": "b" } });
        assign(&mut pod, &json!({ "metadata": metadata, "target": { "name": "$(A)" } }), jiff::Timestamp::UNIX_EPOCH, false)
            .unwrap();
        assert_eq!(pod["spec"]["nodeName"], "$(A)");
        assert_eq!((&pod["metadata"]["labels"], &pod["metadata"]["annotations"]), (&json!({ "x": "y" }), &json!({ "a": "b" })));
        assert!(pod["status"].get("nominatedNodeName").is_none());
    }
}
