//! The multi-version key-value store. It keeps bytes under keys, numbers every change with one growing revision, and
//! tells watchers what changed. What the bytes mean is not its business.
//!
//! [`Store`] is the seam: the embedded SQLite backend is in this crate, an external etcd fits the same trait. Every
//! backend gives: linearizable compare-and-swap, range reads at a revision, and a watch from any revision that is not
//! compacted yet, in revision order and without gaps.
#![forbid(unsafe_code)]

pub mod sqlite;

pub use sqlite::{Config, OpenError, Sqlite};

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

/// A point in the store's history. Grows with every change; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// One value as it stands at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The full key, such as `/registry/pods/default/web`.
    pub key: String,
    /// The bytes as written.
    pub value: Bytes,
    /// The change that created the key (since it was last absent).
    pub created: Revision,
    /// The change that wrote this value.
    pub modified: Revision,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last modified at this revision.
    At(Revision),
}

/// When a write must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged.
    Sync,
    /// With the next synchronous commit, or within a minute (heartbeats and Events).
    Lazy,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key to change.
    pub key: String,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
    /// The precondition.
    pub expect: Expect,
    /// The durability class.
    pub durability: Durability,
}

/// A page of a range read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The revision the page shows; reading on at it gives a consistent whole.
    pub revision: Revision,
    /// The values in key order.
    pub items: Vec<KeyValue>,
    /// Whether keys are left after the last one.
    pub more: bool,
}

/// What happened to a key. Events arrive in revision order; one revision is one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The change's revision.
    pub revision: Revision,
    /// The key that changed.
    pub key: String,
    /// The new state, or `None` when the key was deleted.
    pub now: Option<KeyValue>,
    /// The state before, or `None` when the key was absent.
    pub before: Option<KeyValue>,
}

/// A running watch: batches of events in revision order.
pub type Watch = Pin<Box<dyn futures::Stream<Item = Result<Vec<Event>, WatchError>> + Send>>;

/// A future a trait object can return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The store, whatever keeps it.
pub trait Store: Send + Sync + 'static {
    /// Makes one change if its precondition holds, and returns its revision once it is as durable as asked and every
    /// watcher that keeps up has been given it. Fails without effect otherwise.
    fn write(&self, write: Write) -> Answer<'_, Result<Revision, WriteError>>;

    /// The value of `key` now, linearizably.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Result<Option<KeyValue>, ReadError>>;

    /// Up to `limit` values with keys under `prefix` and greater than `after`, at revision `at` (now if `None`).
    fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Answer<'a, Result<Range, ReadError>>;

    /// Every change under `prefix` after revision `after`.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError>;

    /// The newest revision.
    fn revision(&self) -> Revision;

    /// Forgets history up to `upto`; what is current stays.
    fn compact(&self, upto: Revision) -> Answer<'_, Result<(), WriteError>>;

    /// The size of the store on disk, in bytes.
    fn size(&self) -> Answer<'_, Result<u64, ReadError>>;

    /// Makes lazy writes durable and ends. Later writes fail.
    fn close(&self) -> Answer<'_, ()>;
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The precondition did not hold; `current` is what is there instead.
    #[error("{key} is not as expected")]
    Conflict {
        /// The key.
        key: String,
        /// Its state at the time of the attempt.
        current: Option<KeyValue>,
    },
    /// The backend refused or failed.
    #[error("write {key}")]
    Backend {
        /// The key.
        key: String,
        /// What the backend said.
        source: BackendError,
    },
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision is no longer kept.
    #[error("revision {} is compacted, the oldest kept is {}", asked.0, oldest.0)]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest that can be read.
        oldest: Revision,
    },
    /// The revision is not reached yet.
    #[error("revision {} is not reached, the newest is {}", asked.0, newest.0)]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest there is.
        newest: Revision,
    },
    /// The backend failed.
    #[error("read the store")]
    Backend(#[source] BackendError),
}

/// Why a watch ended or could not start.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The history after the revision is gone, or the watcher fell behind the kept history.
    #[error("revision {} is compacted, the oldest kept is {}", asked.0, oldest.0)]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest that can be watched from.
        oldest: Revision,
    },
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

/// A backend's own failure.
pub type BackendError = Box<dyn std::error::Error + Send + Sync + 'static>;
