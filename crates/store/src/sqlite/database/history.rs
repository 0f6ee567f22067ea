//! Reads of history, beside the writer: nobody who asks what was waits for a commit, and none waits for him.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, params};

use super::super::memory::Change;
use super::{number, revision};
use crate::{BackendError, KeyValue, Revision};

/// Reads history on a connection of its own, opened at first use.
pub(in crate::sqlite) struct Reader {
    path: PathBuf,
    connection: Arc<Mutex<Option<Connection>>>,
}

// === impl Reader ===

impl Reader {
    pub(in crate::sqlite) fn new(path: PathBuf) -> Self {
        Self { path, connection: Arc::default() }
    }

    /// Changes under `prefix` in `(after, upto]`, newest first.
    pub(in crate::sqlite) async fn changes(
        &self,
        prefix: &str,
        after: Revision,
        upto: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, BackendError> {
        self.read(prefix, after, upto, limit, "DESC").await
    }

    /// Changes under `prefix` in `(after, upto]`, oldest first.
    pub(in crate::sqlite) async fn changes_forward(
        &self,
        prefix: &str,
        after: Revision,
        upto: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, BackendError> {
        self.read(prefix, after, upto, limit, "ASC").await
    }

    async fn read(
        &self,
        prefix: &str,
        after: Revision,
        upto: Revision,
        limit: usize,
        order: &'static str,
    ) -> Result<Vec<Change>, BackendError> {
        let (prefix, path, connection) = (prefix.to_owned(), self.path.clone(), self.connection.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock();
            let connection = match &mut *connection {
                Some(connection) => connection,
                none => none.insert(Connection::open_with_flags(
                    path,
                    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
                )?),
            };
            read_changes(connection, &prefix, after, upto, limit, order)
        });
        Ok(read.await??)
    }
}

fn read_changes(
    connection: &Connection,
    prefix: &str,
    after: Revision,
    upto: Revision,
    limit: usize,
    order: &str,
) -> Result<Vec<Change>, rusqlite::Error> {
    // `substr` instead of LIKE: keys may hold its wildcards.
    let sql = format!(
        "SELECT r.revision, r.key, r.created, r.deleted, r.value, p.revision, p.created, p.value
         FROM revisions r LEFT JOIN revisions p ON p.revision = r.previous
         WHERE r.revision > ?1 AND r.revision <= ?2 AND substr(r.key, 1, length(?3)) = ?3
         ORDER BY r.revision {order} LIMIT ?4"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![number(after), number(upto), prefix, limit])?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next()? {
        let at = revision(row, 0)?;
        let key: String = row.get(1)?;
        let state = |value: usize, created: usize, modified: Revision| -> Result<_, rusqlite::Error> {
            let value = Bytes::copy_from_slice(row.get_ref(value)?.as_blob()?);
            Ok(Arc::new(KeyValue { key: key.clone(), value, created: revision(row, created)?, modified }))
        };
        let now = if row.get::<_, bool>(3)? { None } else { Some(state(4, 2, at)?) };
        let before = match row.get::<_, Option<i64>>(5)? {
            Some(modified) => Some(state(7, 6, Revision(modified.unsigned_abs()))?),
            None => None,
        };
        if now.is_some() || before.is_some() {
            changes.push(Change { revision: at, now, before });
        }
    }
    Ok(changes)
}
