//! Subresources that are more than another view of their object: documents of other kinds that are turned into a change, a
//! deletion, a question, or a connection.

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod scale;

use std::sync::Arc;

use http::header;
use serde_json::{Value, json};

use corten_api::status::Status;
use corten_store::{Expect, Revision};

use super::codec::{self, Expected};
use super::managed;
use super::options::WriteOptions;
use super::read;
use super::render;
use super::target::Target;
use super::write::{self, CommitError, Writing, metadata};
use crate::admission::Operation;
use crate::negotiate::{self, Endpoint, Form};
use crate::pipeline::Call;
use crate::proof::Admitted;
use crate::response::Response;
use crate::state::State;
use crate::{reviews, stream, tokens};

/// `POST` of a review: a question that is answered and not stored.
pub(crate) async fn review(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Action)?;
    negotiate::content_type(call.header(header::CONTENT_TYPE))?;
    let body = call.read_body(state.config.max_request_body).await?;
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let call = &*call;
    let mut writing = Writing::of(state, target, call, options);
    let mut document = codec::decode_body(&mut writing, call, &body)?;
    if !writing.namespace.is_empty() {
        let given = write::meta_text(&document, "namespace");
        if !given.is_empty() && given != writing.namespace {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(why));
        }
        let namespace = writing.namespace.clone();
        metadata(&mut document).insert("namespace".into(), namespace.into());
    }
    managed::track(&writing, None, &mut document)?;
    corten_schema::apply::unfold(&mut document);
    let answer = reviews::create(state, call, document).await?;
    render::shaped(target, form, 201, answer, call)
}

/// `POST serviceaccounts/NAME/token`
pub(crate) async fn token(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Action)?;
    negotiate::content_type(call.header(header::CONTENT_TYPE))?;
    let body = call.read_body(state.config.max_request_body).await?;
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let call = &*call;
    let mut writing = Writing::of(state, target, call, options);
    let expected = Expected::of(target, "token");
    let mut document = codec::decode_as(&mut writing, &expected, call.header(header::CONTENT_TYPE), &body)?;
    let entry = read::find(state, target, call).await?;
    // The one default of the kind; it is filled in before anybody owns a field.
    if document["spec"]["expirationSeconds"].is_null() {
        document["spec"]["expirationSeconds"] = 3600.into();
    }
    managed::track_posted(&writing, &expected, &mut document);
    let name = call.info().name.clone();
    writing.mutate(Operation::Create, &name, &mut document, None).await?;
    let _admitted = writing.judge(Operation::Create, &name, Some(&mut document), None).await?;
    let answer = tokens::create(state, call, &entry.decode(), document).await?;
    render::shaped(target, form, 201, answer, call)
}

/// log, exec, attach, portforward, proxy: passed on to a node, once the object is there and admission agrees.
pub(crate) async fn connect(state: &Arc<State>, target: &Target, call: Call) -> Result<Response, Status> {
    if call.info().subresource != "log" && call.query.get("dryRun").is_some() {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    stream::check_options(&call)?;
    let entry = read::find(state, target, &call).await?;
    let mut object = entry.decode();
    if call.info().subresource != "log" {
        let mut writing = Writing::of(state, target, &call, WriteOptions::default());
        let name = call.info().name.clone();
        let _admitted = writing.judge(Operation::Connect, &name, None, Some(&mut object)).await?;
    }
    stream::serve(state, call, object).await
}

/// Changes an object in place by the server's own hand: compare-and-swap until it holds. `change` judges what it finds.
pub(crate) async fn modify(
    writing: &Writing<'_>,
    name: &str,
    admitted: &Admitted,
    change: impl Fn(&mut Value) -> Result<(), Status>,
) -> Result<Value, Status> {
    loop {
        let entry = writing.cached(name)?.ok_or_else(|| writing.target.not_found(name))?;
        let mut document = entry.decode();
        change(&mut document)?;
        if writing.options.dry_run {
            return Ok(document);
        }
        let bytes = writing.target.cache()?.spec().layout.encode(&document);
        match writing.commit(name, Some(bytes), Expect::At(Revision(entry.stored)), admitted.clone()).await {
            Ok(revision) => {
                metadata(&mut document).insert("resourceVersion".into(), revision.to_string().into());
                return Ok(document);
            }
            Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
            Err(CommitError::Status(status)) => return Err(*status),
        }
    }
}

/// `Success`, as posted actions are answered.
pub(crate) fn success(form: Form, call: &Call) -> Result<Response, Status> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    render::status_document(form, 201, &status, call)
}

/// Sets a condition of a pod, as `podutil.UpdatePodCondition` does: the time changes only with the status.
pub(crate) fn set_condition(document: &mut Value, mut condition: Value, now: jiff::Timestamp) {
    if !document["status"].is_object() {
        document["status"] = json!({});
    }
    if !document["status"]["conditions"].is_array() {
        document["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = document["status"]["conditions"].as_array_mut() else {
        return;
    };
    condition["lastTransitionTime"] = write::stamp(now);
    match conditions.iter_mut().find(|there| there["type"] == condition["type"]) {
        Some(there) => {
            if there["status"] == condition["status"] {
                condition["lastTransitionTime"] = there["lastTransitionTime"].clone();
            }
            *there = condition;
        }
        None => conditions.push(condition),
    }
}
