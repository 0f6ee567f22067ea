//! Who is told about which event. Watchers are indexed by what they can be narrowed down to (one object, one value of a
//! field, one namespace, everything), so that an event wakes only those that may want it. Each has a queue of its own
//! with a bound; who does not keep up is cut off, and nobody waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Event, EventKind};

/// Events a watcher may be behind.
const BEHIND_EVENTS: usize = 16_384;
/// Bytes of objects a watcher may be behind.
const BEHIND_BYTES: usize = 32 << 20;

/// What a watcher can be narrowed down to, whatever else its selectors say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Everything.
    All,
    /// One namespace.
    Namespace(Box<str>),
    /// One object, by `namespace/name`.
    Object(Box<str>),
    /// Objects that have, or had, this value in a selectable field (`spec.nodeName`).
    Field(&'static str, Box<str>),
}

impl Interest {
    /// Whether an event is for this interest.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => event.now.namespace == *namespace,
            Self::Object(key) => super::key_of(&event.now) == **key,
            Self::Field(field, value) => {
                let has = |entry: &super::Entry| entry.field(field) == Some(value);
                has(&event.now) || event.before.as_deref().is_some_and(has)
            }
        }
    }
}

/// Events that come together: of one commit of the store, for one interest. All watchers of the interest share it.
#[derive(Debug)]
pub struct Batch {
    events: Vec<Arc<Event>>,
    bytes: usize,
    frames: OnceLock<Bytes>,
}

/// Bytes of objects in one batch, roughly, at most.
const BATCH_BYTES: usize = 64 << 10;

impl Batch {
    /// The events, in revision order.
    #[must_use]
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.events.last().map_or(0, |event| event.revision())
    }

    /// The events as a watch of everything sends them in JSON, made once for all watchers.
    pub fn frames(&self) -> Bytes {
        let make = || {
            let mut out = Vec::with_capacity(self.bytes + self.events.len() * 40);
            for event in &self.events {
                let kind: &[u8] = match event.kind {
                    EventKind::Added => br#"{"type":"ADDED","object":"#,
                    EventKind::Modified => br#"{"type":"MODIFIED","object":"#,
                    EventKind::Deleted => br#"{"type":"DELETED","object":"#,
                };
                out.extend_from_slice(kind);
                event.now.write(&mut out);
                out.extend_from_slice(b"}\n");
            }
            out.into()
        };
        self.frames.get_or_init(make).clone()
    }
}

/// The receiving end: what a watch connection reads.
pub struct Watcher {
    batches: mpsc::UnboundedReceiver<Arc<Batch>>,
    backlog: Arc<Backlog>,
}

/// What the sender and the receiver of one queue share.
#[derive(Default)]
struct Backlog {
    events: AtomicUsize,
    bytes: AtomicUsize,
    gone: AtomicBool,
}

/// What a watcher gets next.
#[derive(Debug)]
pub enum Feed {
    /// Events that came together.
    Batch(Arc<Batch>),
    /// The watcher was cut off: it was too slow, or the cache started over. The client has to list again or resume.
    Cut,
}

impl Watcher {
    /// Waits for the next events. Cancel safe.
    pub async fn next(&mut self) -> Feed {
        match self.batches.recv().await {
            Some(batch) => self.took(batch),
            None => Feed::Cut,
        }
    }

    /// The next events, if there are some already.
    pub fn try_next(&mut self) -> Option<Feed> {
        match self.batches.try_recv() {
            Ok(batch) => Some(self.took(batch)),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => Some(Feed::Cut),
        }
    }

    fn took(&self, batch: Arc<Batch>) -> Feed {
        self.backlog.events.fetch_sub(batch.events.len(), Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(batch.bytes, Ordering::Relaxed);
        Feed::Batch(batch)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.backlog.gone.store(true, Ordering::Relaxed);
    }
}

struct Sender {
    batches: mpsc::UnboundedSender<Arc<Batch>>,
    backlog: Arc<Backlog>,
}

impl Sender {
    /// Whether the watcher is still worth keeping.
    fn send(&self, batch: &Arc<Batch>) -> bool {
        let waiting = self.backlog.events.fetch_add(batch.events.len(), Ordering::Relaxed);
        let bytes = self.backlog.bytes.fetch_add(batch.bytes, Ordering::Relaxed);
        if waiting >= BEHIND_EVENTS || bytes >= BEHIND_BYTES {
            tracing::info!(waiting, bytes, "a watcher does not keep up and is cut off");
            return false;
        }
        self.batches.send(batch.clone()).is_ok()
    }
}

/// The watchers of one interest.
#[derive(Default)]
struct Group {
    senders: Vec<Sender>,
    /// Events they have not been sent yet.
    waiting: Vec<Arc<Event>>,
}

/// Watchers by interest.
#[derive(Default)]
pub(super) struct Index {
    by_interest: HashMap<Interest, Group>,
    /// Interests that have events waiting for [`Index::flush`].
    touched: Vec<Interest>,
    /// The fields that interests are about, so that an event is looked up only under these.
    fields: Vec<&'static str>,
    /// Additions since gone watchers were last swept out.
    added: usize,
}

impl Index {
    pub(super) fn add(&mut self, interest: Interest) -> Watcher {
        self.added += 1;
        if self.added > 64 && self.added > self.len() {
            self.sweep();
        }
        if let Interest::Field(field, _) = interest
            && !self.fields.contains(&field)
        {
            self.fields.push(field);
        }
        let (sender, batches) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let sender = Sender { batches: sender, backlog: backlog.clone() };
        self.by_interest.entry(interest).or_default().senders.push(sender);
        Watcher { batches, backlog }
    }

    /// Puts an event into the queues of those who may want it; they are woken by [`Self::flush`].
    pub(super) fn send(&mut self, event: &Arc<Event>) {
        if self.by_interest.is_empty() {
            return;
        }
        self.send_to(&Interest::All, event);
        if !event.now.namespace.is_empty() {
            self.send_to(&Interest::Namespace(event.now.namespace.clone()), event);
        }
        self.send_to(&Interest::Object(super::key_of(&event.now).into()), event);
        for at in 0..self.fields.len() {
            let field = self.fields[at];
            let now = event.now.field(field);
            let before = event.before.as_deref().and_then(|entry| entry.field(field));
            if let Some(value) = now {
                self.send_to(&Interest::Field(field, value.into()), event);
            }
            if let Some(value) = before.filter(|_| before != now) {
                self.send_to(&Interest::Field(field, value.into()), event);
            }
        }
    }

    fn send_to(&mut self, interest: &Interest, event: &Arc<Event>) {
        let Some(group) = self.by_interest.get_mut(interest) else {
            return;
        };
        if group.waiting.is_empty() {
            self.touched.push(interest.clone());
        }
        group.waiting.push(event.clone());
    }

    /// Gives watchers what [`Self::send`] left for them: many events with one wake-up.
    pub(super) fn flush(&mut self) {
        for interest in std::mem::take(&mut self.touched) {
            let Some(group) = self.by_interest.get_mut(&interest) else {
                continue;
            };
            for batch in batches(std::mem::take(&mut group.waiting)) {
                group.senders.retain(|sender| sender.send(&batch));
            }
            if group.senders.is_empty() {
                self.by_interest.remove(&interest);
            }
        }
    }

    fn sweep(&mut self) {
        self.added = 0;
        self.by_interest.retain(|_, group| {
            group.senders.retain(|sender| !sender.backlog.gone.load(Ordering::Relaxed));
            !group.senders.is_empty()
        });
    }

    pub(super) fn cut_all(&mut self) {
        self.by_interest.clear();
        self.touched.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.by_interest.values().map(|group| group.senders.len()).sum()
    }
}

/// Events in batches of a size that is good to send.
fn batches(events: Vec<Arc<Event>>) -> Vec<Arc<Batch>> {
    let mut batches = Vec::new();
    let mut batch = Batch { events: Vec::new(), bytes: 0, frames: OnceLock::new() };
    for event in events {
        let size = event.now.size();
        if batch.bytes + size > BATCH_BYTES && !batch.events.is_empty() {
            let full = Batch { events: std::mem::take(&mut batch.events), bytes: batch.bytes, frames: OnceLock::new() };
            batches.push(Arc::new(full));
            batch.bytes = 0;
        }
        batch.bytes += size;
        batch.events.push(event);
    }
    batches.push(Arc::new(batch));
    batches
}
