//! Delete: at once, or in steps when the object has finalizers or ends gracefully; one object or a selection.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::header;
use serde_json::{Value, json};

use corten_api::status::Status;
use corten_store::{Expect, Revision};

use super::codec;
use super::hooks;
use super::options::{DeleteOptions, ListOptions, WriteOptions};
use super::render::{self, Items, ListMeta};
use super::target::{Filter, Target};
use super::write::{CommitError, Writing, metadata, stamp};
use super::{Outcome, read};
use crate::admission::Operation;
use crate::cache::Entry;
use crate::negotiate::Endpoint;
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// Deletions of one collection that run at the same time.
const AT_A_TIME: usize = 64;
/// Objects that are read at once when a collection is deleted.
const PAGE: i64 = 10_000;
const ORPHANS_BY_DEFAULT: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// `DELETE` of an object.
pub(crate) async fn delete(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Object)?;
    let options = delete_options(state, call).await?;
    let call = &*call;
    let mut writing = writing(state, target, call, &options);
    let name = call.info().name.clone();
    state.caches.catch_up().await;
    let deleted = delete_one(&mut writing, &name, &options).await?;
    let code = if !deleted.gone && options.orphan == Some(false) { 202 } else { 200 };
    if deleted.shows_object || !deleted.gone {
        render::outcome(target, form, code, deleted.outcome, call)
    } else {
        let document = deleted.outcome.document();
        let mut details = json!({"name": name, "kind": target.resource.plural, "uid": document["metadata"]["uid"]});
        if !target.resource.group.is_empty() {
            details["group"] = target.resource.group.as_str().into();
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        render::status_document(form, code, &status, call)
    }
}

fn writing<'a>(state: &'a Arc<State>, target: &'a Target, call: &'a Call, options: &DeleteOptions) -> Writing<'a> {
    let as_write = WriteOptions { dry_run: options.dry_run, document: options.document.clone(), ..WriteOptions::default() };
    Writing::of(state, target, call, as_write)
}

/// The options of the body, or of the query when there is no body.
async fn delete_options(state: &State, call: &mut Call) -> Result<DeleteOptions, Status> {
    let body = call.read_body(state.config.max_request_body).await?;
    if body.is_empty() {
        return DeleteOptions::from_query(&call.query);
    }
    let document = codec::decode_delete_options(call.header(header::CONTENT_TYPE), &body)?;
    if let Some(trail) = call.trail() {
        trail.request_object(&document);
    }
    DeleteOptions::from_document(document)
}

/// Whoever deletes jobs without a word on their pods is warned, whether or not there is a job.
fn warn_of_orphans(writing: &mut Writing<'_>, options: &DeleteOptions) {
    if writing.target.is("batch", "jobs") && options.propagation.is_none() && options.orphan.is_none() {
        writing.warn(ORPHANS_BY_DEFAULT.into());
    }
}

/// What became of an object.
pub(crate) struct Deleted {
    pub outcome: Outcome,
    /// Whether it is gone, and not only on its way.
    pub gone: bool,
    /// Whether the kind answers with the object and not with a Status.
    pub shows_object: bool,
}

/// Deletes one object, whatever it takes.
pub(crate) async fn delete_one(writing: &mut Writing<'_>, name: &str, options: &DeleteOptions) -> Result<Deleted, Status> {
    warn_of_orphans(writing, options);
    writing.target.check_name(name)?;
    loop {
        let Some(entry) = writing.cached(name)? else {
            return Err(writing.target.not_found(name));
        };
        match attempt(writing, name, &entry, options).await? {
            Some(deleted) => return Ok(deleted),
            // Somebody wrote in between; look again.
            None => tokio::task::yield_now().await,
        }
    }
}

async fn attempt(
    writing: &mut Writing<'_>,
    name: &str,
    entry: &Arc<Entry>,
    options: &DeleteOptions,
) -> Result<Option<Deleted>, Status> {
    let target = writing.target;
    preconditions(target, name, entry, options)?;
    let shows_object = hooks::answers_deleted_object(&target.resource);
    if target.is("", "namespaces") {
        return delete_namespace(writing, name, entry, entry.decode(), options).await;
    }
    let mut old = entry.decode_folded();
    let mut document = old.clone();
    let plan = plan(target, &mut document, options, writing.now);
    if plan == Plan::AlreadyUnderWay {
        return Ok(Some(Deleted { outcome: Outcome::Entry(entry.clone()), gone: false, shows_object }));
    }
    let admitted = writing.judge(Operation::Delete, name, None, Some(&mut old)).await?;
    let marks = matches!(plan, Plan::Mark { .. });
    let mut stored = entry.stored;
    let mut last = entry.clone();
    if marks {
        let then_gone = plan == Plan::Mark { then_gone: true };
        if writing.options.dry_run {
            return Ok(Some(Deleted { outcome: Outcome::unstored(document), gone: then_gone, shows_object }));
        }
        let bytes = target.cache()?.spec().layout.encode(&document);
        match writing.commit(name, Some(bytes), Expect::At(Revision(stored)), admitted.clone()).await {
            Ok(revision) => {
                let outcome = Outcome::stored(writing, name, revision, &document);
                if !then_gone {
                    return Ok(Some(Deleted { outcome, gone: false, shows_object }));
                }
                stored = revision;
                if let Outcome::Entry(marked) = outcome {
                    last = marked;
                }
            }
            Err(CommitError::Conflict(_)) => return Ok(None),
            Err(CommitError::Status(status)) => return Err(*status),
        }
    }
    if writing.options.dry_run {
        return Ok(Some(Deleted { outcome: Outcome::Entry(last), gone: true, shows_object }));
    }
    match writing.commit(name, None, Expect::At(Revision(stored)), admitted).await {
        Ok(_) => {
            hooks::after_delete(writing, &document).await;
            Ok(Some(Deleted { outcome: Outcome::Entry(last), gone: true, shows_object }))
        }
        // Whoever was told of the grace period may have been faster.
        Err(CommitError::Conflict(None)) if marks => {
            Ok(Some(Deleted { outcome: Outcome::Entry(last), gone: true, shows_object }))
        }
        Err(CommitError::Conflict(_)) => Ok(None),
        Err(CommitError::Status(status)) => Err(*status),
    }
}

/// Refuses when the object is not the one the client means.
fn preconditions(target: &Target, name: &str, entry: &Entry, options: &DeleteOptions) -> Result<(), Status> {
    check_preconditions(target, name, &entry.uid, &entry.revision.to_string(), options)
}

fn check_preconditions(target: &Target, name: &str, is: &str, revision: &str, options: &DeleteOptions) -> Result<(), Status> {
    let conflict = |why: String| Err(Status::conflict(target.group(), &target.resource.kind, name, &why));
    if target.is("", "namespaces") || target.is("apiextensions.k8s.io", "customresourcedefinitions") {
        // These have a deletion of their own upstream, and words of its own.
        let failed = |what: &str, asked: &str, is: &str| {
            let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}");
            Err(target.conflict(name, &why))
        };
        if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != is) {
            return failed("UID", uid, is);
        }
        if let Some(version) = options.resource_version.as_deref().filter(|version| *version != revision) {
            return failed("ResourceVersion", version, revision);
        }
    }
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != is) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({is}). The object might have been deleted and \
             then recreated"
        ));
    }
    if let Some(version) = options.resource_version.as_deref().filter(|version| *version != revision) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({revision}). The \
             object might have been modified"
        ));
    }
    Ok(())
}

/// [`preconditions`] of a document.
pub(crate) fn meets(target: &Target, name: &str, document: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let text = |field: &str| document["metadata"][field].as_str().unwrap_or_default();
    check_preconditions(target, name, text("uid"), text("resourceVersion"), options)
}

/// How an object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// At once.
    Now,
    /// Its metadata says so first; whoever holds a finalizer or runs it ends it, or nobody has to.
    Mark { then_gone: bool },
    /// It is on its way, and this request does not make it faster.
    AlreadyUnderWay,
}

/// Decides how `document` goes, and marks it.
fn plan(target: &Target, document: &mut Value, options: &DeleteOptions, now: jiff::Timestamp) -> Plan {
    let graceful = match grace(target, document, options, now) {
        Grace::Pending => return Plan::AlreadyUnderWay,
        Grace::Given(period) => Some(period),
        Grace::None => None,
    };
    let finalizers = finalizers_for_dependents(target, document, options);
    let pending = !finalizers.is_empty();
    let meta = metadata(document);
    if pending {
        meta.insert("finalizers".into(), finalizers.into());
    } else {
        meta.remove("finalizers");
    }
    match graceful {
        Some(period) => Plan::Mark { then_gone: !pending && period == 0 },
        None if pending => {
            mark(document, now);
            Plan::Mark { then_gone: false }
        }
        None => Plan::Now,
    }
}

enum Grace {
    /// The kind knows no grace, or it is over.
    None,
    /// The object was marked with a period.
    Given(i64),
    /// A period is running, and the one asked for is not shorter.
    Pending,
}

/// Graceful deletion: only pods have it. Marks the object when a period begins or is shortened.
fn grace(target: &Target, document: &mut Value, options: &DeleteOptions, now: jiff::Timestamp) -> Grace {
    if !target.is("", "pods") {
        return Grace::None;
    }
    let asked = options.grace.map(|period| if period < 0 { 1 } else { period });
    let meta = &document["metadata"];
    if let Some(end) = meta["deletionTimestamp"].as_str() {
        let running = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if running == 0 {
            return Grace::None;
        }
        let Some(mut period) = asked.filter(|period| *period < running) else {
            return Grace::Pending;
        };
        let end: jiff::Timestamp = end.parse().unwrap_or(now);
        let mut sooner = after(after(end, running.wrapping_neg()), period);
        if sooner < now {
            sooner = now;
            if period != 0 {
                period = 1;
            }
        }
        let meta = metadata(document);
        meta.insert("deletionTimestamp".into(), stamp(sooner));
        meta.insert("deletionGracePeriodSeconds".into(), period.into());
        return Grace::Given(period);
    }
    let mut period = asked.or_else(|| document["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
    let phase = document["status"]["phase"].as_str().unwrap_or_default();
    if document["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() || matches!(phase, "Failed" | "Succeeded") {
        period = 0;
    }
    if period < 0 {
        period = 1;
    }
    let end = after(now, period);
    let meta = metadata(document);
    meta.insert("deletionTimestamp".into(), stamp(end));
    meta.insert("deletionGracePeriodSeconds".into(), period.into());
    raise_generation(document);
    Grace::Given(period)
}

/// The end of a grace period. Periods are counted in nanoseconds upstream, and one that is too long for that wraps around.
fn after(now: jiff::Timestamp, seconds: i64) -> jiff::Timestamp {
    let period = jiff::SignedDuration::from_nanos(seconds.wrapping_mul(1_000_000_000));
    now.checked_add(period).unwrap_or(now)
}

fn raise_generation(document: &mut Value) {
    if let Some(generation) = document["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) {
        metadata(document).insert("generation".into(), (generation + 1).into());
    }
}

/// Says that the object waits only for its finalizers.
fn mark(document: &mut Value, now: jiff::Timestamp) {
    let marked = document["metadata"]["deletionTimestamp"].as_str().map(str::to_owned);
    if marked.is_none() {
        raise_generation(document);
    }
    let later = marked.and_then(|at| at.parse::<jiff::Timestamp>().ok()).is_none_or(|at| at > now);
    let meta = metadata(document);
    if later {
        meta.insert("deletionTimestamp".into(), stamp(now));
    }
    meta.insert("deletionGracePeriodSeconds".into(), 0.into());
}

/// The object's finalizers with those of the garbage collector as the options say.
fn finalizers_for_dependents(target: &Target, document: &Value, options: &DeleteOptions) -> Vec<String> {
    let present: Vec<String> = document["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    if target.is("", "events") {
        return present;
    }
    let has = |name: &str| present.iter().any(|finalizer| finalizer == name);
    let default_orphans = target.is("", "replicationcontrollers") || target.is("batch", "jobs");
    let (orphan, foreground) = match (options.orphan, options.propagation.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        // The first one in the list decides.
        (None, None) => match present.iter().find(|f| *f == ORPHAN || *f == FOREGROUND) {
            Some(first) => (first == ORPHAN, first == FOREGROUND),
            None => (default_orphans, false),
        },
    };
    if has(ORPHAN) == orphan && has(FOREGROUND) == foreground {
        return present;
    }
    let mut wanted: Vec<String> = present.into_iter().filter(|f| f != ORPHAN && f != FOREGROUND).collect();
    if orphan {
        wanted.push(ORPHAN.into());
    }
    if foreground {
        wanted.push(FOREGROUND.into());
    }
    wanted
}

/// A namespace is emptied by its controller before it goes; until then it is Terminating.
async fn delete_namespace(
    writing: &mut Writing<'_>,
    name: &str,
    entry: &Arc<Entry>,
    mut old: Value,
    options: &DeleteOptions,
) -> Result<Option<Deleted>, Status> {
    let target = writing.target;
    let admitted = writing.judge(Operation::Delete, name, None, Some(&mut old)).await?;
    let mut document = old.clone();
    let has_content = |document: &Value| document["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if document["metadata"]["deletionTimestamp"].is_null() {
        let finalizers = finalizers_for_dependents(target, &document, options);
        let meta = metadata(&mut document);
        meta.insert("deletionTimestamp".into(), stamp(writing.now));
        if !finalizers.is_empty() {
            meta.insert("finalizers".into(), finalizers.into());
        }
        document["status"]["phase"] = "Terminating".into();
        if writing.options.dry_run {
            return Ok(Some(Deleted { outcome: Outcome::Document(document), gone: false, shows_object: true }));
        }
        let bytes = target.cache()?.spec().layout.encode(&document);
        return match writing.commit(name, Some(bytes), Expect::At(Revision(entry.stored)), admitted).await {
            Ok(revision) => {
                let outcome = Outcome::stored(writing, name, revision, &document);
                Ok(Some(Deleted { outcome, gone: false, shows_object: true }))
            }
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(CommitError::Status(status)) => Err(*status),
        };
    }
    let held = document["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if has_content(&document) {
        let why = "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will \
                   automatically be purged by the system.";
        return Err(target.conflict(name, why));
    }
    if held || writing.options.dry_run {
        return Ok(Some(Deleted { outcome: Outcome::Entry(entry.clone()), gone: false, shows_object: true }));
    }
    match writing.commit(name, None, Expect::At(Revision(entry.stored)), admitted).await {
        Ok(_) => Ok(Some(Deleted { outcome: Outcome::Entry(entry.clone()), gone: true, shows_object: false })),
        Err(CommitError::Conflict(_)) => Ok(None),
        Err(CommitError::Status(status)) => Err(*status),
    }
}

/// `DELETE` of a collection.
pub(crate) async fn collection(state: &Arc<State>, target: &Target, call: &mut Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Deletion)?;
    let mut list = ListOptions::parse(&call.query, call.info())?;
    let filter = read::filter(target, call, &mut list)?;
    let options = delete_options(state, call).await?;
    if target.resource.namespaced && filter.namespace.is_empty() {
        return Err(Status::bad_request("Namespace parameter required."));
    }
    let call = &*call;
    warn_of_orphans(&mut writing(state, target, call, &options), &options);
    let (items, meta) = to_delete(state, target, list, &filter).await?;
    // Many at a time, so that they share commits; but where one may not be the one that is meant, those after it stay.
    let conditional = options.uid.is_some() || options.resource_version.is_some();
    let at_a_time = if conditional { 1 } else { AT_A_TIME };
    let mut deletions = Vec::with_capacity(items.len());
    for entry in &items {
        deletions.push(delete_of_collection(state, target, call, &options, entry.clone()).boxed());
    }
    stream::iter(deletions).buffered(at_a_time).try_collect::<()>().await?;
    let page = read::Page { items: Items::Page(items), meta };
    render::list(target, form, page, call)
}

/// The objects of a collection that are to go. They are read in pages, whatever the client says of them, and the answer has the
/// metadata of the first page: a revision without a word on its match is that of a page, and so means just this one.
async fn to_delete(
    state: &State,
    target: &Target,
    mut list: ListOptions,
    filter: &Filter,
) -> Result<(Vec<Arc<Entry>>, ListMeta), Status> {
    let cache = target.cache()?;
    let is_page = list.limit > 0;
    if list.limit == 0 {
        list.limit = PAGE;
    }
    let mut found = Vec::new();
    let mut first = None;
    loop {
        let page = read::page(state, cache, &list, filter).await?;
        match page.items {
            Items::Page(items) => found.extend(items),
            Items::Range { map, filter, from } => found.extend(render::selected(&map, &filter, from).cloned()),
        }
        list.continuation.clone_from(&page.meta.continuation);
        let meta = first.get_or_insert(page.meta);
        if is_page || list.continuation.is_empty() {
            return Ok((found, std::mem::take(meta)));
        }
        list.resource_version.clear();
        list.version_match.clear();
    }
}

/// Deletes one of many. Whoever is gone already is no fault.
async fn delete_of_collection(
    state: &Arc<State>,
    target: &Target,
    call: &Call,
    options: &DeleteOptions,
    entry: Arc<Entry>,
) -> Result<(), Status> {
    let mut writing = writing(state, target, call, options);
    writing.namespace = entry.namespace.to_string();
    match delete_one(&mut writing, &entry.name, options).await {
        Ok(_) => Ok(()),
        Err(status) if status.reason == "NotFound" => Ok(()),
        Err(status) => Err(status),
    }
}
