//! `scale`: the number of replicas of anything that has one, as an `autoscaling/v1 Scale`.

use std::sync::Arc;

use http::header;
use serde_json::{Value, json};

use corten_api::field::{Faults, Path};
use corten_api::selector::{LabelSelector, SelectorError};
use corten_api::status::Status;

use super::super::codec;
use super::super::create::Ownership;
use super::super::managed::{self, AppliedScale, Configuration};
use super::super::options::WriteOptions;
use super::super::patch::{Patching, patch_kind};
use super::super::render;
use super::super::target::Target;
use super::super::update::{self, Change};
use super::super::write::{Writing, meta_text, metadata};
use super::super::{Outcome, read};
use crate::negotiate::{Endpoint, Form};
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// `GET`
pub(crate) async fn get(state: &Arc<State>, target: &Target, call: &Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Object)?;
    let entry = read::find(state, target, call).await?;
    render::shaped(target, form, 200, shown(&entry.decode())?, call)
}

/// `PUT`
pub(crate) async fn put(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Object)?;
    let body = call.read_body(state.config.max_request_body).await?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions", false)?;
    let call = &*call;
    let mut writing = Writing::of(state, target, call, options);
    let mut scale = codec::decode_body(&mut writing, call, &body)?;
    let name = call.info().name.clone();
    update::check_name(&writing, &mut scale, &name)?;
    let uid = Some(meta_text(&scale, "uid").to_owned()).filter(|uid| !uid.is_empty());
    finish(writing, target, call, form, &Replacement { scale, uid }).await
}

/// `PATCH`
pub(crate) async fn patch(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let kind = patch_kind(call.header(header::CONTENT_TYPE), target)?;
    let form = read::form(call, Endpoint::Object)?;
    let body = call.read_body(state.config.max_request_body).await?;
    let options = WriteOptions::parse(&call.query, "PatchOptions", kind.is_none())?;
    if let Some(trail) = call.trail() {
        trail.patch(&body);
    }
    let call = &*call;
    let writing = Writing::of(state, target, call, options);
    let name = call.info().name.clone();
    match kind {
        Some(kind) => {
            let patching = Patching::read(&writing, kind, &body, &name);
            finish(writing, target, call, form, &Patched { patching, name }).await
        }
        None => {
            let applied = Configuration::read(&body)?;
            let force = writing.options.force == Some(true);
            finish(writing, target, call, form, &Applied { applied, force, name }).await
        }
    }
}

async fn finish(
    mut writing: Writing<'_>,
    target: &Target,
    call: &Call,
    form: Form,
    change: &dyn Change,
) -> Result<Response, Status> {
    let (outcome, _) = update::apply_change(&mut writing, call, &call.info().name, change).await?;
    let document = match outcome {
        Outcome::Entry(entry) => entry.decode(),
        Outcome::Document(document) => document,
    };
    render::shaped(target, form, 200, shown(&document)?, call)
}

/// The Scale of an object, to be shown.
fn shown(object: &Value) -> Result<Value, Status> {
    of(object).map_err(|err| Status::bad_request(err.to_string()))
}

/// The Scale of an object, to be changed: who cannot be shown is a fault of the server then.
fn to_change(object: &Value) -> Result<Value, Status> {
    of(object).map_err(|err| Status::failure(500, "", err.to_string()))
}

/// The Scale of an object.
fn of(object: &Value) -> Result<Value, SelectorError> {
    let meta = &object["metadata"];
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)}});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !meta[field].is_null() {
            scale["metadata"][field] = meta[field].clone();
        }
    }
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    let selector = &object["spec"]["selector"];
    // A ReplicationController's selector is the map itself, and taken as it is.
    let selector = if object["kind"] == "ReplicationController" {
        let labels = selector.as_object().into_iter().flatten();
        LabelSelector::from_labels(labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))))
    } else {
        LabelSelector::from_object(Some(selector))?
    };
    let text = selector.to_string();
    if !text.is_empty() {
        scale["status"]["selector"] = text.into();
    }
    Ok(scale)
}

/// The object with the replicas of a Scale.
fn onto(live: &Value, scale: &Value, name: &str) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        faults.invalid_int(&spec.child("replicas"), replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", name, &faults));
    }
    let mut object = live.clone();
    object["spec"]["replicas"] = replicas.into();
    match meta_text(scale, "resourceVersion") {
        "" => metadata(&mut object).remove("resourceVersion"),
        version => metadata(&mut object).insert("resourceVersion".into(), version.into()),
    };
    Ok(object)
}

/// The same, and who owns the replicas now.
fn with_owners(writing: &Writing<'_>, live: &Value, scale: AppliedScale, name: &str) -> Result<Value, Status> {
    let mut object = onto(live, &scale.scale, name)?;
    let (wanted, there) = (meta_text(&scale.scale, "uid"), meta_text(live, "uid"));
    if !wanted.is_empty() && wanted != there {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {there}");
        let target = writing.target;
        return Err(Status::conflict(target.group(), &format!("{}/scale", target.plural()), name, &why));
    }
    metadata(&mut object).insert("managedFields".into(), scale.managed_fields);
    Ok(object)
}

struct Replacement {
    scale: Value,
    uid: Option<String>,
}

impl Change for Replacement {
    fn make(&self, writing: &mut Writing<'_>, live: Option<&Value>) -> Result<Value, Status> {
        let live = live.ok_or_else(|| Status::internal("a scale has an object"))?;
        let scale = managed::track_scale(writing, live, &to_change(live)?, self.scale.clone())?;
        with_owners(writing, live, scale, meta_text(&self.scale, "name"))
    }

    fn ownership(&self) -> Ownership {
        Ownership::Given
    }

    fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }
}

struct Patched {
    patching: Patching,
    name: String,
}

impl Change for Patched {
    fn make(&self, writing: &mut Writing<'_>, live: Option<&Value>) -> Result<Value, Status> {
        let live = live.ok_or_else(|| writing.target.not_found(&self.name))?;
        let before = to_change(live)?;
        let mut scale = self.patching.apply(writing, &before)?;
        update::check_name(writing, &mut scale, &self.name)?;
        let scale = managed::track_scale(writing, live, &before, scale)?;
        with_owners(writing, live, scale, &self.name)
    }

    fn ownership(&self) -> Ownership {
        Ownership::Given
    }

    fn retries(&self) -> bool {
        true
    }
}

struct Applied {
    applied: Configuration,
    force: bool,
    name: String,
}

impl Change for Applied {
    fn make(&self, writing: &mut Writing<'_>, live: Option<&Value>) -> Result<Value, Status> {
        let live = live.ok_or_else(|| writing.target.not_found(&self.name))?;
        let scale = managed::apply_scale(writing, live, &to_change(live)?, &self.applied.document, self.force)?;
        self.applied.check(writing, &scale.scale, &self.name)?;
        with_owners(writing, live, scale, &self.name)
    }

    fn retries(&self) -> bool {
        true
    }

    fn ownership(&self) -> Ownership {
        Ownership::Given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_that_means_nothing_is_told_of() {
        let of_selector = |kind: &str, selector: Value| json!({"kind": kind, "metadata": {}, "spec": {"selector": selector}});
        let bad = of_selector("Deployment", json!({"matchExpressions": [{"key": "a", "operator": "Is"}]}));
        let why = "\"Is\" is not a valid label selector operator";
        let (shown, changed) = (shown(&bad).unwrap_err(), to_change(&bad).unwrap_err());
        assert_eq!((shown.code, shown.message.as_str()), (400, why));
        assert_eq!((changed.code, changed.message.as_str()), (500, why));
        let controller = of(&of_selector("ReplicationController", json!({"b c": "d", "a": "b"}))).unwrap();
        assert_eq!(controller["status"]["selector"], "a=b,b c=d");
    }
}
