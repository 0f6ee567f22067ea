//! What every backend of the store has to do. Each function gets an empty store.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use corten_store::{Durability, Event, Expect, ReadError, Revision, Store, Watch, WatchError, Write, WriteError};
use futures::StreamExt;

pub type Shared = Arc<dyn Store>;

pub fn put(key: &str, value: &str, expect: Expect) -> Write {
    Write { key: key.into(), value: Some(Bytes::from(value.to_owned())), expect, durability: Durability::Sync }
}

pub fn delete(key: &str, at: Revision) -> Write {
    Write { key: key.into(), value: None, expect: Expect::At(at), durability: Durability::Sync }
}

pub async fn create(store: &Shared, key: &str, value: &str) -> Revision {
    store.write(put(key, value, Expect::Absent)).await.unwrap()
}

/// The next `count` events.
pub async fn take(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(watch.next().await.expect("the watch goes on").unwrap());
    }
    assert_eq!(events.len(), count);
    events
}

pub async fn writes_and_reads(store: Shared) {
    assert_eq!(store.get("/a").await.unwrap(), None);
    let start = store.revision();
    let created = create(&store, "/a", "1").await;
    assert!(created > start);
    assert_eq!(store.revision(), created);
    let updated = store.write(put("/a", "2", Expect::At(created))).await.unwrap();
    let found = store.get("/a").await.unwrap().unwrap();
    assert_eq!((found.value, found.created, found.modified), (Bytes::from("2"), created, updated));
    store.write(delete("/a", updated)).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), None);
    let again = create(&store, "/a", "3").await;
    assert_eq!(store.get("/a").await.unwrap().unwrap().created, again);
    assert!(store.size().await.unwrap() > 0);
}

pub async fn preconditions(store: Shared) {
    let created = create(&store, "/a", "1").await;
    let wrong = Revision(created.0 + 1000);
    conflict(&store, put("/a", "x", Expect::Absent), Some(created)).await;
    conflict(&store, put("/a", "x", Expect::At(wrong)), Some(created)).await;
    conflict(&store, delete("/a", wrong), Some(created)).await;
    conflict(&store, put("/b", "x", Expect::At(created)), None).await;
    conflict(&store, delete("/b", created), None).await;
    assert_eq!(store.revision(), created, "a refused write is no change");

    #[track_caller]
    fn same(err: &WriteError, expected: Option<Revision>) {
        match err {
            WriteError::Conflict { current, .. } => assert_eq!(current.as_ref().map(|c| c.modified), expected),
            other => panic!("{other:?}"),
        }
    }
    async fn conflict(store: &Shared, write: Write, expected: Option<Revision>) {
        same(&store.write(write).await.unwrap_err(), expected);
    }
}

pub async fn one_winner_of_a_race(store: Shared) {
    let base = create(&store, "/a", "0").await;
    let writes = (0..64).map(|n| store.write(put("/a", &n.to_string(), Expect::At(base))));
    let answers = futures::future::join_all(writes).await;
    let won: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(store.get("/a").await.unwrap().unwrap().modified, *won[0]);
}

/// Linearizable compare-and-swap: increments by many clients are all there, and the revisions of the successful ones are
/// distinct and in the order of the values they wrote.
pub async fn counters_lose_nothing(store: Shared) {
    create(&store, "/n", "0").await;
    let clients = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut wrote = Vec::new();
            while wrote.len() < 25 {
                let now = store.get("/n").await.unwrap().unwrap();
                let next = std::str::from_utf8(&now.value).unwrap().parse::<u64>().unwrap() + 1;
                match store.write(put("/n", &next.to_string(), Expect::At(now.modified))).await {
                    Ok(revision) => wrote.push((revision, next)),
                    Err(WriteError::Conflict { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            wrote
        })
    });
    let mut wrote = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        wrote.extend(client.await.unwrap());
    }
    wrote.sort_unstable();
    assert!(wrote.iter().map(|(_, value)| *value).eq(1..=200));
    assert!(wrote.is_sorted_by(|a, b| a.0 < b.0));
}

pub async fn range_pages_at_one_revision(store: Shared) {
    for n in 0..10 {
        create(&store, &format!("/pods/{n}"), "old").await;
    }
    create(&store, "/podsx", "not under the prefix").await;
    let first = store.range("/pods/", None, 4, None).await.unwrap();
    assert_eq!((first.items.len(), first.more), (4, true));
    let victim = store.get("/pods/5").await.unwrap().unwrap();
    store.write(delete("/pods/5", victim.modified)).await.unwrap();
    create(&store, "/pods/55", "new").await;
    let after = first.items.last().unwrap().key.clone();
    let rest = store.range("/pods/", Some(&after), 100, Some(first.revision)).await.unwrap();
    let keys: Vec<_> = rest.items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(keys, ["/pods/4", "/pods/5", "/pods/6", "/pods/7", "/pods/8", "/pods/9"]);
    assert!(!rest.more);
    let exact = store.range("/pods/", None, 10, Some(first.revision)).await.unwrap();
    assert_eq!((exact.items.len(), exact.more), (10, false));
    let now = store.range("/pods/", Some("/pods/5"), 1, None).await.unwrap();
    assert_eq!(now.items[0].key, "/pods/55");
    assert!(store.range("/none/", None, 5, None).await.unwrap().items.is_empty());
}

pub async fn range_at_older_revisions(store: Shared) {
    let mut states: Vec<(Revision, BTreeMap<String, Bytes>)> = Vec::new();
    let mut now: BTreeMap<String, (Bytes, Revision)> = BTreeMap::new();
    for n in 0..60u32 {
        let key = format!("/k/{}", n * 7 % 11);
        let revision = match now.get(&key) {
            Some((_, at)) if n % 3 == 0 => store.write(delete(&key, *at)).await.unwrap(),
            Some((_, at)) => store.write(put(&key, &n.to_string(), Expect::At(*at))).await.unwrap(),
            None => create(&store, &key, &n.to_string()).await,
        };
        match store.get(&key).await.unwrap() {
            Some(found) => drop(now.insert(key, (found.value, revision))),
            None => drop(now.remove(&key)),
        }
        states.push((revision, now.iter().map(|(k, (v, _))| (k.clone(), v.clone())).collect()));
    }
    for (revision, expected) in states {
        let page = store.range("/k/", None, usize::MAX, Some(revision)).await.unwrap();
        let found: BTreeMap<_, _> = page.items.into_iter().map(|item| (item.key, item.value)).collect();
        assert_eq!(found, expected, "at {revision:?}");
    }
    let future = Revision(store.revision().0 + 1);
    assert!(matches!(store.range("/k/", None, 1, Some(future)).await, Err(ReadError::Future { .. })));
}

pub async fn watch_from_now_and_from_before(store: Shared) {
    let first = create(&store, "/a", "1").await;
    let mut watch = store.watch("/", store.revision()).unwrap();
    let second = store.write(put("/a", "2", Expect::At(first))).await.unwrap();
    let third = store.write(delete("/a", second)).await.unwrap();
    let events = take(&mut watch, 2).await;
    assert_eq!(events[0].revision, second);
    assert_eq!(events[0].now.as_ref().unwrap().value, "2");
    assert_eq!(events[0].before.as_ref().unwrap().value, "1");
    assert_eq!(events[1].revision, third);
    assert_eq!((&events[1].key, &events[1].now), (&"/a".to_owned(), &None));
    assert_eq!(events[1].before.as_ref().unwrap().modified, second);

    let mut again = store.watch("/", first).unwrap();
    assert_eq!(take(&mut again, 2).await, events);
    let mut created = store.watch("/", Revision(first.0 - 1)).unwrap();
    let events = take(&mut created, 3).await;
    assert_eq!((events[0].revision, &events[0].before), (first, &None));
}

pub async fn watch_is_limited_to_its_prefix(store: Shared) {
    let mut watch = store.watch("/pods/", store.revision()).unwrap();
    create(&store, "/nodes/a", "").await;
    create(&store, "/pods/a", "").await;
    create(&store, "/podsx/a", "").await;
    create(&store, "/pods/b", "").await;
    let keys: Vec<_> = take(&mut watch, 2).await.into_iter().map(|event| event.key).collect();
    assert_eq!(keys, ["/pods/a", "/pods/b"]);
}

/// Watches started at any moment under load see every later write exactly once, in order.
pub async fn watch_sees_every_write_once(store: Shared) {
    let start = store.revision();
    let load = (0..4).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                create(&store, &format!("/k/{client}/{n}"), "x").await;
            }
        })
    });
    let load: Vec<_> = load.collect();
    let mut all = Vec::new();
    let mut watch = store.watch("/k/", start).unwrap();
    let mut late = None;
    while all.len() < 200 {
        all.extend(watch.next().await.unwrap().unwrap());
        if late.is_none() && all.len() >= 50 {
            late = Some((all.len(), store.watch("/k/", all.last().unwrap().revision).unwrap()));
        }
    }
    for client in load {
        client.await.unwrap();
    }
    assert!(all.is_sorted_by(|a, b| a.revision < b.revision));
    let (seen, mut late) = late.unwrap();
    if seen < 200 {
        assert_eq!(take(&mut late, 200 - seen).await, all[seen..]);
    }
}

pub async fn slow_watch_catches_up(store: Shared) {
    let mut watch = store.watch("/k/", store.revision()).unwrap();
    let value = "v".repeat(4096);
    let writes = (0..3000).map(|n| store.write(put(&format!("/k/{n:04}"), &value, Expect::Absent)));
    let written = futures::future::join_all(writes).await;
    let revisions: Vec<_> = written.into_iter().map(|answer| answer.unwrap()).collect();
    let events = take(&mut watch, 3000).await;
    assert!(events.iter().map(|event| event.revision).eq(revisions));
}

pub async fn compaction_refuses_the_past(store: Shared) {
    let first = create(&store, "/a", "1").await;
    let second = store.write(put("/a", "2", Expect::At(first))).await.unwrap();
    let gone = create(&store, "/b", "1").await;
    store.write(delete("/b", gone)).await.unwrap();
    let third = store.write(put("/a", "3", Expect::At(second))).await.unwrap();
    store.compact(third).await.unwrap();
    assert!(matches!(store.range("/", None, 9, Some(second)).await, Err(ReadError::Compacted { .. })));
    assert!(matches!(store.watch("/", second), Err(WatchError::Compacted { .. })));
    let kept = store.range("/", None, 9, Some(third)).await.unwrap();
    assert_eq!(kept.items.len(), 1);
    assert_eq!(kept.items[0].value, "3");
    let mut watch = store.watch("/", third).unwrap();
    let fourth = store.write(put("/a", "4", Expect::At(third))).await.unwrap();
    let event = take(&mut watch, 1).await.remove(0);
    assert_eq!((event.revision, event.before.unwrap().value), (fourth, Bytes::from("3")));
}

pub async fn lazy_writes_are_visible_at_once(store: Shared) {
    let mut watch = store.watch("/", store.revision()).unwrap();
    let mut lazy = put("/lease", "1", Expect::Absent);
    lazy.durability = Durability::Lazy;
    let first = store.write(lazy).await.unwrap();
    assert_eq!(store.get("/lease").await.unwrap().unwrap().modified, first);
    assert_eq!(take(&mut watch, 1).await[0].revision, first);
    let second = store.write(put("/lease", "2", Expect::At(first))).await.unwrap();
    assert!(second > first);
    assert_eq!(store.range("/", None, 9, Some(first)).await.unwrap().items[0].value, "1");
}

pub async fn close_ends_writes_and_watches(store: Shared) {
    let mut watch = store.watch("/", store.revision()).unwrap();
    create(&store, "/a", "1").await;
    store.close().await;
    take(&mut watch, 1).await;
    assert!(matches!(watch.next().await, Some(Err(WatchError::Closed))));
    assert!(watch.next().await.is_none());
    assert!(matches!(store.write(put("/b", "1", Expect::Absent)).await, Err(WriteError::Closed)));
    store.close().await;
}
