//! The objects of an informer and their indices.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{Indexer, Terms};
use crate::Key;

/// Objects by key, ordered, so that a namespace is a range, plus the indices somebody asked for.
pub(super) struct Cache<K> {
    pub(super) objects: BTreeMap<Key, Arc<K>>,
    indices: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    terms_of: Indexer<K>,
    terms: Terms,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), indices: HashMap::new() }
    }
}

impl<K> Cache<K> {
    /// Puts `object` in and returns what was there.
    pub(super) fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        for index in self.indices.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.add(&key, &object);
        }
        old
    }

    /// Takes the object at `key` out.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indices.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }

    pub(super) fn namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        let first = Key::new(namespace, "");
        self.objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(key, _)| &*key.namespace == namespace)
            .map(|(_, object)| object)
    }

    pub(super) fn add_index(&mut self, name: &'static str, terms_of: Indexer<K>) {
        if self.indices.contains_key(name) {
            return;
        }
        let mut index = Index { terms_of, terms: HashMap::new() };
        for (key, object) in &self.objects {
            index.add(key, object);
        }
        self.indices.insert(name, index);
    }

    pub(super) fn indexed(&self, name: &str, term: &str) -> Vec<Arc<K>> {
        let keys = self.indices.get(name).and_then(|index| index.terms.get(term));
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect()
    }
}

impl<K> Index<K> {
    fn add(&mut self, key: &Key, object: &K) {
        for term in (self.terms_of)(object) {
            let keys = self.terms.entry(term).or_default();
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }

    fn remove(&mut self, key: &Key, object: &K) {
        for term in (self.terms_of)(object) {
            let Some(keys) = self.terms.get_mut(&term) else { continue };
            if let Some(at) = keys.iter().position(|known| known == key) {
                keys.swap_remove(at);
            }
            if keys.is_empty() {
                self.terms.remove(&term);
            }
        }
    }
}
