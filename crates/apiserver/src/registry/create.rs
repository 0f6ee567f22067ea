//! Create: a new object from a body, or from an update or an apply of a name that is absent.

use std::sync::Arc;

use http::header;
use serde_json::Value;

use corten_api::field::{Faults, Path};
use corten_api::names;
use corten_api::status::Status;
use corten_store::Expect;

use super::codec;
use super::hooks;
use super::managed;
use super::options::{self, WriteOptions};
use super::render;
use super::target::Target;
use super::write::{self, CommitError, Pass, Writing, meta_text, metadata, stamp};
use super::{Outcome, read};
use crate::admission::Operation;
use crate::metrics;
use crate::negotiate::{self, Endpoint};
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// How often another name is generated when one is taken already.
const NAME_ATTEMPTS: usize = 8;

/// `POST` to a collection.
pub(crate) async fn create(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Object)?;
    negotiate::content_type(call.header(header::CONTENT_TYPE))?;
    let body = call.read_body(state.config.max_request_body).await?;
    state.metrics.requests.body(target, metrics::Write::Create, body.len());
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let call = &*call;
    let mut writing = Writing::of(state, target, call, options);
    let document = codec::decode_object(&mut writing, call, &body)?;
    let outcome = new_object(&mut writing, document, Ownership::Track).await?;
    render::outcome(target, form, 201, outcome, call)
}

/// Whether managed fields are still to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Compute them from the document.
    Track,
    /// The document has them (apply) or needs none.
    Given,
}

/// Makes a new object of a document in the version of the path.
pub(crate) async fn new_object(writing: &mut Writing<'_>, mut document: Value, ownership: Ownership) -> Result<Outcome, Status> {
    let target = writing.target;
    namespace_fits(writing, &mut document)?;
    if ownership == Ownership::Track {
        wipe_system_fields(&mut document);
    }
    write::dedup_owners(writing, &mut document, Pass::BeforeAdmission);
    codec::to_stored(target, &mut document)?;
    writing.labels_given = document["metadata"]["labels"].as_object().is_some_and(|labels| !labels.is_empty());
    writing.default(&mut document);
    if ownership == Ownership::Track {
        managed::track(writing, None, &mut document)?;
    }
    let version_given = Some(meta_text(&document, "resourceVersion").to_owned()).filter(|version| !version.is_empty());
    let asked_name = meta_text(&document, "name").to_owned();
    writing.mutate(Operation::Create, &asked_name, &mut document, None).await?;
    write::dedup_owners(writing, &mut document, Pass::AfterAdmission);
    writing.default(&mut document);

    let base = meta_text(&document, "generateName").to_owned();
    let generates = meta_text(&document, "name").is_empty() && !base.is_empty();
    let mut attempts = 0;
    loop {
        attempts += 1;
        // Only a generated name is ever tried again.
        let mut attempt = if generates { document.clone() } else { document.take() };
        if generates {
            let random = writing.target.strategy.is_none_or(corten_kinds::Strategy::generates_names);
            let name = if random { write::generated_name(&base) } else { base.clone() };
            metadata(&mut attempt).insert("name".into(), name.into());
        }
        match attempt_create(writing, attempt, version_given.as_deref()).await {
            Err(status) if generates && attempts < NAME_ATTEMPTS && status.reason == "AlreadyExists" => {}
            Err(mut status) if !base.is_empty() && status.reason == "AlreadyExists" => {
                status.message = format!("{}, the server was not able to generate a unique name for the object", status.message);
                if let Some(details) = &mut status.details {
                    details.retry_after_seconds = 1;
                }
                return Err(status);
            }
            done => return done,
        }
    }
}

/// The namespace of the body is that of the request, or absent.
fn namespace_fits(writing: &Writing<'_>, document: &mut Value) -> Result<(), Status> {
    let given = meta_text(document, "namespace");
    if given.is_empty() {
        if !writing.namespace.is_empty() {
            let namespace = writing.namespace.clone();
            metadata(document).insert("namespace".into(), namespace.into());
        }
        return Ok(());
    }
    if writing.namespace.is_empty() {
        // What is in no namespace has none, whatever the body says.
        metadata(document).remove("namespace");
        return Ok(());
    }
    if given == writing.namespace {
        return Ok(());
    }
    Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
}

async fn attempt_create(writing: &mut Writing<'_>, mut document: Value, version_given: Option<&str>) -> Result<Outcome, Status> {
    let target = writing.target;
    fill_system_fields(writing, &mut document);
    let early = writing.with_rules(|strategy, _| strategy.early_warnings(&document)).unwrap_or_default();
    early.into_iter().for_each(|text| writing.warn(text));
    let reserved = hooks::before_create(writing, &mut document).await?;
    writing.with_rules(|strategy, context| strategy.prepare_create(&mut document, context));
    validate(writing, &document)?;
    let warnings = writing.with_rules(|strategy, context| strategy.warnings(&document, None, context)).unwrap_or_default();
    for text in warnings {
        writing.warn(text);
    }
    writing.with_rules(|strategy, _| strategy.canonicalize(&mut document));
    codec::settle(target, &mut document);
    let name = meta_text(&document, "name").to_owned();
    let admitted = writing.judge(Operation::Create, &name, Some(&mut document), None).await?;
    // Upstream fills defaults in again whenever it reads from the store; some depend on what the kind prepared.
    writing.default(&mut document);
    if writing.options.dry_run {
        if let Some(there) = writing.cached(&name)? {
            return Err(already_exists(target, &name, there.deleting));
        }
        // Only the store minds a version, and it is not asked.
        if let Some(version) = version_given {
            metadata(&mut document).insert("resourceVersion".into(), version.into());
        }
        return Ok(Outcome::unstored(document));
    }
    // What is no version at all passes.
    if version_given.is_some_and(|version| options::revision(version).is_ok_and(|revision| revision != 0)) {
        return Err(Status::failure(500, "", "resourceVersion should not be set on objects to be created"));
    }
    metadata(&mut document).remove("resourceVersion");
    let (bytes, _prepared) = writing.encode(&document)?;
    match writing.commit(&name, Some(bytes), Expect::Absent, admitted).await {
        Ok(revision) => {
            reserved.keep();
            Ok(Outcome::stored(writing, &name, revision, &document))
        }
        Err(CommitError::Conflict(_)) => {
            let deleting = writing.cached(&name)?.is_some_and(|there| there.deleting);
            Err(already_exists(target, &name, deleting))
        }
        Err(CommitError::Status(status)) => Err(*status),
    }
}

fn already_exists(target: &Target, name: &str, deleting: bool) -> Status {
    let mut status = Status::already_exists(&target.resource.group, target.plural(), name);
    if deleting {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

/// Fields that a client may send and nobody comes to own.
fn wipe_system_fields(document: &mut Value) {
    let meta = metadata(document);
    for field in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        meta.remove(field);
    }
}

/// What no client may choose.
fn fill_system_fields(writing: &Writing<'_>, document: &mut Value) {
    let meta = metadata(document);
    // A trial is answered with the revision that it came with, as upstream.
    let revision = if writing.options.dry_run { "" } else { "resourceVersion" };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", revision] {
        meta.remove(field);
    }
    meta.insert("creationTimestamp".into(), stamp(writing.now));
    meta.insert("uid".into(), crate::response::random_id().into());
}

/// Faults of a new object: first the kind's own, its metadata before its fields; then what holds for all kinds.
fn validate(writing: &Writing<'_>, document: &Value) -> Result<(), Status> {
    let mut faults = Faults::default();
    let path = Path::new("metadata");
    let namespaced = writing.target.resource.namespaced;
    let meta = &document["metadata"];
    let own = writing.with_rules(|strategy, context| {
        let rule = |name: &str, prefix: bool| strategy.validate_name_of(document, name, prefix);
        faults.0.extend(strategy.validate_first(document).0);
        faults.0.extend(writing.admin_access_faults(document, None).0);
        if write::has_own_metadata_rules(writing.target) {
            names::validate_object_meta(meta, namespaced, &rule, &path, &mut faults);
            write::validate_finalizer_names(writing.target, meta, &mut faults);
        }
        strategy.validate(document, context)
    });
    match own {
        Some(own) => faults.0.extend(own.0),
        None => names::validate_object_meta(meta, namespaced, &names::name_is_path_segment, &path, &mut faults),
    }
    if faults.is_empty() {
        names::validate_object_meta(meta, namespaced, &names::name_is_path_segment, &path, &mut faults);
    }
    if faults.is_empty() { Ok(()) } else { Err(writing.invalid(meta_text(document, "name"), &faults)) }
}
