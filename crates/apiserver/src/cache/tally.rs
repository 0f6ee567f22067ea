//! What a cache was used for, counted where it happens and read when somebody asks for metrics: a number that only grows costs a
//! list or a write no lock and no look-up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::Histogram;

/// Counts of one resource since the start.
#[derive(Debug, Default)]
pub struct Tally {
    /// Lists for which all objects of a namespace or of the cluster were looked at.
    pub scanned: Lists,
    /// Lists whose objects were found by a value of a label or field.
    pub indexed: Lists,
    /// Lists for which the store was read: to fill the cache, and at revisions that it does not remember.
    pub stored: Lists,
    /// Lists that had to be as new as the store.
    pub consistent: Count,
    /// How often the cache was filled.
    pub fills: Count,
    /// Sizes of the bodies of creations, updates and patches.
    pub bodies: [OnceLock<Histogram>; 3],
}

/// Lists, and the objects in them.
#[derive(Debug, Default)]
pub struct Lists {
    lists: Count,
    fetched: Count,
    returned: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Lists {
    /// There was one more list, for which so many objects were looked at and returned.
    pub fn add(&self, fetched: usize, returned: usize) {
        self.lists.add(1);
        self.fetched.add(fetched);
        self.returned.add(returned);
    }

    /// Lists, objects looked at, objects returned.
    #[must_use]
    pub fn get(&self) -> [u64; 3] {
        [self.lists.get(), self.fetched.get(), self.returned.get()]
    }
}

impl Count {
    /// So many more.
    pub fn add(&self, more: usize) {
        // No other memory is read by what it says.
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// How many there are.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
