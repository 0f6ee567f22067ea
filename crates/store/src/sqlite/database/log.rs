//! The write-ahead log: how it is kept short without holding up commits, and how its file is made ready for them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rusqlite::{Connection, OpenFlags};

/// Bytes of log after which it is moved into the database, beside the writer.
const CHECKPOINT_BYTES: u64 = 2 << 20;
/// Bytes of log after which the writer itself moves the rest, so that it can start from the beginning again.
pub(super) const LOG_BYTES: u64 = 16 << 20;
/// Bytes by which the log's file is made longer ahead of its use.
const RESERVE_BYTES: u64 = 4 << 20;

/// The log's file. Writing over what is there takes a tenth of the time of making a file longer, which the file system has to
/// note in a journal of its own: so the file is made longer ahead, in large steps, and used again and again.
pub(super) struct Log {
    path: PathBuf,
    /// Bytes in use, roughly and at most: SQLite may have started from the beginning without telling.
    used: u64,
    /// `used` when a checkpoint was last asked for.
    asked: u64,
    /// Length of the file.
    reserved: u64,
    checkpointer: Checkpointer,
}

/// Moves the log into the database on a thread of its own, so that writers do not wait for it. It has a connection of its own:
/// a checkpoint and commits do not exclude each other.
struct Checkpointer {
    /// Dropped to end the thread.
    due: Option<mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

// === impl Log ===

impl Log {
    /// The log of a database, and the thread that moves it.
    pub(super) fn of(database: PathBuf) -> Self {
        let path = log_of(&database);
        Self { path, used: 0, asked: 0, reserved: 0, checkpointer: Checkpointer::start(database) }
    }

    /// Notes that a commit has written about as many bytes.
    pub(super) fn grew(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// Keeps the log short and its file long enough. To be called after commits, when nobody waits for them any more.
    pub(super) fn tend(&mut self, connection: &Connection, synchronous: bool) {
        if self.used >= LOG_BYTES {
            // Most of it is moved already. After this the log starts from the beginning, unless somebody is reading it.
            if let Err(err) = checkpoint(connection) {
                tracing::warn!(error = %err, "moving the store's log into the database");
            }
            (self.used, self.asked) = (0, 0);
        } else if self.used - self.asked >= CHECKPOINT_BYTES {
            self.asked = self.used;
            self.checkpointer.ask();
        }
        let ahead = self.used + RESERVE_BYTES / 2;
        // Only a commit that somebody waits for is worth it: an idle cluster's heartbeats must not write megabytes of zeros.
        if synchronous
            && self.used > 0
            && ahead > self.reserved
            && let Err(err) = self.reserve(ahead)
        {
            // Only slower.
            tracing::warn!(error = %err, "making the store's log longer");
            self.reserved = u64::MAX;
        }
    }

    /// Ends the thread: the last checkpoint wants the log for itself.
    pub(super) fn end(&mut self) {
        self.checkpointer.end();
    }

    /// Makes the file long enough for `bytes`. SQLite reads a log up to the first frame that is none, so what follows may be
    /// anything. The zeros have to be written: space that was only set aside is noted in the journal when it is first used.
    fn reserve(&mut self, bytes: u64) -> std::io::Result<()> {
        let file = match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()), // nothing was written yet
            Err(err) => return Err(err),
        };
        let mut length = file.metadata()?.len();
        let wanted = bytes.next_multiple_of(RESERVE_BYTES);
        let zeros = vec![0; 256 << 10];
        while length < wanted {
            let step = zeros.len().min(usize::try_from(wanted - length).unwrap_or(usize::MAX));
            file.write_all_at(&zeros[..step], length)?;
            length += step as u64;
        }
        self.reserved = length;
        Ok(())
    }
}

// === impl Checkpointer ===

impl Checkpointer {
    fn start(path: PathBuf) -> Self {
        let (due, asked) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("store-checkpoint".into()).spawn(move || {
            let mut connection = None;
            while asked.recv().is_ok() {
                let done = checkpoint_connection(&path, &mut connection).and_then(checkpoint);
                if let Err(err) = done {
                    tracing::warn!(error = %err, "moving the store's log into the database");
                }
            }
        });
        match thread {
            Ok(thread) => Self { due: Some(due), thread: Some(thread) },
            Err(err) => {
                tracing::warn!(error = %err, "start the store's checkpoint thread: the writer makes checkpoints instead");
                Self { due: None, thread: None }
            }
        }
    }

    /// Asks for a checkpoint; one that is asked for already is enough.
    fn ask(&self) {
        if let Some(due) = &self.due {
            let _ = due.try_send(());
        }
    }

    fn end(&mut self) {
        self.due = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's checkpoint thread panicked");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.end();
    }
}

fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Moves what is in the log into the database, as far as nobody reads it, without holding anybody up.
fn checkpoint(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update_and_check(None, "wal_checkpoint", "PASSIVE", |_| Ok(()))
}

/// The checkpoint thread's own connection, opened at first use.
fn checkpoint_connection<'c>(path: &Path, connection: &'c mut Option<Connection>) -> Result<&'c Connection, rusqlite::Error> {
    Ok(match connection {
        Some(connection) => connection,
        none => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let opened = Connection::open_with_flags(path, flags)?;
            opened.pragma_update(None, "cache_size", -64)?; // KiB; it reads the log, no pages
            none.insert(opened)
        }
    })
}
