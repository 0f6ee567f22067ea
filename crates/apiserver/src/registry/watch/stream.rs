//! A running watch: what it sends next.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use corten_api::status::Status;

use crate::cache::{self, Batch, Caches, Entry, Event, EventKind, Feed, Map, Watcher};
use crate::metrics::Watched;
use crate::negotiate::{Encoding, Shape};
use crate::registry::codec;
use crate::registry::render::{self, ItemWriter};
use crate::registry::target::Filter;
use crate::table::IncludeObject;

/// How often a quiet watch is told how far the server is.
pub(super) const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a watch is told for the last time.
const BEFORE_THE_END: Duration = Duration::from_secs(2);
/// Bytes gathered before they are handed to the socket.
const PIECE: usize = 32 << 10;

/// When to tell a quiet watch how far the server is: now and then, and shortly before it ends, so that the client goes on from
/// where it was.
pub(super) fn next_bookmark(now: Instant, deadline: Instant, period: Duration) -> Instant {
    let usual = now + period;
    match deadline.checked_sub(BEFORE_THE_END) {
        Some(last) if last > now => usual.min(last),
        _ => usual,
    }
}

/// What a watch is doing.
pub(super) enum Phase {
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

/// One running watch.
pub(super) struct Stream {
    pub(super) writer: ItemWriter,
    pub(super) encoding: Encoding,
    /// Sends just what every other watch of the same interest sends, so that an event is written once for all of them.
    pub(super) shares: bool,
    /// Set when it wants what no event can be, a list: the watch ends at the first event, and this tells whether it was met.
    pub(super) no_events: Option<bool>,
    pub(super) filter: Filter,
    pub(super) phase: Phase,
    pub(super) watcher: Watcher,
    /// The revision it began after: as long as the server has come no further, there is nothing to tell.
    pub(super) began: u64,
    /// Everything up to this revision was sent, or is of no interest.
    pub(super) sent: u64,
    pub(super) bookmarks: bool,
    pub(super) end_mark: bool,
    /// When the request came, and where it is counted how long the state took to send.
    pub(super) listing: Option<(std::time::Instant, prometheus::Histogram)>,
    pub(super) first_row: bool,
    /// Counts the events that are sent.
    pub(super) counted: Watched,
    pub(super) deadline: Instant,
    pub(super) next_bookmark: Instant,
    /// Rings at the deadline or the next bookmark. Kept armed over many events: arming takes a lock that all watches share.
    pub(super) alarm: Pin<Box<Sleep>>,
    pub(super) caches: Arc<Caches>,
    pub(super) stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stream {
    /// The next piece of the body; `None` ends it.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
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
