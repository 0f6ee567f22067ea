//! The work queue: keys in, each key out once at a time.
//!
//! A key that is added while it waits is one key; a key that is added while a worker has it is handed out again after
//! that worker is done, never to a second one meanwhile. A key can have one deadline, the earliest asked for; handing
//! the key out drops it, because the run that follows decides anew when it wants to look again. Failed keys come back after
//! 5 ms, doubled with every failure up to 1000 s, as client-go's default rate limiter has it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Key;
use crate::backoff::exponential;
use crate::metrics::QueueMetrics;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(1000);

/// A queue of keys. Clones share it.
pub struct Queue<K = Key> {
    shared: Arc<Shared<K>>,
}

/// A key in the hands of a worker. Dropping it tells the queue that the worker is done.
pub struct Work<K: Clone + Ord + Hash = Key> {
    key: K,
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    /// Wakes one waiting worker.
    changed: Notify,
}

struct State<K> {
    /// With the time when each became ready.
    ready: VecDeque<(K, Instant)>,
    /// Keys that want a run: those in `ready`, and those added while a worker has them.
    dirty: HashSet<K>,
    /// With the time when each was handed out.
    running: HashMap<K, Instant>,
    /// Deadlines in order; `deadline_of` finds the one of a key.
    deadlines: BTreeSet<(Instant, K)>,
    deadline_of: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    closed: bool,
    /// Where it is counted, once it has a name.
    counted: Option<QueueMetrics>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Queue")
            .field("ready", &state.ready.len())
            .field("waiting", &state.deadlines.len())
            .field("running", &state.running.len())
            .finish()
    }
}

impl<K: Clone + Ord + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            running: HashMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            failures: HashMap::new(),
            closed: false,
            counted: None,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Counts what happens in it under a name (`workqueue_*`).
    pub(crate) fn count_as(&self, name: &str) {
        let counted = QueueMetrics::of(name);
        let mut state = self.shared.state.lock();
        counted.depth.set(i64::try_from(state.ready.len()).unwrap_or(i64::MAX));
        state.counted = Some(counted);
    }

    /// Asks for a run of `key` as soon as possible.
    pub fn add(&self, key: K) {
        if self.shared.state.lock().add(key) {
            self.shared.changed.notify_one();
        }
    }

    /// Asks for a run of `key` after `delay`, or at an earlier deadline that it already has.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let first = {
            let mut state = self.shared.state.lock();
            // Beyond what the clock can represent is as good as never.
            let Some(at) = Instant::now().checked_add(delay) else { return };
            state.set_deadline(key, at)
        };
        if first {
            self.shared.changed.notify_one();
        }
    }

    /// Asks for a run of `key` after the delay that its number of failures in a row calls for, and counts one more.
    pub fn retry(&self, key: K) {
        let failures = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            let before = *failures - 1;
            if let Some(counted) = &state.counted {
                counted.retries.inc();
            }
            before
        };
        self.add_after(key, exponential(FIRST_RETRY, LONGEST_RETRY, failures));
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often in a row `key` has failed.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Number of keys that are ready to be handed out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key is ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the queue: [`Queue::next`] returns `None` from now on.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_waiters();
        self.shared.changed.notify_one();
    }

    /// The next key, as soon as there is one; `None` when the queue is closed.
    pub async fn next(&self) -> Option<Work<K>> {
        loop {
            let deadline = {
                let mut state = self.shared.state.lock();
                if state.closed {
                    drop(state);
                    // Whoever waits besides us must see it too.
                    self.shared.changed.notify_one();
                    return None;
                }
                state.wake(Instant::now());
                if let Some(key) = state.take() {
                    let more = !state.ready.is_empty() || !state.deadlines.is_empty();
                    drop(state);
                    if more {
                        self.shared.changed.notify_one();
                    }
                    return Some(Work { key, shared: self.shared.clone() });
                }
                state.deadlines.first().map(|(at, _)| *at)
            };
            match deadline {
                Some(at) => tokio::select! {
                    () = self.shared.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.shared.changed.notified().await,
            }
        }
    }
}

impl<K: Clone + Ord + Hash> State<K> {
    /// Whether a worker has something new to do.
    fn add(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) {
            return false;
        }
        if let Some(counted) = &self.counted {
            counted.adds.inc();
        }
        if self.running.contains_key(&key) {
            return false;
        }
        self.push(key);
        true
    }

    fn push(&mut self, key: K) {
        if let Some(counted) = &self.counted {
            counted.depth.inc();
        }
        self.ready.push_back((key, Instant::now()));
    }

    /// Whether the earliest deadline of all has changed.
    fn set_deadline(&mut self, key: K, at: Instant) -> bool {
        if self.closed {
            return false;
        }
        if let Some(&known) = self.deadline_of.get(&key) {
            if known <= at {
                return false;
            }
            self.deadlines.remove(&(known, key.clone()));
        }
        self.deadline_of.insert(key.clone(), at);
        self.deadlines.insert((at, key));
        self.deadlines.first().is_some_and(|(first, _)| *first == at)
    }

    /// Makes ready what is due.
    fn wake(&mut self, now: Instant) {
        while self.deadlines.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.deadlines.pop_first().expect("there is a first one");
            self.deadline_of.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let (key, since) = self.ready.pop_front()?;
        let now = Instant::now();
        if let Some(counted) = &self.counted {
            counted.depth.dec();
            counted.waited.observe((now - since).as_secs_f64());
        }
        self.dirty.remove(&key);
        if let Some(at) = self.deadline_of.remove(&key) {
            self.deadlines.remove(&(at, key.clone()));
        }
        self.running.insert(key.clone(), now);
        Some(key)
    }
}

impl<K: Clone + Ord + Hash> Work<K> {
    /// The key.
    pub const fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Clone + Ord + Hash> Deref for Work<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.key
    }
}

impl<K: Clone + Ord + Hash + fmt::Debug> fmt::Debug for Work<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl<K: Clone + Ord + Hash> Drop for Work<K> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let (Some(since), Some(counted)) = (state.running.remove(&self.key), &state.counted) {
            counted.worked.observe(since.elapsed().as_secs_f64());
        }
        if state.dirty.contains(&self.key) {
            state.push(self.key.clone());
            drop(state);
            self.shared.changed.notify_one();
        }
    }
}
