//! A local copy of all objects of one kind (or of a selection), kept up to date by one watch, with callbacks on change.
//!
//! The cache is written by one task only (`follow`) and read by everyone. Callbacks run in that task, one after the
//! other and in the order of changes, and must be quick: the usual one adds a key to a queue.

mod cache;
pub(crate) mod follow;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::Key;
use cache::Cache;

/// What an informer can keep: any typed kind, or the metadata of any resource.
pub trait Object: kube::Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}
impl<K: kube::Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static> Object for K {}

/// A change of one object, as the cache saw it. An object that was deleted and created again while the watch was down
/// is a deletion followed by an application without `old`.
#[derive(Debug)]
pub enum Change<K> {
    /// The object was created or changed.
    Applied {
        /// Its state before; `None` when it is new to the cache.
        old: Option<Arc<K>>,
        /// Its state now.
        new: Arc<K>,
    },
    /// The object is gone; this is the last state known of it.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest known state of the object.
    pub const fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } | Self::Deleted(new) => new,
        }
    }

    /// The state before, if the object was known and still is there.
    pub const fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Applied { old, .. } => old.as_ref(),
            Self::Deleted(_) => None,
        }
    }

    /// Whether the object is gone.
    pub const fn is_deleted(&self) -> bool {
        matches!(self, Self::Deleted(_))
    }
}

/// A shared, read-only view of one cache. Clones share it.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

pub(crate) type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
type Indexer<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

pub(crate) struct Shared<K> {
    cache: RwLock<Cache<K>>,
    /// Held while a change is applied and delivered, so that a callback registered meanwhile neither misses it nor
    /// gets it twice.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("objects", &self.shared.cache.read().objects.len()).finish_non_exhaustive()
    }
}

impl<K: Object> Informer<K> {
    pub(crate) fn new() -> Self {
        let shared =
            Shared { cache: RwLock::new(Cache::default()), handlers: Mutex::new(Vec::new()), synced: watch::Sender::new(false) };
        Self { shared: Arc::new(shared) }
    }

    /// The object at `key`, if it is in the cache.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.cache.read().objects.get(key).cloned()
    }

    /// All objects, ordered by namespace and name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.cache.read().objects.values().cloned().collect()
    }

    /// All keys, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.shared.cache.read().objects.keys().cloned().collect()
    }

    /// The objects of one namespace, ordered by name.
    #[must_use]
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.cache.read().namespace(namespace).cloned().collect()
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.cache.read().objects.len()
    }

    /// Whether the cache holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps an index under `name`: `terms` tells under which terms an object is found. The first function given for a
    /// name stays, so several users of one informer can ask for the same index.
    pub fn index(&self, name: &'static str, terms: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.shared.cache.write().add_index(name, Box::new(terms));
    }

    /// The objects found under `term` in the index `name`; none when there is no such index.
    #[must_use]
    pub fn indexed(&self, name: &str, term: &str) -> Vec<Arc<K>> {
        self.shared.cache.read().indexed(name, term)
    }

    /// Calls `handler` for every object in the cache, as new, and then for every change. Handlers run in the watching
    /// task and must neither block nor call `on_change` of the same informer.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        for new in self.list() {
            handler(&Change::Applied { old: None, new });
        }
        handlers.push(Box::new(handler));
    }

    /// Resolves when the first complete list is in the cache.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `self`, so it cannot be gone.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether the first complete list is in the cache.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    pub(crate) fn set_synced(&self) {
        self.shared.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    pub(crate) fn apply(&self, new: K) {
        let new = Arc::new(new);
        let handlers = self.shared.handlers.lock();
        let old = self.shared.cache.write().insert(Key::of(&*new), new.clone());
        let old = match old {
            Some(old) if old.meta().uid != new.meta().uid => {
                deliver(&handlers, &Change::Deleted(old));
                None
            }
            // A list after a broken watch repeats what is known; nobody has to look at it again.
            Some(old) if is_same_revision(&*old, &*new) => return,
            old => old,
        };
        deliver(&handlers, &Change::Applied { old, new });
    }

    pub(crate) fn remove(&self, key: &Key, last: Option<K>) {
        let handlers = self.shared.handlers.lock();
        let Some(known) = self.shared.cache.write().remove(key) else { return };
        deliver(&handlers, &Change::Deleted(last.map_or(known, Arc::new)));
    }
}

fn deliver<K>(handlers: &[Handler<K>], change: &Change<K>) {
    for handler in handlers {
        handler(change);
    }
}

fn is_same_revision<K: kube::Resource>(old: &K, new: &K) -> bool {
    old.meta().resource_version.is_some() && old.meta().resource_version == new.meta().resource_version
}

type Terms = HashMap<String, Vec<Key>>;
