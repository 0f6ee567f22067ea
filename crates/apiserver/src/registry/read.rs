//! Get and list: from the cache, without decoding wherever the answer is the stored form.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use http::header;
use tokio::time::Instant;

use corten_api::status::{Cause, Details, Status};
use corten_store::{ReadError, Revision};

use super::continuation::Token;
use super::options::{self, ListOptions};
use super::render::{self, Items, ListMeta};
use super::target::{Filter, Target};
use crate::cache::{self, Cache, Entry, Map};
use crate::negotiate::{self, Endpoint, Form};
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// How long a read waits for a revision that is not there yet.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Subresources whose objects nobody prints.
const WITHOUT_TABLES: [&str; 2] = ["ephemeralcontainers", "resize"];
/// Fields by which upstream's cache finds objects without a look at the others.
const INDEXED: [&str; 1] = ["spec.nodeName"];

/// `GET` of one object.
pub(crate) async fn get(state: &Arc<State>, target: &Target, call: &Call) -> Result<Response, Status> {
    let form = form(call, Endpoint::Object)?;
    refuse_export(call)?;
    let entry = find(state, target, call).await?;
    render::object(target, form, &entry, call)
}

/// An option of long ago, of which upstream still says that it is gone.
fn refuse_export(call: &Call) -> Result<(), Status> {
    if call.query.flag("export") {
        return Err(Status::bad_request("the export parameter, deprecated since v1.14, is no longer supported"));
    }
    Ok(())
}

/// The object that a request names, as fresh as its `resourceVersion` asks for.
pub(crate) async fn find(state: &State, target: &Target, call: &Call) -> Result<Arc<Entry>, Status> {
    let info = call.info();
    let asked = call.query.text("resourceVersion");
    match asked {
        "" => {
            state.caches.catch_up().await;
        }
        asked => {
            let revision = options::revision(asked).map_err(|why| {
                let quoted = corten_api::field::quoted(asked);
                Status::failure(500, "", format!("resourceVersion: Invalid value: {quoted}: {why}"))
            })?;
            not_before(state, revision).await?;
        }
    }
    let namespace = if target.resource.namespaced { info.namespace.as_str() } else { "" };
    let name = crate::stream::object_name(info);
    target.check_name(name)?;
    target.cache()?.get(&cache::key(namespace, name)).ok_or_else(|| target.not_found(name))
}

/// `GET` of a collection.
pub(crate) async fn list(state: &Arc<State>, target: &Target, call: &Call, mut options: ListOptions) -> Result<Response, Status> {
    let form = form(call, Endpoint::List)?;
    let filter = filter(target, call, &mut options)?;
    let cache = target.cache()?;
    let page = page(state, cache, &options, &filter).await?;
    render::list(target, form, page, call)
}

/// Selectors and namespace of a request on a collection.
pub(crate) fn filter(target: &Target, call: &Call, options: &mut ListOptions) -> Result<Filter, Status> {
    let namespace = if target.resource.namespaced { call.info().namespace.clone() } else { String::new() };
    let fields = target.known_fields(std::mem::take(&mut options.fields))?;
    Ok(Filter { namespace, labels: std::mem::take(&mut options.labels), fields })
}

/// What a list shows.
pub(crate) struct Page {
    pub items: Items,
    pub meta: ListMeta,
}

/// Finds what a list shows, by the rules for `resourceVersion`, `limit` and `continue`.
pub(crate) async fn page(state: &State, cache: &Arc<Cache>, options: &ListOptions, filter: &Filter) -> Result<Page, Status> {
    let mut limit = usize::try_from(options.limit).unwrap_or(0);
    let continuation = options.continuation.as_str();
    // One object has no pages, and upstream's cache sends what it has as a whole to whoever takes anything.
    if options.resource_version == "0" || (continuation.is_empty() && filter.names_one(cache.spec().namespaced)) {
        limit = 0;
    }
    if limit == 0
        && continuation.is_empty()
        && let Some(page) = indexed(state, cache, options, filter).await
    {
        return Ok(page);
    }
    let scope = if filter.namespace.is_empty() { String::new() } else { format!("{}/", filter.namespace) };
    let (map, revision, from) = if continuation.is_empty() {
        let (map, revision) = first_snapshot(state, cache, options, limit > 0).await?;
        (map, revision, Bound::Unbounded)
    } else {
        let token = Token::decode(continuation)?;
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(why));
        }
        let (map, revision) = if token.revision < 0 {
            newest(state, cache).await
        } else {
            let revision = token.revision as u64;
            (at(state, cache, revision).await.map_err(|err| expired_page(err, &token))?, revision)
        };
        (map, revision, token.start(&scope))
    };
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    if limit == 0 {
        let items = Items::Range { map, filter: filter.clone(), from };
        return Ok(Page { items, meta });
    }
    let mut items = Vec::with_capacity(limit.min(1024));
    // What the selector for a node or the like does not find in the index is not looked at; of everything else the client is
    // told that there is more before anybody knows whether it is selected.
    let looked_at = |entry: &Entry| {
        !continuation.is_empty()
            || INDEXED.iter().all(|field| match filter.fields.exact(field) {
                Some(value) => entry.field(field) == Some(value),
                None => true,
            })
    };
    let mut rest = cache::range_from(&map, &filter.namespace, from).filter(|(_, entry)| looked_at(entry));
    let mut last = None;
    let mut fetched = 0;
    let selected = rest.by_ref().inspect(|_| fetched += 1).filter(|(_, entry)| filter.selects(entry));
    for (key, entry) in selected.take(limit) {
        items.push(entry.clone());
        last = Some(key.clone());
    }
    cache.tally().scanned.add(fetched, items.len());
    if let Some(last) = last
        && items.len() == limit
        && rest.next().is_some()
    {
        let key = last.strip_prefix(scope.as_str()).unwrap_or(&last);
        meta.continuation = Token::after(key, revision as i64).encode();
        // With selectors the rest would have to be looked through, so nobody is told.
        if filter.is_everything() {
            meta.remaining = Some(rest.count() + 1);
        }
    }
    Ok(Page { items: Items::Page(items), meta })
}

/// The newest objects that a selector for exact values selects, without a look at all the others.
async fn indexed(state: &State, cache: &Cache, options: &ListOptions, filter: &Filter) -> Option<Page> {
    let exact = filter.exact();
    if exact.is_empty() || !matches!(options.resource_version.as_str(), "" | "0") {
        return None;
    }
    if options.resource_version.is_empty() {
        state.caches.catch_up().await;
    }
    let revision = state.caches.applied();
    let mut items = cache.with_values(&exact)?;
    let (found, fetched) = (filter.asks_one_thing(), items.len());
    items.retain(|entry| filter.is_in_namespace(entry) && (found || filter.selects(entry)));
    cache.tally().indexed.add(fetched, items.len());
    Some(Page { items: Items::Page(items), meta: ListMeta { revision, ..ListMeta::default() } })
}

/// The state that a list without a token shows.
async fn first_snapshot(
    state: &State,
    cache: &Arc<Cache>,
    options: &ListOptions,
    is_limited: bool,
) -> Result<(Map, u64), Status> {
    let asked = options.resource_version.as_str();
    let revision = options::revision(asked).map_err(|why| {
        let quoted = corten_api::field::quoted(asked);
        Status::bad_request(format!("invalid resource version: resourceVersion: Invalid value: {quoted}: {why}"))
    })?;
    match (asked, options.version_match.as_str()) {
        ("", _) => Ok(newest(state, cache).await),
        // No state has this number, so what is asked for in more digits than one is the newest.
        (asked, how) if revision == 0 && asked != "0" && (how == "Exact" || (how.is_empty() && is_limited)) => {
            Ok(newest(state, cache).await)
        }
        (_, "Exact") => {
            not_before(state, revision).await?;
            Ok((at(state, cache, revision).await.map_err(expired)?, revision))
        }
        // Upstream reads a limited list at a revision without a match rule as exact.
        (asked, "") if asked != "0" && is_limited => {
            not_before(state, revision).await?;
            Ok((at(state, cache, revision).await.map_err(expired)?, revision))
        }
        _ => {
            not_before(state, revision).await?;
            Ok(now(state, cache))
        }
    }
}

async fn newest(state: &State, cache: &Cache) -> (Map, u64) {
    state.caches.catch_up().await;
    cache.tally().consistent.add(1);
    now(state, cache)
}

/// The state of this moment, and a revision from which a watch misses nothing.
pub(crate) fn now(state: &State, cache: &Cache) -> (Map, u64) {
    let applied = state.caches.applied();
    let map = cache.snapshot();
    (map, applied)
}

/// Waits until `revision` is visible, for a while.
pub(crate) async fn not_before(state: &State, revision: u64) -> Result<(), Status> {
    visible(state, revision, Instant::now() + CATCH_UP).await
}

/// Waits until `revision` is visible, for a while, and not past `deadline`.
pub(crate) async fn visible(state: &State, revision: u64, deadline: Instant) -> Result<(), Status> {
    let until = deadline.min(Instant::now() + CATCH_UP);
    if tokio::time::timeout_at(until, state.caches.wait_for(revision)).await.is_ok() {
        return Ok(());
    }
    let current = state.caches.applied();
    let why = format!("Timeout: Too large resource version: {revision}, current: {current}");
    let mut status = Status::failure(504, "Timeout", why);
    status.details = Some(Details {
        causes: vec![Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..Details::default()
    });
    Err(status)
}

/// The state at a revision: from the cache's recent past, or else from the store's history.
async fn at(state: &State, cache: &Arc<Cache>, revision: u64) -> Result<Map, ReadError> {
    if let Ok(map) = cache.snapshot_at(revision) {
        return Ok(map);
    }
    let spec = cache.spec();
    let mut map = Map::new();
    let mut after: Option<String> = None;
    loop {
        let page = state.store.range(&spec.prefix, after.as_deref(), 5000, Some(Revision(revision))).await?;
        for kv in &page.items {
            let entry = Entry::new(&spec.layout, &kv.key, &kv.value, kv.modified.0, spec.fields.as_ref());
            if let (Ok(entry), Some(key)) = (entry, kv.key.strip_prefix(&spec.prefix)) {
                map.insert(key.into(), Arc::new(entry));
            }
        }
        match page.items.last() {
            Some(last) if page.more => after = Some(last.key.clone()),
            _ => {
                cache.tally().stored.add(map.len(), map.len());
                return Ok(map);
            }
        }
    }
}

fn expired(err: ReadError) -> Status {
    match err {
        ReadError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old.").because(err),
        ReadError::Future { .. } => Status::internal("the revision is not reached").because(err),
        ReadError::Backend(_) => Status::internal("the store could not be read").because(err),
    }
}

fn expired_page(err: ReadError, token: &Token) -> Status {
    if !matches!(err, ReadError::Compacted { .. }) {
        return expired(err);
    }
    let why = "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
               the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
               Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
               deleted between the time the first chunk was returned and now may show up in the list.";
    let mut status = Status::expired(why);
    status.metadata.insert("continue".into(), token.on_newest().encode().into());
    status
}

/// The form of a request's answer.
pub(crate) fn form(call: &Call, endpoint: Endpoint) -> Result<Form, Status> {
    let endpoint = match endpoint {
        Endpoint::Object if WITHOUT_TABLES.contains(&call.info().subresource.as_str()) => Endpoint::Action,
        endpoint => endpoint,
    };
    negotiate::accept(call.header(header::ACCEPT), endpoint, wants_pretty(call))
}

/// Whether JSON is indented.
pub(crate) fn wants_pretty(call: &Call) -> bool {
    negotiate::wants_pretty(&call.query, call.header(header::USER_AGENT))
}
