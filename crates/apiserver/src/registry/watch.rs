//! Watch: the protocol of one connection, from its first state to its end. One task of the connection drives it; nothing
//! is held but a place in the cache's queues.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use corten_api::status::Status;

use super::codec;
use super::options::{self, ListOptions};
use super::read;
use super::render::{self, ItemWriter};
use super::target::{Filter, Target};
use crate::cache::{self, Batch, Caches, Entry, Event, EventKind, Feed, Interest, Map, Watcher};
use crate::metrics::Watched;
use crate::negotiate::{Encoding, Endpoint, Shape};
use crate::pipeline::Call;
use crate::response::{self, Body, Response};
use crate::socket::{self, Framing};
use crate::state::State;
use crate::table::IncludeObject;

/// How often a quiet watch is told how far the server is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a watch is told for the last time.
const BEFORE_THE_END: Duration = Duration::from_secs(2);
/// Bytes gathered before they are handed to the socket.
const PIECE: usize = 32 << 10;

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

/// When to tell a quiet watch how far the server is: now and then, and shortly before it ends, so that the client goes on from
/// where it was.
fn next_bookmark(now: Instant, deadline: Instant, period: Duration) -> Instant {
    let usual = now + period;
    match deadline.checked_sub(BEFORE_THE_END) {
        Some(last) if last > now => usual.min(last),
        _ => usual,
    }
}

/// Where a watch begins.
struct Start {
    phase: Phase,
    watcher: Watcher,
    revision: u64,
}

/// What a watch is doing.
enum Phase {
    /// Sending the objects there were at its start, those behind `after`.
    Initial { map: Map, after: Option<Arc<str>> },
    /// Sending events that were there before it began.
    Past(VecDeque<Arc<Event>>),
    /// Sending what comes.
    Live,
    /// Telling the client that it cannot go on.
    Failing(Box<Status>),
    /// Nothing more will come.
    Ended,
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

/// One running watch.
struct Stream {
    writer: ItemWriter,
    encoding: Encoding,
    /// Sends just what every other watch of the same interest sends, so that an event is written once for all of them.
    shares: bool,
    /// Set when it wants what no event can be, a list: the watch ends at the first event, and this tells whether it was met.
    no_events: Option<bool>,
    filter: Filter,
    phase: Phase,
    watcher: Watcher,
    /// The revision it began after: as long as the server has come no further, there is nothing to tell.
    began: u64,
    /// Everything up to this revision was sent, or is of no interest.
    sent: u64,
    bookmarks: bool,
    end_mark: bool,
    /// When the request came, and where it is counted how long the state took to send.
    listing: Option<(std::time::Instant, prometheus::Histogram)>,
    first_row: bool,
    /// Counts the events that are sent.
    counted: Watched,
    deadline: Instant,
    next_bookmark: Instant,
    /// Rings at the deadline or the next bookmark. Kept armed over many events: arming takes a lock that all watches share.
    alarm: Pin<Box<Sleep>>,
    caches: Arc<Caches>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stream {
    /// The next piece of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        // A watch that never runs out of events does not come to look at its alarm.
        if Instant::now() >= self.deadline && !matches!(self.phase, Phase::Failing(_)) {
            return None;
        }
        loop {
            if self.shares && matches!(self.phase, Phase::Live) {
                match self.watcher.try_next() {
                    Some(Feed::Batch(batch)) => return Some(self.shared(&batch)),
                    Some(Feed::Cut) => return None,
                    None => {}
                }
            }
            match self.step(&mut out) {
                Ok(()) => {}
                Err(status) => self.phase = Phase::Failing(Box::new(status)),
            }
            if !out.is_empty() {
                self.counted.flush();
                return Some(out.into());
            }
            if matches!(self.phase, Phase::Ended) {
                return None;
            }
            if !matches!(self.phase, Phase::Live) {
                continue;
            }
            tokio::select! {
                // The events first: to ask the others costs locks that all watches share, and is done when there are none.
                biased;
                feed = self.watcher.next() => match feed {
                    Feed::Batch(batch) if self.shares => return Some(self.shared(&batch)),
                    Feed::Batch(batch) => {
                        if let Err(status) = self.events(&mut out, &batch) {
                            self.phase = Phase::Failing(Box::new(status));
                        }
                    }
                    Feed::Cut => return None,
                },
                () = self.stop.as_mut() => return None,
                () = self.alarm.as_mut() => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        return None;
                    }
                    let due = self.bookmarks && now >= self.next_bookmark;
                    if due {
                        self.next_bookmark = next_bookmark(now, self.deadline, BOOKMARK_EVERY);
                    }
                    let next = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
                    self.alarm.as_mut().reset(next);
                    if !due {
                        continue;
                    }
                    // Read before the queue is emptied: what is applied is in the queue already.
                    let applied = self.caches.applied();
                    if let Err(status) = self.drain(&mut out, usize::MAX) {
                        self.phase = Phase::Failing(Box::new(status));
                        continue;
                    }
                    if applied > self.began {
                        self.sent = self.sent.max(applied);
                        let _ = self.bookmark(&mut out, false);
                    }
                }
            }
        }
    }

    /// Does what can be done without waiting, up to a piece.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<(), Status> {
        match std::mem::replace(&mut self.phase, Phase::Live) {
            Phase::Initial { map, after } => {
                let mut last = None;
                let mut full = false;
                let mut found: Vec<Arc<Entry>> = Vec::new();
                let mut bytes = 0;
                for (key, entry) in cache::range(&map, &self.filter.namespace, after.as_deref()) {
                    if bytes >= PIECE {
                        full = true;
                        break;
                    }
                    last = Some(key);
                    if self.filter.selects(entry) {
                        bytes += entry.size();
                        found.push(entry.clone());
                    }
                }
                let last = last.cloned();
                for entry in found {
                    self.frame(out, "ADDED", &entry)?;
                    self.sent = self.sent.max(entry.revision);
                }
                if full {
                    self.phase = Phase::Initial { map, after: last };
                } else if self.end_mark {
                    self.bookmark(out, true)?;
                    if let Some((since, histogram)) = self.listing.take() {
                        histogram.observe(since.elapsed().as_secs_f64());
                    }
                }
            }
            Phase::Past(mut events) => {
                while let Some(event) = events.pop_front() {
                    self.event(out, &event)?;
                    if out.len() >= PIECE {
                        break;
                    }
                }
                if !events.is_empty() {
                    self.phase = Phase::Past(events);
                }
            }
            Phase::Live => self.drain(out, PIECE)?,
            Phase::Failing(status) => {
                self.error(out, &status);
                self.phase = Phase::Ended;
            }
            Phase::Ended => self.phase = Phase::Ended,
        }
        if self.no_events == Some(true) {
            self.phase = Phase::Ended;
        }
        Ok(())
    }

    /// Sends what waits in the queue, until `enough` bytes are there.
    fn drain(&mut self, out: &mut Vec<u8>, enough: usize) -> Result<(), Status> {
        while out.len() < enough {
            match self.watcher.try_next() {
                Some(Feed::Batch(batch)) => self.events(out, &batch)?,
                Some(Feed::Cut) => {
                    self.phase = Phase::Ended;
                    break;
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Events as all watches of everything see them.
    fn shared(&mut self, batch: &Batch) -> Bytes {
        self.sent = self.sent.max(batch.revision());
        for event in batch.events() {
            self.counted.sent(event.now.size());
        }
        self.counted.flush();
        batch.frames()
    }

    fn events(&mut self, out: &mut Vec<u8>, batch: &Batch) -> Result<(), Status> {
        batch.events().iter().try_for_each(|event| self.event(out, event))
    }

    /// One event as this watcher sees it: a change may bring an object into its selection, or take it out.
    fn event(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<(), Status> {
        self.sent = self.sent.max(event.revision());
        let selected = event.kind != EventKind::Deleted && self.filter.selects(&event.now);
        let was = event.before.as_deref().is_some_and(|before| self.filter.selects(before));
        match (selected, was) {
            (true, false) => self.frame(out, "ADDED", &event.now),
            (true, true) => self.frame(out, "MODIFIED", &event.now),
            (false, true) if event.kind == EventKind::Deleted => self.frame(out, "DELETED", &event.now),
            (false, true) => match event.left() {
                Some(left) => self.frame(out, "DELETED", &left.clone()),
                None => Ok(()),
            },
            (false, false) => Ok(()),
        }
    }

    fn frame(&mut self, out: &mut Vec<u8>, kind: &str, entry: &Entry) -> Result<(), Status> {
        if let Some(met) = &mut self.no_events {
            *met = true;
            return Ok(());
        }
        self.counted.sent(entry.size());
        if self.writer.shape == Shape::Table {
            // Rows tell ages.
            self.writer.now = jiff::Timestamp::now();
        }
        let first = std::mem::take(&mut self.first_row);
        if self.encoding == Encoding::Protobuf {
            let mut document = Vec::new();
            self.writer.write_object(&mut document, entry, first)?;
            let document: Value = serde_json::from_slice(&document).map_err(|err| Status::internal(err.to_string()))?;
            return codec::frame(&self.writer.target, out, kind, &document);
        }
        out.reserve(entry.size() + 40);
        out.extend_from_slice(br#"{"type":""#);
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(br#"","object":"#);
        self.writer.write_object(out, entry, first)?;
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    /// An event without an object: how far the client is.
    fn bookmark(&mut self, out: &mut Vec<u8>, end_of_state: bool) -> Result<(), Status> {
        if let Some(met) = &mut self.no_events {
            *met = true;
            return Ok(());
        }
        let mut metadata = json!({"resourceVersion": self.sent.to_string()});
        if end_of_state {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let target = &self.writer.target;
        let stored = codec::empty(&target.resource, target.strategy, metadata);
        let object = match self.writer.shape {
            Shape::Whole => {
                let mut object = stored;
                codec::from_stored(target, &mut object)?;
                object
            }
            Shape::Partial => render::partial(target, self.writer.meta, &stored),
            Shape::Table => {
                let first = std::mem::take(&mut self.first_row);
                let mut object = stored.clone();
                codec::from_stored(target, &mut object)?;
                let shown = if self.writer.include == IncludeObject::Object { &object } else { &stored };
                let row = self.writer.table.row(&stored, shown, self.writer.include, self.writer.now);
                self.writer.table.document(json!({"resourceVersion": self.sent.to_string()}), first, vec![row])
            }
        };
        self.write_event(out, "BOOKMARK", &object)
    }

    fn error(&mut self, out: &mut Vec<u8>, status: &Status) {
        // There is nobody left to tell when even this cannot be written.
        let _ = self.write_event(out, "ERROR", &status.to_document());
    }

    fn write_event(&self, out: &mut Vec<u8>, kind: &str, object: &Value) -> Result<(), Status> {
        if self.encoding == Encoding::Protobuf {
            return codec::frame(&self.writer.target, out, kind, object);
        }
        out.extend_from_slice(json!({"type": kind, "object": object}).to_string().as_bytes());
        out.push(b'\n');
        Ok(())
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
