//! Filling the caches: everything once at start, then every change as the store tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use corten_store::{ReadError, Revision, Store, WatchError};
use corten_task::Tasks;

use super::{Cache, Change, Entry, Index, Map, Prefixes, Spec};

/// The caches of all resources, and the one feeder that keeps them.
pub struct Caches {
    store: Arc<dyn Store>,
    by_prefix: RwLock<Prefixes>,
    by_resource: RwLock<HashMap<String, HashMap<String, Arc<Cache>>>>,
    /// Every change up to this revision is in the caches and in the queues of their watchers.
    applied: AtomicU64,
    progress: watch::Sender<u64>,
    /// Held while a resource is added or the feeder takes in a batch, so that no change falls between the two.
    turn: tokio::sync::Mutex<()>,
    /// What writers know of the bytes they are writing, by where the bytes are.
    prepared: Mutex<HashMap<usize, Index>>,
}

/// What a writer knows of bytes that it hands to the store. As long as this lives, the cache takes it instead of looking into
/// the bytes; they live as long, so that no others can be where they are.
#[must_use]
pub struct Prepared<'c> {
    caches: &'c Caches,
    bytes: Bytes,
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        self.caches.prepared.lock().remove(&place(&self.bytes));
    }
}

/// Where bytes are.
fn place(bytes: &Bytes) -> usize {
    bytes.as_ptr() as usize
}

/// Why the caches could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store could not be read.
    #[error("fill the cache from the store")]
    Read(#[from] ReadError),
    /// The store could not be watched.
    #[error("watch the store")]
    Watch(#[from] WatchError),
}

/// Values read from the store at a time.
const PAGE: usize = 5000;
/// What the keys of all objects begin with.
const ROOT: &str = "/registry/";

impl Caches {
    /// Fills caches for `specs` from `store` and starts the feeder. Returns when they hold the store's present state.
    pub async fn start(store: Arc<dyn Store>, specs: Vec<Spec>, tasks: &Tasks) -> Result<Arc<Self>, FeedError> {
        let caches = Arc::new(Self {
            store,
            by_prefix: RwLock::default(),
            by_resource: RwLock::default(),
            applied: AtomicU64::new(0),
            progress: watch::channel(0).0,
            turn: tokio::sync::Mutex::new(()),
            prepared: Mutex::default(),
        });
        for spec in specs {
            caches.insert(spec, 0);
        }
        let revision = caches.load().await?;
        let mut changes = caches.store.watch(ROOT, Revision(revision))?;
        let feeder = caches.clone();
        tasks.spawn("watch cache", async move {
            loop {
                let why = feeder.follow(&mut changes).await;
                if matches!(why, Some(WatchError::Closed) | None) {
                    return;
                }
                tracing::warn!(error = ?why, "the feed of the watch cache was interrupted, filling it again");
                let again;
                (again, changes) = feeder.restart().await;
                tracing::info!(revision = again, "the watch cache is filled again");
            }
        });
        Ok(caches)
    }

    /// Applies changes until the store ends the watch.
    async fn follow(&self, changes: &mut corten_store::Watch) -> Option<WatchError> {
        while let Some(batch) = changes.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(why) => return Some(why),
            };
            let _turn = self.turn.lock().await;
            let Some(last) = batch.last().map(|event| event.revision.0) else {
                continue;
            };
            self.take_in(batch);
            self.applied.store(last, Ordering::Release);
            self.progress.send_replace(last);
        }
        None
    }

    /// Gives every cache its changes, each cache all of its own at once.
    fn take_in(&self, batch: Vec<corten_store::Event>) {
        let caches = self.by_prefix.read();
        let mut of_caches: Vec<(&Cache, Vec<Change>)> = Vec::new();
        for event in batch {
            let Some((cache, key)) = caches.find(&event.key) else {
                continue;
            };
            let value = event.now.map(|kv| match self.prepared.lock().remove(&place(&kv.value)) {
                Some(index) => Ok(Entry::indexed(&cache.spec.layout, kv.value, kv.modified.0, index)),
                None => Entry::new(&cache.spec.layout, &kv.key, &kv.value, kv.modified.0, cache.spec.fields.as_ref()),
            });
            let change = Change { key: key.into(), revision: event.revision.0, value };
            match of_caches.iter_mut().find(|(known, _)| std::ptr::eq(*known, &**cache)) {
                Some((_, changes)) => changes.push(change),
                None => of_caches.push((cache, vec![change])),
            }
        }
        for (cache, changes) in of_caches {
            cache.apply(changes);
        }
    }

    /// Notes what a writer knows of `bytes` before it gives them to the store.
    pub fn prepare(&self, bytes: &Bytes, index: Index) -> Prepared<'_> {
        self.prepared.lock().insert(place(bytes), index);
        Prepared { caches: self, bytes: bytes.clone() }
    }

    /// Fills everything again after an interruption, for as long as it takes.
    async fn restart(&self) -> (u64, corten_store::Watch) {
        loop {
            match self.load().await {
                Ok(revision) => match self.store.watch(ROOT, Revision(revision)) {
                    Ok(changes) => return (revision, changes),
                    Err(err) => tracing::warn!(error = %err, "watch the store"),
                },
                Err(err) => tracing::warn!(error = ?err, "fill the cache from the store"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Reads the whole store into the caches, and returns the revision it shows.
    async fn load(&self) -> Result<u64, FeedError> {
        let _turn = self.turn.lock().await;
        let mut maps: HashMap<String, Map> = HashMap::new();
        let revision = self.read(ROOT, |cache, key, entry| {
            maps.entry(cache.spec.prefix.clone()).or_default().insert(key.into(), entry);
        });
        let revision = revision.await?;
        for (prefix, cache) in &self.by_prefix.read().0 {
            cache.reset(maps.remove(prefix).unwrap_or_default(), revision);
        }
        self.applied.store(revision, Ordering::Release);
        self.progress.send_replace(revision);
        Ok(revision)
    }

    async fn read(&self, prefix: &str, mut each: impl FnMut(&Arc<Cache>, &str, Arc<Entry>)) -> Result<u64, FeedError> {
        let mut at = None;
        let mut after: Option<String> = None;
        loop {
            let page = self.store.range(prefix, after.as_deref(), PAGE, at).await?;
            at = Some(page.revision);
            let caches = self.by_prefix.read();
            for kv in &page.items {
                let Some((cache, key)) = caches.find(&kv.key) else {
                    continue;
                };
                match Entry::new(&cache.spec.layout, &kv.key, &kv.value, kv.modified.0, cache.spec.fields.as_ref()) {
                    Ok(entry) => each(cache, key, Arc::new(entry)),
                    Err(fault) => {
                        tracing::error!(error = %fault.source, key = fault.key, "the store holds bytes that are no object");
                    }
                }
            }
            match page.items.last() {
                Some(last) if page.more => after = Some(last.key.clone()),
                _ => return Ok(page.revision.0),
            }
        }
    }

    fn insert(&self, spec: Spec, revision: u64) -> Arc<Cache> {
        let cache = Arc::new(Cache::new(spec, revision));
        let spec = cache.spec();
        self.by_prefix.write().0.insert(spec.prefix.clone(), cache.clone());
        self.by_resource.write().entry(spec.group.clone()).or_default().insert(spec.resource.clone(), cache.clone());
        cache
    }

    /// Adds a resource while the server runs (a CustomResourceDefinition), with what the store has of it.
    pub async fn add(&self, spec: Spec) -> Result<Arc<Cache>, FeedError> {
        let _turn = self.turn.lock().await;
        let prefix = spec.prefix.clone();
        let applied = self.applied();
        let cache = self.insert(spec, applied);
        let mut map = Map::new();
        // The feeder waits for its turn; what it finds afterwards that is in this page already changes nothing.
        let revision = self.read(&prefix, |_, key, entry| {
            map.insert(key.into(), entry);
        });
        let revision = revision.await?;
        cache.reset(map, revision);
        Ok(cache)
    }

    /// Forgets a resource; its watchers are cut off.
    pub async fn remove(&self, group: &str, resource: &str) {
        let _turn = self.turn.lock().await;
        let removed = self.by_resource.write().get_mut(group).and_then(|of_group| of_group.remove(resource));
        if let Some(cache) = removed {
            self.by_prefix.write().0.remove(&cache.spec.prefix);
            cache.reset(Map::new(), self.applied());
        }
    }

    /// The cache of a resource.
    #[must_use]
    pub fn of(&self, group: &str, resource: &str) -> Option<Arc<Cache>> {
        self.by_resource.read().get(group)?.get(resource).cloned()
    }

    /// Every cache there is.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Cache>> {
        self.by_resource.read().values().flat_map(HashMap::values).cloned().collect()
    }

    /// The revision up to which every change is visible.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Waits until `revision` is visible.
    pub async fn wait_for(&self, revision: u64) {
        if self.applied() >= revision {
            return;
        }
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|applied| *applied >= revision).await;
    }

    /// Waits until everything that the store had acknowledged before this call is visible.
    pub async fn catch_up(&self) -> u64 {
        self.wait_for(self.store.revision().0).await;
        self.applied()
    }
}
