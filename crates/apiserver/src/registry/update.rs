//! Update: a new state for an object, whether it came as a whole or as a patch. One loop reads, changes, judges and swaps;
//! it starts over when somebody else was faster, unless the client named the revision it meant.

mod relabel;

use std::sync::Arc;

use serde_json::{Value, json};

use corten_api::field::{Faults, Path};
use corten_api::names;
use corten_api::status::Status;
use corten_store::{Durability, Expect, Revision};

use super::claims;
use super::codec;
use super::create::{self, Ownership};
use super::heartbeat;
use super::hooks;
use super::managed;
use super::options::{self, WriteOptions};
use super::render;
use super::target::Target;
use super::write::{self, CommitError, Pass, Writing, meta_text, metadata};
use super::{Outcome, read};
use crate::admission::Operation;
use crate::cache::Entry;
use crate::metrics;
use crate::negotiate::Endpoint;
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// How often a write that names no revision starts over.
const ATTEMPTS: usize = 100;

/// How the new state is made from the one there is.
pub(crate) trait Change: Sync {
    /// The new document in the version of the path, given the present one (in that version too); `None` when there is none.
    /// Texts for warnings are added to `writing`.
    fn make(&self, writing: &mut Writing<'_>, live: Option<&Value>) -> Result<Value, Status>;

    /// Whether an absent object is created.
    fn creates(&self) -> bool {
        false
    }

    /// Whether the document comes with its managed fields.
    fn ownership(&self) -> Ownership {
        Ownership::Track
    }

    /// Whether the change is made anew on the newest state when somebody was faster.
    fn retries(&self) -> bool {
        false
    }

    /// Whether the managed fields of the present document may be one text (see [`corten_schema::apply::unfold`]) because nobody
    /// looks at them here.
    fn takes_folded(&self, target: &Target) -> bool {
        let _ = target;
        false
    }

    /// Whether the change is about nothing but labels and annotations that mean nothing to Kubernetes. It is then made on kind,
    /// version and metadata alone where that is enough.
    fn relabels(&self, target: &Target) -> bool {
        let _ = target;
        false
    }

    /// The UID that the object must have.
    fn uid(&self) -> Option<&str> {
        None
    }
}

/// `PUT` of an object or of its status.
pub(crate) async fn put(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Object)?;
    let body = call.read_body(state.config.max_request_body).await?;
    state.metrics.requests.body(target, metrics::Write::Update, body.len());
    let options = WriteOptions::parse(&call.query, "UpdateOptions", false)?;
    let call = &*call;
    let mut writing = Writing::of(state, target, call, options);
    let mut document = codec::decode_object(&mut writing, call, &body)?;
    let name = call.info().name.clone();
    check_name(&writing, &mut document, &name)?;
    write::dedup_owners(&mut writing, &mut document, Pass::BeforeAdmission);
    let creates = writing.subresource.is_empty() && target.strategy.is_some_and(corten_kinds::Strategy::create_on_update);
    let uid = Some(meta_text(&document, "uid").to_owned()).filter(|uid| !uid.is_empty());
    let change = Replacement { document, creates, uid };
    let (outcome, created) = apply_change(&mut writing, call, &name, &change).await?;
    render::outcome(target, form, if created { 201 } else { 200 }, outcome, call)
}

struct Replacement {
    document: Value,
    creates: bool,
    uid: Option<String>,
}

impl Change for Replacement {
    fn make(&self, _: &mut Writing<'_>, _: Option<&Value>) -> Result<Value, Status> {
        Ok(self.document.clone())
    }

    fn creates(&self) -> bool {
        self.creates
    }

    fn takes_folded(&self, _: &Target) -> bool {
        true
    }

    fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }
}

/// The name and namespace of the body are those of the path.
pub(crate) fn check_name(writing: &Writing<'_>, document: &mut Value, name: &str) -> Result<(), Status> {
    write::check_place(writing, document, name)?;
    if writing.namespace.is_empty() {
        metadata(document).remove("namespace");
    } else {
        let namespace = writing.namespace.clone();
        metadata(document).insert("namespace".into(), namespace.into());
    }
    Ok(())
}

/// Carries a change out. Returns the outcome, and whether the object was created.
pub(crate) async fn apply_change(
    writing: &mut Writing<'_>,
    call: &Call,
    name: &str,
    change: &dyn Change,
) -> Result<(Outcome, bool), Status> {
    writing.target.check_name(name)?;
    writing.state.caches.catch_up().await;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let Some(entry) = writing.cached(name)? else {
            if !change.creates() {
                return Err(writing.target.not_found(name));
            }
            if let Some(uid) = change.uid() {
                return Err(uid_differs(writing, name, uid, ""));
            }
            may_create(writing.state, call).await?;
            let mut document = change.make(writing, None)?;
            let version = options::revision(meta_text(&document, "resourceVersion"));
            version.map_err(|why| Status::failure(500, "", why))?;
            // A trial shows what was sent; nothing else minds it.
            if !writing.options.dry_run {
                metadata(&mut document).remove("resourceVersion");
            }
            metadata(&mut document).entry("name").or_insert_with(|| name.into());
            match create::new_object(writing, document, change.ownership()).await {
                Err(status) if status.reason == "AlreadyExists" && attempts < ATTEMPTS => continue,
                done => return done.map(|outcome| (outcome, true)),
            }
        };
        if let Some(uid) = change.uid().filter(|uid| **uid != *entry.uid) {
            return Err(uid_differs(writing, name, uid, &entry.uid));
        }
        match attempt_update(writing, name, &entry, change).await? {
            Attempt::Done(outcome) => return Ok((outcome, false)),
            Attempt::Raced if attempts < ATTEMPTS => {}
            Attempt::Raced => return Err(writing.changed(name)),
        }
    }
}

fn uid_differs(writing: &Writing<'_>, name: &str, wanted: &str, there: &str) -> Status {
    let key = writing.target.store_key(&writing.namespace, name).unwrap_or_default();
    // A trial does not reach the layer that adds the prefix.
    let key = if writing.options.dry_run { key.strip_prefix("/registry").unwrap_or(&key) } else { &key };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
         precondition: {wanted}, UID in object meta: {there}"
    );
    writing.target.conflict(name, &why)
}

/// A write that turns out to be a creation needs the right to create.
async fn may_create(state: &State, call: &Call) -> Result<(), Status> {
    let mut info = call.info().clone();
    info.verb = "create".into();
    state.authz.authorize(call.auth.authenticated().clone(), info).await.map(drop)
}

enum Attempt {
    Done(Outcome),
    /// Somebody else wrote in between, and the client does not care which state it changes.
    Raced,
}

async fn attempt_update(
    writing: &mut Writing<'_>,
    name: &str,
    entry: &Arc<Entry>,
    change: &dyn Change,
) -> Result<Attempt, Status> {
    let target = writing.target;
    if relabel::may(writing, entry, change)
        && let Some(attempt) = relabel::attempt(writing, name, entry, change).await?
    {
        return Ok(attempt);
    }
    let mut old = if change.takes_folded(target) { entry.decode_folded() } else { entry.decode() };
    let mut document = if target.is_stored_form() {
        change.make(writing, Some(&old))?
    } else {
        let mut live = old.clone();
        codec::from_stored(target, &mut live)?;
        change.make(writing, Some(&live))?
    };
    if !writing.namespace.is_empty() && meta_text(&document, "namespace").is_empty() {
        metadata(&mut document).insert("namespace".into(), writing.namespace.as_str().into());
    }
    if writing.namespace.is_empty() {
        metadata(&mut document).remove("namespace");
    }
    codec::to_stored(target, &mut document)?;
    writing.default(&mut document);
    if change.ownership() == Ownership::Track {
        managed::track(writing, Some(&old), &mut document)?;
    }
    writing.mutate(Operation::Update, name, &mut document, Some(&mut old)).await?;
    write::dedup_owners(writing, &mut document, Pass::AfterAdmission);
    writing.default(&mut document);

    let unconditional = check_version(writing, name, &mut document, entry)? || change.retries();
    let reserved = hooks::before_update(writing, &mut document, &old).await?;
    keep_generation(&mut document, &old);
    let of_status = writing.subresource == "status";
    writing.with_rules(|strategy, context| match of_status {
        true => strategy.prepare_status(&mut document, &old, context),
        false => strategy.prepare_update(&mut document, &old, context),
    });
    keep_system_fields(&mut document, &old);
    validate(writing, &document, &old)?;
    let warnings = writing.with_rules(|strategy, context| match of_status {
        true => strategy.status_warnings(&document),
        false => strategy.warnings(&document, Some(&old), context),
    });
    for text in warnings.unwrap_or_default() {
        writing.warn(text);
    }
    writing.with_rules(|strategy, _| strategy.canonicalize(&mut document));
    codec::settle(target, &mut document);
    managed::keep_times(&mut document, &old);
    let admitted = writing.judge(Operation::Update, name, Some(&mut document), Some(&mut old)).await?;
    writing.default(&mut document);

    let ends = deletion_is_due(&document, &old);
    let mut _prepared = None;
    let bytes = if ends {
        None
    } else {
        let bytes;
        (bytes, _prepared) = writing.encode(&document)?;
        if target.cache()?.spec().layout.is_state_of(&bytes, entry) {
            // Nothing changes: no write, no event, the same resourceVersion.
            return Ok(Attempt::Done(Outcome::Entry(entry.clone())));
        }
        Some(bytes)
    };
    if writing.options.dry_run {
        return Ok(Attempt::Done(Outcome::unstored(document)));
    }
    let lazy = writing.is_lazy() || heartbeat::is_all(writing, &document, &old);
    let durability = if lazy { Durability::Lazy } else { Durability::Sync };
    match writing.commit_as(durability, name, bytes, Expect::At(Revision(entry.stored)), admitted).await {
        Ok(_) if ends => {
            reserved.keep();
            hooks::after_delete(writing, &document).await;
            Ok(Attempt::Done(Outcome::unstored(document)))
        }
        Ok(revision) => {
            reserved.keep();
            hooks::after_update(writing, &document, &old).await;
            Ok(Attempt::Done(Outcome::stored(writing, name, revision, &document)))
        }
        Err(CommitError::Conflict(_)) if unconditional => Ok(Attempt::Raced),
        Err(CommitError::Conflict(None)) => Err(target.not_found(name)),
        Err(CommitError::Conflict(Some(_))) => Err(writing.changed(name)),
        Err(CommitError::Status(status)) => Err(*status),
    }
}

/// Compares the revision that the client meant with the one there is. True when it meant none.
fn check_version(writing: &Writing<'_>, name: &str, document: &mut Value, entry: &Entry) -> Result<bool, Status> {
    let given = meta_text(document, "resourceVersion");
    let revision = options::revision(given).map_err(|why| Status::failure(500, "", why))?;
    let present = entry.revision.to_string();
    if revision == 0 {
        if !writing.target.strategy.is_none_or(corten_kinds::Strategy::unconditional_update) {
            let mut faults = Faults::default();
            let meta = Path::new("metadata");
            faults.invalid(&meta.child("resourceVersion"), &json!(0), "must be specified for an update");
            return Err(Status::invalid(writing.target.group(), writing.target.plural(), name, &faults));
        }
        metadata(document).insert("resourceVersion".into(), present.into());
        return Ok(true);
    }
    if revision != entry.revision {
        return Err(writing.changed(name));
    }
    // A patch carries the revision it was made on without the client having asked for it.
    Ok(false)
}

fn keep_generation(document: &mut Value, old: &Value) {
    let meta = metadata(document);
    match old["metadata"].get("generation") {
        Some(generation) => meta.insert("generation".into(), generation.clone()),
        None => meta.remove("generation"),
    };
}

/// What no update may change.
fn keep_system_fields(document: &mut Value, old: &Value) {
    let meta = metadata(document);
    let was = &old["metadata"];
    if meta.get("uid").and_then(Value::as_str).unwrap_or_default().is_empty() {
        meta.insert("uid".into(), was["uid"].clone());
    }
    if !was["creationTimestamp"].is_null() {
        meta.insert("creationTimestamp".into(), was["creationTimestamp"].clone());
    }
    if !was["deletionTimestamp"].is_null() {
        meta.insert("deletionTimestamp".into(), was["deletionTimestamp"].clone());
    }
    let grace = "deletionGracePeriodSeconds";
    if !was[grace].is_null() && meta.get(grace).is_none_or(Value::is_null) {
        meta.insert(grace.into(), was[grace].clone());
    }
    meta.remove("selfLink");
}

/// Faults of changed metadata by what holds for all kinds.
fn metadata_faults(writing: &Writing<'_>, document: &Value, old: &Value) -> Faults {
    let (meta, was, path) = (&document["metadata"], &old["metadata"], Path::new("metadata"));
    let mut faults = Faults::default();
    names::validate_object_meta(meta, writing.target.resource.namespaced, &names::name_is_path_segment, &path, &mut faults);
    names::validate_object_meta_update(meta, was, &path, &mut faults);
    faults
}

/// Faults of a change: what holds for all kinds first, then the kind's own.
fn validate(writing: &Writing<'_>, document: &Value, old: &Value) -> Result<(), Status> {
    let mut faults = metadata_faults(writing, document, old);
    let path = Path::new("metadata");
    let namespaced = writing.target.resource.namespaced;
    let (meta, was) = (&document["metadata"], &old["metadata"]);
    let own = writing.with_rules(|strategy, context| {
        let mut own = strategy.validate_first(document);
        if writing.subresource == "status" {
            own.0.extend(writing.admin_access_faults(document, Some(old)).0);
            claims::check_rights(writing, document, old, &mut own);
        }
        let stored = &writing.target.stored;
        let (group, plural) = (stored.group.as_str(), stored.plural.as_str());
        let compares =
            corten_kinds::compares_metadata(group, plural, &writing.subresource) && write::has_own_metadata_rules(writing.target);
        let compare = |own: &mut Faults| {
            if compares {
                names::validate_object_meta_update(meta, was, &path, own);
                write::validate_finalizer_names(writing.target, meta, own);
            }
        };
        let checks_first = corten_kinds::checks_metadata_first(group, plural);
        if !checks_first {
            compare(&mut own);
        }
        for _ in 0..corten_kinds::further_metadata_checks(group, plural, &writing.subresource) {
            let rule = |name: &str, prefix: bool| strategy.validate_name_of(document, name, prefix);
            names::validate_object_meta(meta, namespaced, &rule, &path, &mut own);
            write::validate_finalizer_names(writing.target, meta, &mut own);
        }
        if checks_first {
            compare(&mut own);
        }
        let faults = match writing.subresource.as_str() {
            "status" => strategy.validate_status(document, old, context),
            _ => strategy.validate_update(document, old, context),
        };
        own.0.extend(faults.0);
        own
    });
    faults.0.extend(own.unwrap_or_default().0);
    if faults.is_empty() { Ok(()) } else { Err(writing.invalid(meta_text(document, "name"), &faults)) }
}

/// Whether this update takes the last finalizer from an object that is being deleted.
fn deletion_is_due(document: &Value, old: &Value) -> bool {
    let none_left = document["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    let was = &old["metadata"];
    let content_is_gone = document["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) || document["kind"] != "Namespace";
    none_left
        && content_is_gone
        && !was["deletionTimestamp"].is_null()
        && was["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}
