//! Who is told about which event. Watchers are indexed by what they can be narrowed down to (one object, one value of a
//! field, one namespace, everything), so that an event wakes only those that may want it. Each has a queue of its own
//! with a bound; who does not keep up is cut off, and nobody waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::Event;

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

/// The receiving end: what a watch connection reads.
pub struct Watcher {
    events: mpsc::UnboundedReceiver<Arc<Event>>,
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
    /// An event.
    Event(Arc<Event>),
    /// The watcher was cut off: it was too slow, or the cache started over. The client has to list again or resume.
    Cut,
}

impl Watcher {
    /// Waits for the next event. Cancel safe.
    pub async fn next(&mut self) -> Feed {
        match self.events.recv().await {
            Some(event) => self.took(event),
            None => Feed::Cut,
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Feed> {
        match self.events.try_recv() {
            Ok(event) => Some(self.took(event)),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => Some(Feed::Cut),
        }
    }

    fn took(&self, event: Arc<Event>) -> Feed {
        self.backlog.events.fetch_sub(1, Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(event.now.bytes().len(), Ordering::Relaxed);
        Feed::Event(event)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.backlog.gone.store(true, Ordering::Relaxed);
    }
}

struct Sender {
    events: mpsc::UnboundedSender<Arc<Event>>,
    backlog: Arc<Backlog>,
}

impl Sender {
    /// Whether the watcher is still worth keeping.
    fn send(&self, event: &Arc<Event>) -> bool {
        let waiting = self.backlog.events.fetch_add(1, Ordering::Relaxed);
        let bytes = self.backlog.bytes.fetch_add(event.now.bytes().len(), Ordering::Relaxed);
        if waiting >= BEHIND_EVENTS || bytes >= BEHIND_BYTES {
            tracing::info!(waiting, bytes, "a watcher does not keep up and is cut off");
            return false;
        }
        self.events.send(event.clone()).is_ok()
    }
}

/// Watchers by interest.
#[derive(Default)]
pub(super) struct Index {
    by_interest: HashMap<Interest, Vec<Sender>>,
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
        let (sender, events) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        self.by_interest.entry(interest).or_default().push(Sender { events: sender, backlog: backlog.clone() });
        Watcher { events, backlog }
    }

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
        let Some(senders) = self.by_interest.get_mut(interest) else {
            return;
        };
        senders.retain(|sender| sender.send(event));
        if senders.is_empty() {
            self.by_interest.remove(interest);
        }
    }

    fn sweep(&mut self) {
        self.added = 0;
        self.by_interest.retain(|_, senders| {
            senders.retain(|sender| !sender.backlog.gone.load(Ordering::Relaxed));
            !senders.is_empty()
        });
    }

    pub(super) fn cut_all(&mut self) {
        self.by_interest.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.by_interest.values().map(Vec::len).sum()
    }
}
