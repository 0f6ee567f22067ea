//! Watch: the protocol of one connection, from its first state to its end. One task of the connection drives it; nothing
//! is held but a place in the cache's queues.

mod stream;

use stream::{BOOKMARK_EVERY, Phase, Stream, next_bookmark};

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use corten_api::status::Status;

use super::options::{self, ListOptions};
use super::read;
use super::render::{self, ItemWriter};
use super::target::{Filter, Target};
use crate::cache::{self, Event, Interest, Watcher};
use crate::negotiate::{Encoding, Endpoint, Shape};
use crate::pipeline::Call;
use crate::response::{self, Body, Response};
use crate::socket::{self, Framing};
use crate::state::State;

/// `GET` with `watch=true`.
pub(crate) async fn watch(
    state: &Arc<State>,
    target: &Target,
    call: &Call,
    mut options: ListOptions,
) -> Result<Response, Status> {
    let mut form = read::form(call, Endpoint::Watch)?;
    if form.shape == Shape::Table || target.resource.custom {
        // Neither Tables nor custom resources have a protobuf form.
        form.encoding = Encoding::Json;
    }
    let include = render::table_options(call, form)?;
    let filter = read::filter(target, call, &mut options)?;
    let asked = options.resource_version.as_str();
    let revision = options::revision(asked).map_err(|why| {
        let quoted = corten_api::field::quoted(asked);
        Status::failure(500, "", format!("resourceVersion: Invalid value: {quoted}: {why}"))
    })?;
    let cache = target.cache()?.clone();
    let lasts = length(options.timeout).unwrap_or_else(|| usual_length(state.config.min_request_timeout));
    let now = Instant::now();
    let start = start(state, &cache, &options, revision, &filter, now + lasts).await?;
    // A little before the minute on the first round, so that clients of one restart do not all come at once.
    let next_bookmark = next_bookmark(now, now + lasts, BOOKMARK_EVERY.mul_f64(rand::rng().random_range(0.8..1.0)));
    let stream = Stream {
        writer: ItemWriter::new(target, form, include),
        encoding: form.encoding,
        shares: form.encoding == Encoding::Json
            && form.shape == Shape::Whole
            && target.is_stored_form()
            && filter.is_everything(),
        filter,
        no_events: form.of_list.then_some(false),
        phase: start.phase,
        watcher: start.watcher,
        began: start.revision,
        sent: start.revision,
        bookmarks: options.bookmarks,
        end_mark: wants_list(&options),
        listing: wants_list(&options).then(|| (call.since, state.metrics.requests.watch_list(call.info()))),
        first_row: true,
        counted: state.metrics.requests.watched(call.info()),
        deadline: now + lasts,
        next_bookmark,
        alarm: Box::pin(tokio::time::sleep_until(if options.bookmarks { next_bookmark.min(now + lasts) } else { now + lasts })),
        caches: state.caches.clone(),
        stop: Box::pin(state.tasks.stop_token().cancelled_owned()),
    };
    let stream = futures::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next().await?;
        Some((Ok(piece), stream))
    });
    if let Some(wish) = socket::wished(call) {
        return Ok(wish.fulfil(state, Framing::Events(form.encoding), stream));
    }
    let content_type = match form.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    Ok(response::bytes(200, content_type, Body::stream(stream)))
}

/// Whether the client wants the state there is, and to be told where it ends.
fn wants_list(options: &ListOptions) -> bool {
    options.initial_events == Some(true) && options.bookmarks
}

/// How long a watch is asked to last, if it is: in nanoseconds as they come out of 64 bits, so that what is negative in them is
/// over at once, as upstream.
fn length(seconds: Option<i64>) -> Option<Duration> {
    let nanoseconds = seconds?.wrapping_mul(1_000_000_000);
    (nanoseconds != 0).then(|| Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)))
}

/// A watch lasts for a while only, so that clients spread over servers; by chance, so that they do not end together.
fn usual_length(shortest: Duration) -> Duration {
    shortest.mul_f64(1.0 + rand::rng().random::<f64>())
}

/// Where a watch begins.
struct Start {
    phase: Phase,
    watcher: Watcher,
    revision: u64,
}

async fn start(
    state: &State,
    cache: &Arc<cache::Cache>,
    options: &ListOptions,
    revision: u64,
    filter: &Filter,
    deadline: Instant,
) -> Result<Start, Status> {
    let interest = interest(filter, cache);
    let wants_state = match options.initial_events {
        Some(wanted) => wanted,
        // Without a revision the client gets the newest state first, with 0 whatever there is.
        None => revision == 0,
    };
    if wants_state {
        if options.resource_version != "0" {
            state.caches.catch_up().await;
        }
        // Who asks for what is not there yet has a watch already, and is told in it that it did not come.
        if let Err(status) = read::visible(state, revision, deadline).await {
            let (_, watcher) = cache.watch(Interest::Object("".into()));
            return Ok(Start { phase: Phase::Failing(Box::new(status)), watcher, revision });
        }
        let applied = state.caches.applied();
        let (map, watcher) = cache.watch(interest);
        return Ok(Start { phase: Phase::Initial { map, after: None }, watcher, revision: applied });
    }
    let revision = if revision == 0 { state.caches.catch_up().await } else { revision };
    match cache.watch_after(revision, interest.clone()) {
        Ok((past, watcher)) => Ok(Start { phase: Phase::Past(past.into()), watcher, revision }),
        Err(too_old) => match from_history(state, cache, revision, interest).await {
            Some((past, watcher)) => Ok(Start { phase: Phase::Past(past.into()), watcher, revision }),
            None => {
                let (_, watcher) = cache.watch(Interest::Object("".into()));
                let status = Status::expired(too_old.to_string());
                Ok(Start { phase: Phase::Failing(Box::new(status)), watcher, revision })
            }
        },
    }
}

/// Events that the ring has forgotten and the store has not; `None` when it has forgotten them too.
async fn from_history(
    state: &State,
    cache: &Arc<cache::Cache>,
    revision: u64,
    interest: Interest,
) -> Option<(Vec<Arc<Event>>, Watcher)> {
    let spec = cache.spec();
    let mut changes = state.store.watch(&spec.prefix, corten_store::Revision(revision)).ok()?;
    // Watch first, then read up to where the watch began: nothing falls in between.
    let (_, watcher) = cache.watch(interest.clone());
    let until = cache.changed();
    let mut past = Vec::new();
    let mut reached = revision;
    while reached < until {
        let batch = futures::StreamExt::next(&mut changes).await?.ok()?;
        for change in batch {
            reached = change.revision.0;
            if reached > until {
                break;
            }
            past.extend(Event::from_change(spec, &change).map(Arc::new).filter(|event| interest.wants(event)));
        }
    }
    Some((past, watcher))
}

/// The narrowest queue of the cache that has everything the filter selects.
fn interest(filter: &Filter, cache: &cache::Cache) -> Interest {
    if let Some(name) = filter.fields.exact("metadata.name")
        && (!filter.namespace.is_empty() || !cache.is_namespaced())
    {
        return Interest::Object(cache::key(&filter.namespace, name).into());
    }
    if !filter.namespace.is_empty() {
        return Interest::Namespace(filter.namespace.as_str().into());
    }
    // What kubelets ask for: thousands of watchers, of which each pod concerns one.
    match filter.fields.exact("spec.nodeName") {
        Some(node) if !node.is_empty() => Interest::Field("spec.nodeName", node.into()),
        _ => Interest::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_lasts_as_long_as_its_nanoseconds_say_in_64_bits() {
        assert_eq!(length(None), None);
        assert_eq!(length(Some(0)), None);
        assert_eq!(length(Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(length(Some(-1)), Some(Duration::ZERO));
        assert_eq!(length(Some(9_223_372_037)), Some(Duration::ZERO)); // one second more than 64 bits have
        assert_eq!(length(Some(i64::MAX)), Some(Duration::ZERO));
        assert_eq!(length(Some(18_446_744_074)), Some(Duration::from_nanos(290_448_384)));
    }
}
