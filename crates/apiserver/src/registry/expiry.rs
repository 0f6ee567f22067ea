//! Events are kept for a while only (`--event-ttl`). In etcd each write of one has a lease; here one task waits for the
//! oldest of them, and does nothing in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;

use corten_store::{Durability, Expect, Revision, Write};

use crate::cache::{self, Cache, Entry, EventKind, Feed, Interest};
use crate::state::State;

/// Deletes Events when their time has come, until the server stops.
pub(crate) async fn run(state: Arc<State>) {
    let Some(cache) = state.caches.of("", "events") else {
        return;
    };
    let ttl = state.config.event_ttl;
    if ttl.is_zero() {
        return;
    }
    loop {
        let (map, mut watcher) = cache.watch(Interest::All);
        let mut due: VecDeque<Due> = map.values().map(|entry| Due::of(entry, last_written(entry), ttl)).collect();
        due.make_contiguous().sort_by_key(|due| due.at);
        drop(map);
        loop {
            let next = due.front().map(|due| due.at);
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {
                    if let Some(due) = due.pop_front() {
                        expire(&state, &cache, &due).await;
                    }
                }
                feed = watcher.next() => match feed {
                    // A write renews the time, and the newest write is always the last to be due.
                    Feed::Batch(batch) => {
                        let there = batch.events().iter().filter(|event| event.kind != EventKind::Deleted);
                        due.extend(there.map(|event| Due::of(&event.now, Timestamp::now(), ttl)));
                    }
                    Feed::Cut => break,
                }
            }
        }
    }
}

/// One state of an Event, and when it goes unless there is a newer one.
struct Due {
    at: Instant,
    key: String,
    revision: u64,
}

impl Due {
    fn of(entry: &Entry, written: Timestamp, ttl: Duration) -> Self {
        let age = Timestamp::now().duration_since(written);
        let age = Duration::try_from(age).unwrap_or_default();
        Self { at: Instant::now() + ttl.saturating_sub(age), key: cache::key_of(entry), revision: entry.revision }
    }
}

async fn expire(state: &State, cache: &Cache, due: &Due) {
    if cache.get(&due.key).is_none_or(|entry| entry.revision != due.revision) {
        return;
    }
    let key = format!("{}{}", cache.spec().prefix, due.key);
    let expect = Expect::At(Revision(due.revision));
    if let Err(err) = state.store.write(Write { key, value: None, expect, durability: Durability::Lazy }).await {
        tracing::debug!(key = due.key, error = %err, "an Event was not expired");
    }
}

/// When an Event was last written, as far as it tells: for Events of an earlier run of this server.
fn last_written(entry: &Entry) -> Timestamp {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Times {
        last_timestamp: Option<Timestamp>,
        event_time: Option<Timestamp>,
        metadata: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        creation_timestamp: Option<Timestamp>,
    }
    let Ok(times) = entry.parse::<Times>() else {
        return Timestamp::now();
    };
    [times.last_timestamp, times.event_time, times.metadata.creation_timestamp]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or_else(Timestamp::now)
}
