//! Watches: each has a short queue that the writer fills. A watcher that is slower than its queue reads what it missed
//! from the ring, then from the file; when history is gone it is cut off. A slow watcher costs no memory.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::database::Reader;
use super::memory::{Change, Memory, Missed};
use crate::{Event, Revision, Watch, WatchError};

/// Changes a queue holds before its watcher counts as behind.
const QUEUE: usize = 256;
/// Changes read from the file at a time.
const FILE_BATCH: usize = 256;

/// The writer's end of a watch.
pub(super) struct Watcher {
    prefix: String,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Arc<Change>>,
    /// Changes were left out after those in the queue.
    behind: bool,
    closed: bool,
}

/// Starts a watch on `prefix` for a client that has seen everything up to `after`.
pub(super) fn start(memory: &Arc<Memory>, reader: &Arc<Reader>, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
    let watcher = Arc::new(Watcher { prefix: prefix.to_owned(), queue: Mutex::default(), wake: Notify::new() });
    memory.register(&watcher, after)?;
    let end = End { watcher, memory: memory.clone(), reader: reader.clone(), seen: after, failed: false };
    Ok(Box::pin(futures::stream::unfold(end, |mut end| async move {
        if end.failed {
            return None;
        }
        let batch = end.next().await;
        end.failed = batch.is_err();
        Some((batch, end))
    })))
}

/// The client's end of a watch.
struct End {
    watcher: Arc<Watcher>,
    memory: Arc<Memory>,
    reader: Arc<Reader>,
    /// Everything up to here was delivered.
    seen: Revision,
    failed: bool,
}

impl End {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let (changes, behind, closed) = self.watcher.take();
            if let Some(events) = self.deliver(&changes) {
                return Ok(events);
            }
            if behind {
                if let Some(events) = self.catch_up().await? {
                    return Ok(events);
                }
                continue;
            }
            if closed {
                return Err(WatchError::Closed);
            }
            self.watcher.wake.notified().await;
        }
    }

    async fn catch_up(&mut self) -> Result<Option<Vec<Event>>, WatchError> {
        match self.memory.missed(&self.watcher, self.seen)? {
            Missed::Ring { changes, upto } => {
                let events = self.deliver(&changes);
                self.seen = self.seen.max(upto);
                Ok(events)
            }
            Missed::InFile { upto } => {
                let asked = self.seen;
                let read = self.reader.changes_forward(&self.watcher.prefix, asked, upto, FILE_BATCH).await;
                // History that the sweep took away while we read shows here, as does the end of the store.
                self.memory.missed_is_kept(asked)?;
                let changes = read.map_err(|source| {
                    tracing::error!(error = %source, "reading history for a watch");
                    WatchError::Compacted { asked, oldest: upto }
                })?;
                let complete = changes.len() < FILE_BATCH;
                let changes: Vec<_> = changes.into_iter().map(Arc::new).collect();
                let events = self.deliver(&changes);
                if complete {
                    self.seen = self.seen.max(upto);
                }
                Ok(events)
            }
        }
    }

    fn deliver(&mut self, changes: &[Arc<Change>]) -> Option<Vec<Event>> {
        // A watch from a revision that is not reached yet starts there, not now.
        let events: Vec<_> = changes.iter().filter(|c| c.revision > self.seen).map(|c| c.to_event()).collect();
        self.seen = self.seen.max(events.last()?.revision);
        Some(events)
    }
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn wants(&self, change: &Change) -> bool {
        change.key().starts_with(&self.prefix)
    }

    /// Queues what the watcher wants of `changes`.
    pub(super) fn offer(&self, changes: &[Arc<Change>]) {
        let mut wanted = changes.iter().filter(|change| self.wants(change)).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let mut queue = self.queue.lock();
        for change in wanted {
            if queue.behind {
                break;
            }
            if queue.changes.len() >= QUEUE {
                queue.behind = true;
            } else {
                queue.changes.push_back(change.clone());
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    pub(super) fn fall_behind(&self) {
        self.queue.lock().behind = true;
    }

    pub(super) fn catch_up(&self) {
        self.queue.lock().behind = false;
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
    }

    fn take(&self) -> (Vec<Arc<Change>>, bool, bool) {
        let mut queue = self.queue.lock();
        (queue.changes.drain(..).collect(), queue.behind, queue.closed)
    }
}
