//! The embedded backend: one SQLite file, one writer thread, reads from memory.
//!
//! Every change is a row; the file is the history. What is current is also held in memory, in a persistent ordered
//! set whose snapshots are pointer copies, so reads never touch the file. The writer thread takes every write that is
//! waiting, checks the preconditions, commits all of them with one fsync, publishes the events and only then
//! acknowledges. Nothing runs when nothing is written: there is no timer unless a lazy write is pending.
//!
//! Lazy writes are flushed to the file without an fsync: that survives the death of the process at once, and of the
//! machine after the kernel's write-back (half a minute). An idle cluster's heartbeats therefore never force the disk.

mod database;
mod memory;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use corten_task::Tasks;
use tokio::sync::oneshot;

use crate::{Answer, KeyValue, Range, ReadError, Revision, Store, Watch, WatchError, Write, WriteError};
use database::{Database, Lock, Reader};
use memory::{Memory, Position};
use writer::{Message, Writer};

/// How the embedded store is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory that holds the database and its lock; created with mode 0700 when it is missing.
    pub directory: PathBuf,
    /// For how long history is kept for reads and watches at an older revision.
    pub history: Duration,
    /// How many revisions of history are kept at most, however young.
    pub history_revisions: u64,
    /// How many bytes of values the ring of recent events may keep alive.
    pub ring_bytes: usize,
    /// After which time a lazy write is written to the file when no other commit takes it along.
    pub lazy_delay: Duration,
    /// The largest size of the database file in bytes; writes that would exceed it fail. `None` is the disk's limit.
    pub quota: Option<u64>,
}

impl Config {
    /// The defaults, in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            history: Duration::from_secs(5 * 60),
            history_revisions: 100_000,
            ring_bytes: 4 << 20,
            lazy_delay: Duration::from_secs(50),
            quota: None,
        }
    }
}

/// Why the store could not be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be used.
    #[error("the data directory {} cannot be used, check that it is writable by this user", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("the data directory {} is in use by another process{holder}, stop it first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// ` (pid N)`, or empty when it is not known.
        holder: String,
    },
    /// A newer version wrote it.
    #[error(
        "the data directory {} has format {found}, this version knows formats up to {known}: use the newer version again",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The newest format this version knows.
        known: i64,
    },
    /// The file belongs to some other program.
    #[error("{} is not a store of this program, choose another data directory", path.display())]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("the database {} is damaged, restore it from a backup", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Anything else the database said.
    #[error("open the database {}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The writer thread could not be started.
    #[error("start the store's writer thread")]
    Thread(#[source] std::io::Error),
}

/// The embedded store. Clones share one store; the last one to be dropped makes lazy writes durable and closes it.
#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Arc<Memory>,
    reader: Arc<Reader>,
    writer: mpsc::Sender<Message>,
    thread: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
}

impl Sqlite {
    /// Opens the store in `config.directory`, making it at first use. Reads what is current into memory.
    ///
    /// When the owner of `tasks` is stopped, lazy writes are made durable; the store goes on until [`Store::close`] or
    /// until it is dropped, so that requests in flight can end.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed then.
    pub fn open(config: Config, tasks: &Tasks) -> Result<Self, OpenError> {
        let lock = Lock::take(&config.directory)?;
        let path = config.directory.join(database::FILE);
        let (database, loaded) = Database::open(&path, config.quota)?;
        let memory = Arc::new(Memory::new(loaded, config.ring_bytes));
        let reader = Arc::new(Reader::new(path.clone()));
        let (sender, messages) = mpsc::channel();
        let writer = Writer::new(&config, database, memory.clone(), messages, lock);
        let thread = std::thread::Builder::new().name("store-writer".into());
        let thread = thread.spawn(move || writer.run()).map_err(OpenError::Thread)?;

        let flush = sender.clone();
        let stop = tasks.clone();
        tasks.spawn_graceful("store-flush", async move {
            stop.stopping().await;
            let (done, flushed) = oneshot::channel();
            if flush.send(Message::Flush(done)).is_ok() {
                let _ = flushed.await; // an error says that the store is closed, which is as good
            }
        });
        Ok(Self { inner: Arc::new(Inner { memory, reader, writer: sender, thread: Some(thread), path }) })
    }

    /// The database file, for backups (`VACUUM INTO`, SQLite's online backup) and for `sqlite3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer makes lazy writes durable and ends. Waiting is short, and afterwards the directory is free.
        let (done, _) = oneshot::channel();
        let _ = self.writer.send(Message::Close(done));
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

// === impl Store for Sqlite ===

impl Store for Sqlite {
    fn write(&self, write: Write) -> Answer<'_, Result<Revision, WriteError>> {
        // Sent before the first poll: writes made in a row by one caller reach the writer in that order.
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.writer.send(Message::Write(write, reply));
        Box::pin(async move {
            sent.map_err(|_| WriteError::Closed)?;
            answer.await.unwrap_or(Err(WriteError::Closed))
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Result<Option<KeyValue>, ReadError>> {
        Box::pin(std::future::ready(Ok(self.inner.memory.get(key))))
    }

    fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Answer<'a, Result<Range, ReadError>> {
        Box::pin(async move {
            let memory = &self.inner.memory;
            let (revision, snapshot) = match at {
                None => memory.snapshot(),
                Some(at) => match memory.snapshot_at(at)? {
                    Position::Here(snapshot) => (at, snapshot),
                    Position::Before { ring, undone } => {
                        let changes = self.inner.reader.changes("", at, ring, usize::MAX).await.map_err(ReadError::Backend)?;
                        // What the sweep took away while we read would be missing: the check comes after the read.
                        memory.check_kept(at)?;
                        (at, memory::undo(undone, changes.iter()))
                    }
                },
            };
            let page = memory::page(&snapshot, prefix, after, limit, revision);
            if page.more || at.is_some() {
                memory.pin(revision, snapshot);
            }
            Ok(page)
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        watch::start(&self.inner.memory, &self.inner.reader, prefix, after)
    }

    fn revision(&self) -> Revision {
        self.inner.memory.revision()
    }

    fn compact(&self, upto: Revision) -> Answer<'_, Result<(), WriteError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.writer.send(Message::Compact(upto, reply));
        Box::pin(async move {
            sent.map_err(|_| WriteError::Closed)?;
            answer.await.unwrap_or(Err(WriteError::Closed))
        })
    }

    fn size(&self) -> Answer<'_, Result<u64, ReadError>> {
        Box::pin(async move {
            let path = &self.inner.path;
            let main = std::fs::metadata(path).map_err(|source| ReadError::Backend(Box::new(source)))?.len();
            let mut log = path.as_os_str().to_owned();
            log.push("-wal");
            Ok(main + std::fs::metadata(log).map_or(0, |m| m.len()))
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        let (done, closed) = oneshot::channel();
        let sent = self.inner.writer.send(Message::Close(done));
        Box::pin(async move {
            if sent.is_ok() {
                let _ = closed.await;
            }
        })
    }
}
