//! Tests of the store. `conformance` is what every backend has to pass; the rest is about the embedded one.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod conformance;
mod crash;
mod embedded;
mod model;

use std::sync::Arc;

use corten_store::{Config, Sqlite, Store};
use corten_task::Tasks;

/// An embedded store in a directory of its own.
struct Embedded {
    store: Arc<dyn Store>,
    directory: tempfile::TempDir,
    _tasks: Tasks,
}

fn embedded() -> Embedded {
    embedded_with(|_| {})
}

fn embedded_with(change: impl FnOnce(&mut Config)) -> Embedded {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::new(directory.path());
    change(&mut config);
    let tasks = Tasks::root("test");
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(config, &tasks).unwrap());
    Embedded { store, directory, _tasks: tasks }
}

macro_rules! conformance {
    ($($name:ident)*) => {
        mod conformance_of_embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let embedded = crate::embedded();
                crate::conformance::$name(embedded.store.clone()).await;
            })*
        }
    };
}

conformance! {
    writes_and_reads
    preconditions
    one_winner_of_a_race
    counters_lose_nothing
    range_pages_at_one_revision
    range_at_older_revisions
    watch_from_now_and_from_before
    watch_is_limited_to_its_prefix
    watch_sees_every_write_once
    slow_watch_catches_up
    compaction_refuses_the_past
    lazy_writes_are_visible_at_once
    close_ends_writes_and_watches
}
