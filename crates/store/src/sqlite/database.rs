//! The file: its schema, the scan at start, commits, and the sweep of compacted history.
//!
//! One row is one revision. `previous` links a row to the state it replaced, so history needs no second index: a sweep
//! and an undo follow the links by primary key.

mod history;
mod log;

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use super::OpenError;
use super::memory::{Change, Entry, Snapshot};
use crate::{KeyValue, Revision};

pub(super) use history::Reader;
use log::Log;

/// The database file's name in the data directory.
pub(super) const FILE: &str = "store.db";
const LOCK_FILE: &str = "store.lock";
/// `PRAGMA application_id`: "Crtn".
const APPLICATION: i64 = 0x4372_746e;
/// `PRAGMA user_version`: the schema's version.
const FORMAT: i64 = 1;
/// Revisions reserved at a time.
const BLOCK: u64 = 10_000;
/// Free pages that a vacuum leaves, and those it returns to the disk in one commit.
const FREE_PAGES: i64 = 512;
const VACUUM_PAGES: i64 = 128;
/// What a row costs in the log besides its value, roughly.
const ROW_BYTES: u64 = 640;
/// What a commit costs in the log besides its rows, roughly.
const COMMIT_BYTES: u64 = 3 * 4120;

const SCHEMA: &str = "
CREATE TABLE revisions (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,   -- revision that created the key
    previous INTEGER NOT NULL,  -- revision of the state before, 0 when the key was absent
    deleted INTEGER NOT NULL,   -- 1: this change deleted the key
    value BLOB
) STRICT;
CREATE TABLE marks (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO marks VALUES
    ('reserved', 1),   -- revisions up to here may have been given out
    ('closed', 1),     -- equal to `reserved` after an orderly close: no revision after it was given out
    ('compacted', 0),  -- older states cannot be read
    ('swept', 0);      -- rows replaced up to here are deleted
";

/// The exclusive use of a data directory, as long as it lives.
pub(super) struct Lock {
    _file: File,
}

/// What the scan at start found.
pub(super) struct Loaded {
    pub(super) current: Snapshot,
    /// Where the store goes on: greater than every revision a client may have seen, unless it was closed in order.
    pub(super) revision: Revision,
    /// The newest change in the file; what came after it, up to `revision`, was lost.
    pub(super) last_row: Revision,
    pub(super) compacted: Revision,
}

/// The writer's connection.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    /// Revisions up to here may be given out.
    pub(super) reserved: Revision,
    compacted: Revision,
    /// History up to `compacted` is deleted up to here.
    swept: Revision,
    synchronous: bool,
    log: Log,
}

/// How a commit reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Fsync before it returns.
    Now,
    /// In the file when it returns (a killed process loses nothing), on the disk with the next fsync or write-back.
    Later,
}

/// Why the file could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the disk (or the quota) of {} is full, make room: nothing was written", path.display())]
    Full { path: PathBuf },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: rusqlite::Error },
}

// === impl Lock ===

impl Lock {
    pub(super) fn take(directory: &Path) -> Result<Self, OpenError> {
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Directory { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(cannot(directory))?;
        let path = directory.join(LOCK_FILE);
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let mut file = open.map_err(cannot(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let holder = if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
                return Err(OpenError::Locked { path: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Directory { path, source }),
        }
        // For the message above only; a full disk must not keep the store from opening.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

// === impl Database ===

impl Database {
    pub(super) fn open(path: &Path, quota: Option<u64>) -> Result<(Self, Loaded), OpenError> {
        let cannot = |source| OpenError::Directory { path: path.to_owned(), source };
        // Made here, so that the database and its log (which takes over the mode) are never readable by others.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(cannot)?;
        Self::open_file(path, quota).map_err(|err| match err {
            OpenFailure::Checked(err) => err,
            OpenFailure::Sqlite(source) => {
                let path = path.to_owned();
                match source.sqlite_error_code() {
                    Some(ErrorCode::NotADatabase) => OpenError::Foreign { path },
                    Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, source },
                    _ => OpenError::Database { path, source },
                }
            }
        })
    }

    fn open_file(path: &Path, quota: Option<u64>) -> Result<(Self, Loaded), OpenFailure> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let new = tables == 0 && application == 0;
        if !new && application != APPLICATION {
            return Err(OpenFailure::Checked(OpenError::Foreign { path: path.to_owned() }));
        }
        if format > FORMAT {
            let err = OpenError::Newer { path: path.to_owned(), found: format, known: FORMAT };
            return Err(OpenFailure::Checked(err));
        }
        if new {
            // Must come before the first table.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -1024)?; // KiB; the writer appends, it needs no more
        connection.pragma_update_and_check(None, "journal_size_limit", 2 * log::LOG_BYTES as i64, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?; // `tend_log` does it
        if let Some(quota) = quota {
            let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))?.unsigned_abs();
            let pages = i64::try_from(quota / page.max(1)).unwrap_or(i64::MAX);
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        if new {
            let setup = connection.transaction()?;
            setup.execute_batch(SCHEMA)?;
            setup.pragma_update(None, "application_id", APPLICATION)?;
            setup.pragma_update(None, "user_version", FORMAT)?;
            setup.commit()?;
        }

        let mark = |name: &str| {
            let found = connection.query_row("SELECT revision FROM marks WHERE name = ?", [name], |row| revision(row, 0));
            found.optional().map(Option::unwrap_or_default)
        };
        let (reserved, closed, compacted, swept) = (mark("reserved")?, mark("closed")?, mark("compacted")?, mark("swept")?);
        let (current, last_row) = load(&connection)?;
        // After a crash any revision of the reserved block may have been seen, so the store goes on after it, from a
        // revision that no change has.
        let revision = if closed == reserved { reserved } else { Revision(reserved.0 + 1) };
        let last_row = if closed == reserved { reserved } else { last_row.max(swept) };
        let loaded = Loaded { current, revision, last_row, compacted };
        let path = path.to_owned();
        let log = Log::of(path.clone());
        let database = Self { connection, path, reserved, compacted, swept, synchronous: true, log };
        Ok((database, loaded))
    }

    /// Writes `changes`, one transaction. Reserves revisions ahead when few are left after `next`, and deletes a
    /// little of what is compacted while it is at it.
    pub(super) fn commit(&mut self, changes: &[&Change], next: Revision, sync: Sync, sweep: usize) -> Result<(), Failure> {
        let reserve = (next.0 + BLOCK / 2 > self.reserved.0 && sync == Sync::Now).then_some(Revision(next.0 + BLOCK));
        let swept = self.try_commit(changes, reserve, sync, sweep).map_err(|source| failure(&self.path, source))?;
        self.swept = swept;
        self.reserved = reserve.unwrap_or(self.reserved);
        let rows = changes.iter().map(|change| change.now.as_ref().map_or(0, |now| now.value.len() as u64) + ROW_BYTES);
        self.log.grew(COMMIT_BYTES + rows.sum::<u64>());
        Ok(())
    }

    fn try_commit(
        &mut self,
        changes: &[&Change],
        reserve: Option<Revision>,
        sync: Sync,
        sweep: usize,
    ) -> Result<Revision, rusqlite::Error> {
        let synchronous = sync == Sync::Now;
        if synchronous != self.synchronous {
            self.connection.pragma_update(None, "synchronous", if synchronous { "FULL" } else { "NORMAL" })?;
            self.synchronous = synchronous;
        }
        // Dropped without a commit it rolls back: nothing is half done.
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?)")?;
            for change in changes {
                let state = change.now.as_ref().or(change.before.as_ref()).expect("a change has a state before or after it");
                insert.execute(params![
                    number(change.revision),
                    state.key,
                    number(state.created),
                    change.before.as_ref().map_or(0, |before| number(before.modified)),
                    change.now.is_none(),
                    change.now.as_ref().map(|now| &now.value[..]),
                ])?;
            }
        }
        if let Some(reserve) = reserve {
            set_mark(&transaction, "reserved", reserve)?;
        }
        let swept =
            if self.swept < self.compacted { sweep_rows(&transaction, self.swept, self.compacted, sweep)? } else { self.swept };
        if swept != self.swept {
            set_mark(&transaction, "compacted", self.compacted)?;
            set_mark(&transaction, "swept", swept)?;
            vacuum(&transaction)?;
        }
        transaction.commit()?;
        Ok(swept)
    }

    /// Keeps the log short and its file long enough. To be called after commits, when nobody waits for them any more.
    pub(super) fn tend_log(&mut self) {
        self.log.tend(&self.connection, self.synchronous);
    }

    /// History up to `compacted` is to be swept, by the commits that follow.
    pub(super) fn compact(&mut self, compacted: Revision) {
        self.compacted = self.compacted.max(compacted);
    }

    /// Whether compacted rows are left.
    pub(super) fn sweep_pending(&self) -> bool {
        self.swept < self.compacted
    }

    /// Notes that `last` is the last revision given out, and moves the log into the database.
    pub(super) fn finish(mut self, last: Revision) -> Result<(), Failure> {
        self.log.end();
        let done = (|| {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
            let transaction = self.connection.unchecked_transaction()?;
            set_mark(&transaction, "reserved", last)?;
            set_mark(&transaction, "closed", last)?;
            set_mark(&transaction, "compacted", self.compacted)?;
            transaction.commit()?;
            self.connection.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))
        })();
        done.map_err(|source| failure(&self.path, source))
    }
}

enum OpenFailure {
    Checked(OpenError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenFailure {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(err)
    }
}

fn failure(path: &Path, source: rusqlite::Error) -> Failure {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Failure::Full { path },
        _ => Failure::Write { path, source },
    }
}

/// What is current, in one scan from the newest row: the first row of a key is its state.
fn load(connection: &Connection) -> Result<(Snapshot, Revision), rusqlite::Error> {
    let mut rows = connection.prepare("SELECT revision, key, created, deleted, value FROM revisions ORDER BY revision DESC")?;
    let mut rows = rows.query([])?;
    let mut seen = HashSet::new();
    let mut current = Vec::new();
    let mut last = Revision::default();
    while let Some(row) = rows.next()? {
        let modified = revision(row, 0)?;
        last = last.max(modified);
        let key = row.get_ref(1)?.as_str()?;
        if seen.contains(key) {
            continue; // its value stays unread
        }
        seen.insert(key.to_owned());
        if !row.get::<_, bool>(3)? {
            let value = Bytes::copy_from_slice(row.get_ref(4)?.as_blob()?);
            let key = key.to_owned();
            current.push(Entry(Arc::new(KeyValue { key, value, created: revision(row, 2)?, modified })));
        }
    }
    current.sort_unstable();
    Ok((current.into_iter().collect(), last))
}

/// Deletes up to `budget` of the rows that were replaced in `(swept, compacted]`; returns how far it came.
fn sweep_rows(connection: &Connection, swept: Revision, compacted: Revision, budget: usize) -> Result<Revision, rusqlite::Error> {
    let sql = "SELECT revision, previous, deleted FROM revisions WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?";
    let budget = i64::try_from(budget).unwrap_or(i64::MAX);
    let mut replaced = connection.prepare_cached(sql)?;
    let replaced = replaced.query_map(params![number(swept), number(compacted), budget], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?))
    })?;
    let replaced: Vec<_> = replaced.collect::<Result<_, _>>()?;
    let mut delete = connection.prepare_cached("DELETE FROM revisions WHERE revision = ?")?;
    for &(revision, previous, deleted) in &replaced {
        if previous != 0 {
            delete.execute([previous])?;
        }
        if deleted {
            delete.execute([revision])?;
        }
    }
    let complete = i64::try_from(replaced.len()).is_ok_and(|found| found < budget);
    Ok(if complete { compacted } else { replaced.last().map_or(compacted, |row| Revision(row.0.unsigned_abs())) })
}

/// Returns some free pages to the disk when many are free.
fn vacuum(connection: &Connection) -> Result<(), rusqlite::Error> {
    let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if free > FREE_PAGES {
        let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

fn set_mark(connection: &Connection, name: &str, revision: Revision) -> Result<(), rusqlite::Error> {
    let mut update = connection.prepare_cached("UPDATE marks SET revision = ? WHERE name = ?")?;
    update.execute(params![number(revision), name])?;
    Ok(())
}

fn revision(row: &Row<'_>, column: usize) -> Result<Revision, rusqlite::Error> {
    Ok(Revision(row.get::<_, i64>(column)?.unsigned_abs()))
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
