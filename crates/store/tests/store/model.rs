//! The embedded store against a model: any sequence of operations, with restarts and compactions in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use corten_store::{Config, Durability, Expect, Revision, Sqlite, Store, Write, WriteError};
use corten_task::Tasks;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write { key: u8, value: Option<u8>, stale: bool, lazy: bool },
    Page { limit: usize, back: usize },
    Watch { back: usize },
    Compact { back: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..6u8, prop::option::weighted(0.75, any::<u8>()), prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(key, value, stale, lazy)| Step::Write { key, value, stale, lazy }),
        3 => (1..5usize, 0..20usize).prop_map(|(limit, back)| Step::Page { limit, back }),
        3 => (0..20usize).prop_map(|back| Step::Watch { back }),
        1 => (0..20usize).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
    ]
}

type State = BTreeMap<String, (Bytes, Revision)>;

/// Everything that ever happened.
#[derive(Default)]
struct Model {
    now: State,
    /// The state after each revision.
    past: Vec<(Revision, State)>,
    /// Key and new value of each change.
    changes: Vec<(Revision, String, Option<Bytes>)>,
    compacted: Revision,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let mut config = Config::new(directory.path());
        config.ring_bytes = 600; // a few changes: most history comes from the file
        Arc::new(Sqlite::open(config, &Tasks::root("test")).unwrap())
    };
    let mut store = open();
    let mut model = Model::default();
    model.past.push((store.revision(), State::new()));
    for step in steps {
        match step {
            Step::Write { key, value, stale, lazy } => write(&store, &mut model, key, value, stale, lazy).await,
            Step::Page { limit, back } => page(&store, &model, limit, back).await,
            Step::Watch { back } => watch(&store, &model, back).await,
            Step::Compact { back } => {
                let upto = past(&model, back).0;
                store.compact(upto).await.unwrap();
                model.compacted = model.compacted.max(upto);
            }
            Step::Reopen => {
                let before = store.revision();
                store.close().await;
                drop(store);
                store = open();
                assert_eq!(store.revision(), before, "an orderly close leaves no gap");
            }
        }
    }
}

fn past(model: &Model, back: usize) -> &(Revision, State) {
    &model.past[model.past.len().saturating_sub(1 + back)]
}

async fn write(store: &Arc<Sqlite>, model: &mut Model, key: u8, value: Option<u8>, stale: bool, lazy: bool) {
    let key = format!("/k/{key}");
    let value = value.map(|n| Bytes::from(vec![n; 1 + usize::from(n)]));
    let found = model.now.get(&key).map(|(_, at)| *at);
    let expect = match found {
        Some(at) => Expect::At(if stale { Revision(at.0 + 1) } else { at }),
        None if stale => Expect::At(Revision(1)),
        None => Expect::Absent,
    };
    let durability = if lazy { Durability::Lazy } else { Durability::Sync };
    let answer = store.write(Write { key: key.clone(), value: value.clone(), expect, durability }).await;
    if stale || (value.is_none() && found.is_none()) {
        assert!(matches!(answer, Err(WriteError::Conflict { current, .. }) if current.as_ref().map(|c| c.modified) == found));
        return;
    }
    let revision = answer.unwrap();
    assert!(revision > model.past.last().unwrap().0);
    match &value {
        Some(value) => drop(model.now.insert(key.clone(), (value.clone(), revision))),
        None => drop(model.now.remove(&key)),
    }
    model.changes.push((revision, key, value));
    model.past.push((revision, model.now.clone()));
}

async fn page(store: &Arc<Sqlite>, model: &Model, limit: usize, back: usize) {
    let (at, expected) = past(model, back);
    let mut found = State::new();
    let mut after = None;
    loop {
        let page = match store.range("/k/", after.as_deref(), limit, Some(*at)).await {
            Ok(page) => page,
            Err(err) => {
                assert!(*at < model.compacted, "{err}");
                return;
            }
        };
        assert!(*at >= model.compacted);
        after = page.items.last().map(|item| item.key.clone());
        found.extend(page.items.into_iter().map(|item| (item.key, (item.value, item.modified))));
        if !page.more {
            break;
        }
    }
    assert_eq!(found, *expected, "at {at:?}");
}

async fn watch(store: &Arc<Sqlite>, model: &Model, back: usize) {
    use futures::StreamExt;
    let after = past(model, back).0;
    let expected: Vec<_> = model.changes.iter().filter(|(revision, ..)| *revision > after).cloned().collect();
    let Ok(mut watch) = store.watch("/k/", after) else {
        assert!(after < model.compacted);
        return;
    };
    let mut found = Vec::new();
    while found.len() < expected.len() {
        for event in watch.next().await.unwrap().unwrap() {
            let before = model.past.iter().rev().find(|(at, _)| *at < event.revision).unwrap().1.get(&event.key);
            assert_eq!(event.before.map(|b| (b.value, b.modified)).as_ref(), before);
            found.push((event.revision, event.key, event.now.map(|now| now.value)));
        }
    }
    assert_eq!(found, expected);
}
