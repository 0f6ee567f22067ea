//! How authorization, admission and allocators read objects: from the cache, without HTTP and without waiting.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cache::{self, Caches, Entry, Map};

/// Reads of the newest state. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    caches: Arc<Caches>,
}

impl Reader {
    /// A reader of these caches.
    #[must_use]
    pub fn new(caches: Arc<Caches>) -> Self {
        Self { caches }
    }

    /// One object; `namespace` is empty for cluster scope.
    #[must_use]
    pub fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.caches.of(group, resource)?.get(&cache::key(namespace, name))
    }

    /// One object, decoded.
    #[must_use]
    pub fn document(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        Some(self.get(group, resource, namespace, name)?.decode())
    }

    /// Objects of one namespace, or of all for the empty name, in key order.
    #[must_use]
    pub fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Entry>> {
        let map = self.snapshot(group, resource);
        cache::range(&map, namespace, None).map(|(_, entry)| entry.clone()).collect()
    }

    /// Objects read into a type that has the fields of interest; what does not fit is left out.
    #[must_use]
    pub fn list_as<T: DeserializeOwned>(&self, group: &str, resource: &str, namespace: &str) -> Vec<T> {
        self.list(group, resource, namespace).iter().filter_map(|entry| entry.parse().ok()).collect()
    }

    /// The whole resource at this moment.
    #[must_use]
    pub fn snapshot(&self, group: &str, resource: &str) -> Map {
        self.caches.of(group, resource).map(|cache| cache.snapshot()).unwrap_or_default()
    }

    /// The revision of the resource's newest change: what is derived from it stays right as long as this stays.
    #[must_use]
    pub fn changed(&self, group: &str, resource: &str) -> u64 {
        self.caches.of(group, resource).map_or(0, |cache| cache.changed())
    }

    /// The revision up to which every change is visible.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.caches.applied()
    }
}
