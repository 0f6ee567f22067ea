//! What is current, in memory, with the recent past: a persistent ordered set, a ring of changes, pinned snapshots for
//! readers that page through a list, and the watchers' queues.
//!
//! Only the writer changes it, under a lock that is held for pointer moves only.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use imbl::OrdSet;
use parking_lot::{Mutex, RwLock};

use super::database::Loaded;
use super::watch::Watcher;
use crate::{Event, KeyValue, Range, ReadError, Revision, WatchError};

/// A snapshot of all that is current at one revision. Cloning it copies a pointer.
pub(super) type Snapshot = OrdSet<Entry>;

/// A value in a snapshot, ordered and found by its key; the key is kept once.
#[derive(Clone, Debug)]
pub(super) struct Entry(pub(super) Arc<KeyValue>);

/// One change, shared by the ring and by every watcher's queue.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) now: Option<Arc<KeyValue>>,
    pub(super) before: Option<Arc<KeyValue>>,
}

/// Where the state at an older revision is found.
pub(super) enum Position {
    /// In memory.
    Here(Snapshot),
    /// The ring reaches back to `ring`, with the state `undone`; older changes are in the file.
    Before { ring: Revision, undone: Snapshot },
}

pub(super) struct Memory {
    state: RwLock<State>,
    pins: Mutex<VecDeque<(Revision, Snapshot)>>,
    ring_bytes: usize,
}

struct State {
    current: Snapshot,
    revision: Revision,
    /// Older reads are refused.
    compacted: Revision,
    /// Revisions strictly between these may have been seen by a client before a crash that lost their lazy writes.
    lost: (Revision, Revision),
    /// Everything up to here is in the file.
    durable: Revision,
    ring: VecDeque<Arc<Change>>,
    ring_size: usize,
    /// The ring has every change after this one.
    ring_floor: Revision,
    watchers: Vec<Weak<Watcher>>,
    closed: bool,
}

/// Snapshots kept for readers that page.
const PINS: usize = 8;
/// What an event in the ring costs besides its values.
const CHANGE_OVERHEAD: usize = 128;

// === impl Memory ===

impl Memory {
    pub(super) fn new(loaded: Loaded, ring_bytes: usize) -> Self {
        let state = State {
            current: loaded.current,
            revision: loaded.revision,
            compacted: loaded.compacted,
            lost: (loaded.last_row, loaded.revision),
            durable: loaded.revision,
            ring: VecDeque::new(),
            ring_size: 0,
            ring_floor: loaded.revision,
            watchers: Vec::new(),
            closed: false,
        };
        Self { state: RwLock::new(state), pins: Mutex::default(), ring_bytes }
    }

    pub(super) fn revision(&self) -> Revision {
        self.state.read().revision
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        self.state.read().current.get(key).map(|entry| (*entry.0).clone())
    }

    pub(super) fn snapshot(&self) -> (Revision, Snapshot) {
        let state = self.state.read();
        (state.revision, state.current.clone())
    }

    /// The state at `at`, as far as memory has it.
    pub(super) fn snapshot_at(&self, at: Revision) -> Result<Position, ReadError> {
        let (current, newer, floor) = {
            let state = self.state.read();
            state.check_kept(at)?;
            if at == state.revision {
                return Ok(Position::Here(state.current.clone()));
            }
            if let Some((_, pinned)) = self.pins.lock().iter().find(|(revision, _)| *revision == at) {
                return Ok(Position::Here(pinned.clone()));
            }
            let newer: Vec<_> = state.ring.iter().rev().take_while(|c| c.revision > at).cloned().collect();
            (state.current.clone(), newer, state.ring_floor)
        };
        let undone = undo(current, newer.iter().map(|change| &**change));
        Ok(if at >= floor { Position::Here(undone) } else { Position::Before { ring: floor, undone } })
    }

    /// Fails when the state at `at` is no longer kept.
    pub(super) fn check_kept(&self, at: Revision) -> Result<(), ReadError> {
        self.state.read().check_kept(at)
    }

    /// Keeps a snapshot for the reader's next page.
    pub(super) fn pin(&self, revision: Revision, snapshot: Snapshot) {
        let mut pins = self.pins.lock();
        if pins.iter().any(|(pinned, _)| *pinned == revision) {
            return;
        }
        if pins.len() == PINS {
            pins.pop_front();
        }
        pins.push_back((revision, snapshot));
    }

    /// Makes `changes` visible: the state, then the watchers.
    pub(super) fn publish(&self, changes: Vec<Arc<Change>>, current: Snapshot) {
        let Some(last) = changes.last().map(|change| change.revision) else { return };
        let mut state = self.state.write();
        state.current = current;
        state.revision = last;
        state.watchers.retain(|watcher| watcher.upgrade().map(|watcher| watcher.offer(&changes)).is_some());
        for change in changes {
            state.ring_size += change.weight();
            state.ring.push_back(change);
        }
        state.trim(self.ring_bytes);
    }

    /// Whether the file has everything up to `revision`.
    pub(super) fn is_durable(&self, revision: Revision) -> bool {
        self.state.read().durable >= revision
    }

    /// Notes that the file has everything up to `durable`.
    pub(super) fn set_durable(&self, durable: Revision) {
        let mut state = self.state.write();
        state.durable = state.durable.max(durable);
        state.trim(self.ring_bytes);
    }

    /// Refuses reads before `upto` from now on; returns what is refused at last (never more than what is visible).
    pub(super) fn compact(&self, upto: Revision) -> Revision {
        let mut state = self.state.write();
        state.compacted = state.compacted.max(upto.min(state.revision));
        let compacted = state.compacted;
        drop(state);
        self.pins.lock().retain(|(revision, _)| *revision >= compacted);
        compacted
    }

    /// Ends every watch.
    pub(super) fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        for watcher in state.watchers.drain(..).filter_map(|watcher| watcher.upgrade()) {
            watcher.close();
        }
    }

    /// Adds a watcher that has seen everything up to `after`.
    pub(super) fn register(&self, watcher: &Arc<Watcher>, after: Revision) -> Result<(), WatchError> {
        let mut state = self.state.write();
        if state.closed {
            return Err(WatchError::Closed);
        }
        state.check_watchable(after)?;
        if after < state.revision {
            watcher.fall_behind();
        }
        state.watchers.push(Arc::downgrade(watcher));
        Ok(())
    }

    /// Fails when changes after `after` are no longer kept.
    pub(super) fn missed_is_kept(&self, after: Revision) -> Result<(), WatchError> {
        self.state.read().check_watchable(after)
    }

    /// What a watcher that fell behind at `after` has missed.
    pub(super) fn missed(&self, watcher: &Watcher, after: Revision) -> Result<Missed, WatchError> {
        // The write lock: between "you have everything" and the next publication nothing may come.
        let state = self.state.write();
        if state.closed {
            return Err(WatchError::Closed);
        }
        state.check_watchable(after)?;
        if after < state.ring_floor {
            return Ok(Missed::InFile { upto: state.ring_floor });
        }
        let start = state.ring.partition_point(|change| change.revision <= after);
        let changes = state.ring.range(start..).filter(|change| watcher.wants(change)).cloned().collect();
        watcher.catch_up();
        Ok(Missed::Ring { changes, upto: state.revision })
    }
}

/// What a watcher missed.
pub(super) enum Missed {
    /// These; after them it is up to date again.
    Ring { changes: Vec<Arc<Change>>, upto: Revision },
    /// What the file has up to this revision, then ask again.
    InFile { upto: Revision },
}

// === impl State ===

impl State {
    fn is_lost(&self, revision: Revision) -> bool {
        self.lost.0 < revision && revision < self.lost.1
    }

    fn check_kept(&self, at: Revision) -> Result<(), ReadError> {
        if at > self.revision {
            Err(ReadError::Future { asked: at, newest: self.revision })
        } else if self.is_lost(at) {
            Err(ReadError::Compacted { asked: at, oldest: self.lost.1 })
        } else if at < self.compacted {
            Err(ReadError::Compacted { asked: at, oldest: self.compacted })
        } else {
            Ok(())
        }
    }

    fn check_watchable(&self, after: Revision) -> Result<(), WatchError> {
        if self.is_lost(after) {
            Err(WatchError::Compacted { asked: after, oldest: self.lost.1 })
        } else if after < self.compacted {
            Err(WatchError::Compacted { asked: after, oldest: self.compacted })
        } else {
            Ok(())
        }
    }

    /// Drops the oldest changes that are in the file too, until the ring is small enough.
    fn trim(&mut self, limit: usize) {
        while self.ring_size > limit && self.ring.front().is_some_and(|change| change.revision <= self.durable) {
            if let Some(change) = self.ring.pop_front() {
                self.ring_size -= change.weight();
                self.ring_floor = change.revision;
            }
        }
    }
}

// === impl Change ===

impl Change {
    /// The key that changed.
    pub(super) fn key(&self) -> &str {
        let value = self.now.as_ref().or(self.before.as_ref());
        &value.expect("a change has a state before or after it").key
    }

    /// Bytes that the ring keeps alive for it, roughly: the state before; the state after is current or is the next
    /// change's state before.
    fn weight(&self) -> usize {
        CHANGE_OVERHEAD + self.before.as_ref().map_or(0, |before| before.key.len() + before.value.len())
    }

    pub(super) fn to_event(&self) -> Event {
        let own = |value: &Option<Arc<KeyValue>>| value.as_ref().map(|value| (**value).clone());
        Event { revision: self.revision, key: self.key().to_owned(), now: own(&self.now), before: own(&self.before) }
    }
}

// === impl Entry ===

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

// === pure helpers ===

/// The state before `newest_first`.
pub(super) fn undo<'a>(mut snapshot: Snapshot, newest_first: impl Iterator<Item = &'a Change>) -> Snapshot {
    for change in newest_first {
        match &change.before {
            Some(before) => drop(snapshot.insert(Entry(before.clone()))),
            None => drop(snapshot.remove(change.key())),
        }
    }
    snapshot
}

/// A page of `snapshot`.
pub(super) fn page(snapshot: &Snapshot, prefix: &str, after: Option<&str>, limit: usize, revision: Revision) -> Range {
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut left = snapshot.range::<_, str>((from, Bound::Unbounded)).take_while(|entry| entry.0.key.starts_with(prefix));
    let items = left.by_ref().take(limit).map(|entry| (*entry.0).clone()).collect();
    Range { revision, items, more: left.next().is_some() }
}
