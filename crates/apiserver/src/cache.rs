//! The watch cache: the state of every resource as of the newest revision, and its recent past.
//!
//! One feeder reads the store's changes in revision order and applies each to the cache of its resource: a persistent
//! ordered map (a snapshot is a pointer copy), a ring of recent events, and the watchers that care. A write is answered
//! after its revision is applied here, so a read that follows an acknowledged write sees it.

mod entry;
mod feed;
mod postings;
mod tally;
mod watchers;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use parking_lot::RwLock;

pub use entry::{Entry, Fields, Index, Labels, Layout, Malformed};
pub use feed::{Caches, FeedError, Prepared};
pub use postings::By;
pub use tally::{Lists, Tally};
pub use watchers::{Batch, Feed, Interest, Watcher};

/// Entries of one resource by `namespace/name` (or `name`), in the order of the store's keys.
pub type Map = OrdMap<Arc<str>, Arc<Entry>>;

/// What the cache must know of a resource.
pub struct Spec {
    /// API group.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// What the store's keys begin with: `/registry/pods/`.
    pub prefix: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// How its bytes are laid out.
    pub layout: Layout,
    /// How its selectable fields are read; `None` when it has none besides name and namespace.
    pub fields: Option<Fields>,
}

/// The cache of one resource.
pub struct Cache {
    spec: Spec,
    tally: Tally,
    state: RwLock<State>,
}

struct State {
    map: Map,
    postings: postings::Postings,
    /// Events after `floor`, oldest first.
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// A watch may start at this revision or later.
    floor: u64,
    /// Revision of the newest change of this resource.
    changed: u64,
    /// Changes since the start.
    received: u64,
    watchers: watchers::Index,
}

/// A change of one object.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new state; for a deletion the last one, under the revision of the deletion.
    pub now: Arc<Entry>,
    /// The state before.
    pub before: Option<Arc<Entry>>,
    /// The state before under the event's revision, for watchers whose selector it left.
    left: OnceLock<Arc<Entry>>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// How much of the past is kept for each resource.
pub(crate) const RING_EVENTS: usize = 8192;
/// How many bytes of objects the past may keep alive, for each resource.
const RING_BYTES: usize = 8 << 20;

/// A revision that is older than the past kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct TooOld {
    /// What was asked for.
    pub asked: u64,
    /// The oldest there is.
    pub oldest: u64,
}

impl Event {
    /// An event as the store's history tells it; `None` when its bytes are no objects.
    #[must_use]
    pub fn from_change(spec: &Spec, change: &corten_store::Event) -> Option<Self> {
        let entry = |kv: &corten_store::KeyValue| {
            Entry::new(&spec.layout, &kv.key, &kv.value, kv.modified.0, spec.fields.as_ref()).ok().map(Arc::new)
        };
        let before = change.before.as_ref().and_then(entry);
        let (kind, now) = match &change.now {
            Some(kv) if before.is_some() => (EventKind::Modified, entry(kv)?),
            Some(kv) => (EventKind::Added, entry(kv)?),
            None => (EventKind::Deleted, Arc::new(before.as_ref()?.at(change.revision.0))),
        };
        Some(Self { kind, now, before, left: OnceLock::new() })
    }

    /// The revision of the change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.now.revision
    }

    /// The state before, under this event's revision: what a watcher is sent when the object left its selector.
    pub fn left(&self) -> Option<&Arc<Entry>> {
        let before = self.before.as_ref()?;
        Some(self.left.get_or_init(|| Arc::new(before.at(self.now.revision))))
    }

    /// Bytes that the ring keeps alive for it, roughly: the state before. The state after is current, or is the state before of
    /// a later event.
    fn weight(&self) -> usize {
        128 + self.before.as_ref().map_or(0, |before| before.size())
    }
}

impl Cache {
    /// An empty cache as of `revision`.
    #[must_use]
    pub fn new(spec: Spec, revision: u64) -> Self {
        let state = State {
            map: Map::new(),
            postings: postings::Postings::default(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            floor: revision,
            changed: revision,
            received: 0,
            watchers: watchers::Index::default(),
        };
        Self { spec, tally: Tally::default(), state: RwLock::new(state) }
    }

    /// How many changes have come since the start.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state.read().received
    }

    /// What the cache was used for.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What the cache is of.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether objects live in namespaces.
    #[must_use]
    pub fn is_namespaced(&self) -> bool {
        self.spec.namespaced
    }

    /// The newest state.
    #[must_use]
    pub fn snapshot(&self) -> Map {
        self.state.read().map.clone()
    }

    /// One entry by its `namespace/name`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().map.get(key).cloned()
    }

    /// The newest state of all objects that have one of these values, the rarest, in key order; `None` when they have to be
    /// looked for in a snapshot.
    #[must_use]
    pub fn with_values(&self, values: &[(By, &str)]) -> Option<Vec<Arc<Entry>>> {
        let rarest = |postings: &postings::Postings| {
            let lists = values.iter().filter_map(|(by, value)| postings.get(by, value));
            lists.min_by_key(|entries| entries.len()).map(<[_]>::to_vec)
        };
        {
            let state = self.state.read();
            if values.iter().all(|(by, _)| !state.postings.is_wanted(by, &state.map)) {
                return rarest(&state.postings);
            }
        }
        let mut state = self.state.write();
        let state = &mut *state;
        for (by, _) in values {
            state.postings.add(by, &state.map);
        }
        rarest(&state.postings)
    }

    /// Revision of the newest change.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.state.read().changed
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().map.len()
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state at `revision`, found by undoing the changes since; fails when the ring does not reach back so far.
    pub fn snapshot_at(&self, revision: u64) -> Result<Map, TooOld> {
        let state = self.state.read();
        if revision < state.floor {
            return Err(TooOld { asked: revision, oldest: state.floor });
        }
        let mut map = state.map.clone();
        for event in state.ring.iter().rev().take_while(|event| event.revision() > revision) {
            let key = key_of(&event.now);
            match &event.before {
                Some(before) => map.insert(key.into(), before.clone()),
                None => map.remove(&*key),
            };
        }
        Ok(map)
    }

    /// Watches from now on, and returns the state the watch starts from.
    pub fn watch(&self, interest: Interest) -> (Map, Watcher) {
        let mut state = self.state.write();
        let watcher = state.watchers.add(interest);
        (state.map.clone(), watcher)
    }

    /// Watches everything after `revision`: first what the ring has, then what comes.
    pub fn watch_after(&self, revision: u64, interest: Interest) -> Result<(Vec<Arc<Event>>, Watcher), TooOld> {
        let mut state = self.state.write();
        if revision < state.floor {
            return Err(TooOld { asked: revision, oldest: state.floor });
        }
        let from = state.ring.partition_point(|event| event.revision() <= revision);
        let past = state.ring.range(from..).filter(|event| interest.wants(event)).cloned().collect();
        let watcher = state.watchers.add(interest);
        Ok((past, watcher))
    }

    /// Number of watchers.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.state.read().watchers.len()
    }

    /// Takes in changes of the store, and tells the watchers of all of them at once. Called by the feeder alone, in revision
    /// order.
    fn apply(&self, changes: Vec<Change>) {
        let mut state = self.state.write();
        let state = &mut *state;
        for change in changes {
            state.apply(change);
        }
        state.watchers.flush();
    }

    /// Starts over from a full state, after the feed was interrupted. Every watcher is cut off and will list again.
    fn reset(&self, map: Map, revision: u64) {
        self.tally.fills.add(1);
        self.tally.stored.add(map.len(), map.len());
        let mut state = self.state.write();
        state.map = map;
        state.postings.clear();
        state.ring.clear();
        state.ring_bytes = 0;
        state.floor = revision;
        state.changed = revision;
        state.watchers.cut_all();
    }
}

/// One change of the store, for the cache of its resource.
struct Change {
    /// `namespace/name`, or `name`.
    key: Arc<str>,
    revision: u64,
    /// The new state; nothing when the object is gone.
    value: Option<Result<Entry, Malformed>>,
}

impl State {
    fn apply(&mut self, Change { key, revision, value }: Change) {
        if revision <= self.floor {
            // A full read of the store had it already.
            return;
        }
        let event = match value {
            Some(Ok(entry)) => {
                let now = Arc::new(entry);
                let before = self.map.insert(key, now.clone());
                self.postings.change(before.as_ref(), Some(&now));
                let kind = if before.is_some() { EventKind::Modified } else { EventKind::Added };
                Event { kind, now, before, left: OnceLock::new() }
            }
            Some(Err(fault)) => {
                // What cannot be read is not served; the bytes stay in the store for a person to look at.
                tracing::error!(error = %fault.source, key = fault.key, "the store holds bytes that are no object");
                return;
            }
            None => {
                let Some(before) = self.map.remove(&key) else { return };
                self.postings.change(Some(&before), None);
                let now = Arc::new(before.at(revision));
                Event { kind: EventKind::Deleted, now, before: Some(before), left: OnceLock::new() }
            }
        };
        let event = Arc::new(event);
        self.changed = revision;
        self.received += 1;
        self.watchers.send(&event);
        self.ring_bytes += event.weight();
        self.ring.push_back(event);
        while self.ring.len() > RING_EVENTS || (self.ring_bytes > RING_BYTES && self.ring.len() > 1) {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.weight();
            self.floor = oldest.revision();
        }
    }
}

/// `namespace/name`, or `name` for cluster scope.
#[must_use]
pub fn key_of(entry: &Entry) -> String {
    key(&entry.namespace, &entry.name)
}

/// `namespace/name`, or `name` without a namespace.
#[must_use]
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Entries of one namespace (all for the empty name), in key order, with keys greater than `after`.
pub fn range<'a>(
    map: &'a Map,
    namespace: &str,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Entry>)> + use<'a> {
    range_from(map, namespace, after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.into())))
}

/// Entries of one namespace (all for the empty name), in key order, from a key on.
pub fn range_from<'a>(
    map: &'a Map,
    namespace: &str,
    lower: Bound<Arc<str>>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Entry>)> + use<'a> {
    let scope = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    let lower = match lower {
        Bound::Unbounded => Bound::Included(scope.as_str().into()),
        lower => lower,
    };
    let upper: Bound<Arc<str>> = if scope.is_empty() {
        Bound::Unbounded
    } else {
        // '0' follows '/', so this is the first key behind the namespace.
        Bound::Excluded(format!("{namespace}0").into())
    };
    map.range((lower, upper))
}

/// Caches by the prefix of their keys; finds the one a key belongs to.
#[derive(Default)]
struct Prefixes(BTreeMap<String, Arc<Cache>>);

impl Prefixes {
    /// The cache of a key, and the key within it.
    fn find<'k>(&self, key: &'k str) -> Option<(&Arc<Cache>, &'k str)> {
        let (prefix, cache) = self.0.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        Some((cache, key.strip_prefix(prefix.as_str())?))
    }
}
