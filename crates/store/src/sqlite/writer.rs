//! The writer: one thread that owns the file. It takes all writes that wait, checks them against what is current,
//! commits them together, publishes, acknowledges.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Config;
use super::database::{Database, Failure, Lock, Sync};
use super::memory::{Change, Entry, Memory, Snapshot};
use crate::{Durability, Expect, KeyValue, Revision, Write, WriteError};

/// Writes committed together at most.
const BATCH: usize = 1024;
/// Bytes of values committed together, roughly, at most.
const BATCH_BYTES: usize = 8 << 20;
/// Lazy writes that may wait for a commit.
const PENDING: usize = 2048;
/// Compacted rows deleted by one commit at least; more when it writes more, so that the sweep keeps up.
const SWEEP: usize = 256;
/// How often the past is marked for the automatic compaction.
const MARK_EVERY: Duration = Duration::from_secs(10);

/// What the thread is asked to do.
pub(super) enum Message {
    Write(Write, Reply<Revision>),
    Compact(Revision, Reply<()>),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

pub(super) struct Writer {
    database: Database,
    memory: Arc<Memory>,
    messages: Receiver<Message>,
    /// What is visible.
    current: Snapshot,
    revision: Revision,
    /// The last revision used, also by writes that failed then.
    used: Revision,
    /// Visible, not in the file yet.
    pending: Vec<Arc<Change>>,
    /// When `pending` goes to the file by itself; armed only while it is not empty.
    deadline: Option<Instant>,
    lazy_delay: Duration,
    history: Duration,
    history_revisions: u64,
    /// What was the newest revision when, for the automatic compaction.
    marks: VecDeque<(Instant, Revision)>,
    lock: Lock,
}

/// A write whose precondition held.
struct Staged {
    change: Arc<Change>,
    durability: Durability,
    reply: Reply<Revision>,
}

impl Writer {
    pub(super) fn new(
        config: &Config,
        database: Database,
        memory: Arc<Memory>,
        messages: mpsc::Receiver<Message>,
        lock: Lock,
    ) -> Self {
        let (revision, current) = memory.snapshot();
        Self {
            database,
            memory,
            messages,
            current,
            revision,
            used: revision,
            pending: Vec::new(),
            deadline: None,
            lazy_delay: config.lazy_delay,
            history: config.history,
            history_revisions: config.history_revisions,
            marks: VecDeque::from([(Instant::now(), revision)]),
            lock,
        }
    }

    /// Runs until it is told to close. The last owner's drop says so too.
    pub(super) fn run(mut self) {
        let mut next = None;
        let closed = loop {
            match next.take().map_or_else(|| self.wait(), Some) {
                Some(Message::Write(write, reply)) => next = self.write_batch(write, reply),
                Some(Message::Compact(upto, reply)) => {
                    let _ = reply.send(self.compact(upto));
                }
                Some(Message::Flush(done)) => {
                    self.flush(Sync::Now);
                    let _ = done.send(());
                }
                Some(Message::Close(done)) => break Some(done),
                None => break None,
            }
        };
        self.finish();
        if let Some(done) = closed {
            let _ = done.send(());
        }
    }

    /// The next message; flushes lazy writes when their time has come. `None` when nobody can send any more.
    fn wait(&mut self) -> Option<Message> {
        loop {
            let Some(deadline) = self.deadline else { return self.messages.recv().ok() };
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.flush(Sync::Later),
            }
        }
    }

    /// Carries out `write` and all writes that wait behind it; returns the message that ended the batch.
    fn write_batch(&mut self, write: Write, reply: Reply<Revision>) -> Option<Message> {
        let mut staged = Vec::new();
        let mut conflicts = Vec::new();
        let mut current = self.current.clone();
        let (mut bytes, mut count) = (0, 0);
        let mut after = None;
        let mut next = Some((write, reply));
        while let Some((write, reply)) = next.take() {
            let durability = write.durability;
            bytes += write.value.as_ref().map_or(0, bytes::Bytes::len);
            count += 1;
            match stage(&mut current, write, Revision(self.used.0 + 1)) {
                Ok(change) => {
                    self.used = change.revision;
                    staged.push(Staged { change: Arc::new(change), durability, reply });
                }
                Err(conflict) => conflicts.push((conflict, reply)),
            }
            if count >= BATCH || bytes >= BATCH_BYTES {
                break;
            }
            match self.messages.try_recv() {
                Ok(Message::Write(write, reply)) => next = Some((write, reply)),
                Ok(other) => after = Some(other),
                Err(_) => {}
            }
        }
        let outcome = self.commit(&staged);
        match outcome {
            Ok(()) => {
                self.publish(&staged, current);
                for staged in staged {
                    let _ = staged.reply.send(Ok(staged.change.revision));
                }
            }
            Err(failure) => {
                tracing::error!(error = %failure, writes = staged.len(), "the store could not write");
                let failure = Arc::new(failure);
                for staged in staged {
                    let _ = staged.reply.send(Err(backend(staged.change.key(), &failure)));
                }
                // A conflict with a write that failed is none: nobody may learn of a state that never was.
                for (conflict, _) in &mut conflicts {
                    if conflict.current.as_ref().is_some_and(|found| found.modified > self.revision) {
                        conflict.failure = Some(failure.clone());
                    }
                    if conflict.current.is_none() && self.current.contains(conflict.key.as_str()) {
                        conflict.failure = Some(failure.clone());
                    }
                }
            }
        }
        // After the commit: they may tell of states that it made.
        for (conflict, reply) in conflicts {
            let answer = match &conflict.failure {
                Some(failure) => backend(&conflict.key, failure),
                None => WriteError::Conflict { key: conflict.key, current: conflict.current.map(|found| (*found).clone()) },
            };
            let _ = reply.send(Err(answer));
        }
        self.database.tend_log();
        after
    }

    /// Makes the writes as durable as the strictest of them asks.
    fn commit(&mut self, staged: &[Staged]) -> Result<(), Failure> {
        let Some(last) = staged.last() else { return Ok(()) };
        let sync = staged.iter().any(|staged| staged.durability == Durability::Sync);
        let room = last.change.revision <= self.database.reserved && self.pending.len() + staged.len() <= PENDING;
        if !sync && room {
            return Ok(()); // `publish` lets them wait
        }
        self.compact_history();
        let changes: Vec<_> = self.pending.iter().chain(staged.iter().map(|staged| &staged.change)).map(|c| &**c).collect();
        let sweep = SWEEP.max(changes.len() * 4);
        self.database.commit(&changes, last.change.revision, Sync::Now, sweep)?;
        self.pending.clear();
        self.deadline = None;
        self.memory.set_durable(last.change.revision);
        Ok(())
    }

    fn publish(&mut self, staged: &[Staged], current: Snapshot) {
        let Some(last) = staged.last() else { return };
        self.current = current;
        self.revision = last.change.revision;
        let changes: Vec<_> = staged.iter().map(|staged| staged.change.clone()).collect();
        let durable = self.memory.is_durable(self.revision);
        if !durable {
            self.pending.extend(changes.iter().cloned());
            self.deadline.get_or_insert_with(|| Instant::now() + self.lazy_delay);
        }
        self.memory.publish(changes, self.current.clone());
    }

    /// Writes what is pending to the file. A failure leaves it pending and is tried again a delay later.
    fn flush(&mut self, sync: Sync) {
        if let Err(failure) = self.write_pending(sync) {
            tracing::error!(error = %failure, writes = self.pending.len(), "the store could not write lazy writes");
            self.deadline = Some(Instant::now() + self.lazy_delay);
        }
    }

    fn write_pending(&mut self, sync: Sync) -> Result<(), Failure> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = self.pending.iter().map(|c| &**c).collect();
        self.database.commit(&changes, self.used, sync, 0)?;
        self.pending.clear();
        self.deadline = None;
        self.memory.set_durable(self.revision);
        self.database.tend_log();
        Ok(())
    }

    /// Moves the automatic compaction on. Called by commits, so an idle store does not stir.
    fn compact_history(&mut self) {
        let now = Instant::now();
        let mut upto = Revision(self.revision.0.saturating_sub(self.history_revisions));
        while let Some(&(when, revision)) = self.marks.front()
            && now.duration_since(when) >= self.history
        {
            upto = upto.max(revision);
            self.marks.pop_front();
        }
        if self.marks.back().is_none_or(|(when, _)| now.duration_since(*when) >= MARK_EVERY) {
            self.marks.push_back((now, self.revision));
        }
        if upto > Revision(0) {
            // Readers are refused first; the rows go afterwards.
            let compacted = self.memory.compact(upto);
            self.database.compact(compacted);
        }
    }

    fn compact(&mut self, upto: Revision) -> Result<(), WriteError> {
        let failed = |failure| backend("history", &Arc::new(failure));
        let compacted = self.memory.compact(upto);
        self.database.compact(compacted);
        // The sweep follows rows: those that are still pending have to be there.
        self.write_pending(Sync::Later).map_err(failed)?;
        while self.database.sweep_pending() {
            self.database.commit(&[], self.used, Sync::Later, SWEEP * 4).map_err(failed)?;
        }
        Ok(())
    }

    fn finish(mut self) {
        self.flush(Sync::Now);
        self.memory.close();
        let clean = self.pending.is_empty();
        if clean && let Err(failure) = self.database.finish(self.used) {
            tracing::warn!(error = %failure, "closing the store");
        }
        drop(self.lock);
    }
}

/// Why a write's precondition did not hold.
struct Conflict {
    key: String,
    current: Option<Arc<KeyValue>>,
    failure: Option<Arc<Failure>>,
}

/// Applies `write` as change `revision` to `current`, if its precondition holds.
fn stage(current: &mut Snapshot, write: Write, revision: Revision) -> Result<Change, Conflict> {
    let before = current.get(write.key.as_str()).map(|entry| entry.0.clone());
    let holds = match (write.expect, &before) {
        (Expect::Absent, None) => true,
        (Expect::At(expected), Some(found)) => found.modified == expected,
        (Expect::Absent, Some(_)) | (Expect::At(_), None) => false,
    };
    // Deleting what is absent changes nothing, so it cannot be a revision.
    if !holds || (write.value.is_none() && before.is_none()) {
        return Err(Conflict { key: write.key, current: before, failure: None });
    }
    let now = match write.value {
        Some(value) => {
            let created = before.as_ref().map_or(revision, |before| before.created);
            let now = Arc::new(KeyValue { key: write.key, value, created, modified: revision });
            current.insert(Entry(now.clone()));
            Some(now)
        }
        None => {
            current.remove(write.key.as_str());
            None
        }
    };
    Ok(Change { revision, now, before })
}

/// One failure, told to every writer it hit.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SharedFailure(Arc<Failure>);

fn backend(key: &str, failure: &Arc<Failure>) -> WriteError {
    WriteError::Backend { key: key.to_owned(), source: Box::new(SharedFailure(failure.clone())) }
}
