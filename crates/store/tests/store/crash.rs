//! Death at any moment: a child process (this test binary again) writes under load and is killed. Every write that it
//! reported as acknowledged must be there, and no revision that it reported may be given out again.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use corten_store::{Config, Durability, Expect, Revision, Sqlite, Store, WatchError};
use corten_task::Tasks;

use crate::conformance::put;

const DIRECTORY: &str = "CORTEN_STORE_CRASH_DIRECTORY";

#[test]
fn killed_under_load_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut highest = Revision(0);
    let mut kept: Vec<(String, Revision)> = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed while it goes on writing: the pipe holds what it reported until then.
        let mut reports = Vec::new();
        for line in lines.by_ref().take(150 + 97 * round) {
            reports.push(line.unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let complete = lines.map_while(Result::ok).filter(|line| line.ends_with(';'));
        reports.extend(complete);

        let mut acknowledged = Vec::new();
        let mut seen = highest;
        for report in reports.iter().filter_map(|line| line.strip_suffix(';')) {
            let mut words = report.split(' ');
            let (Some("ack"), Some(class), Some(key), Some(revision)) = (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let revision = Revision(revision.parse().unwrap());
            assert!(revision > highest, "{key} reused {revision:?}, {highest:?} was seen before the crash");
            seen = seen.max(revision);
            if class == "sync" {
                acknowledged.push((key.to_owned(), revision));
            }
        }
        assert!(acknowledged.len() > 50, "the child did not work: {reports:?}");
        kept.extend(acknowledged);
        highest = seen;
        check(directory.path(), &kept, highest);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check(directory: &std::path::Path, kept: &[(String, Revision)], highest: Revision) {
    let tasks = Tasks::root("check");
    let store = Sqlite::open(Config::new(directory), &tasks).unwrap();
    for (key, revision) in kept {
        let found = store.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} was acknowledged and is missing"));
        assert_eq!(found.modified, *revision);
    }
    assert!(store.revision() > highest);
    // A watcher that saw lazy writes which are lost must start again; one from the last durable write need not.
    let last = store.range("/", None, usize::MAX, None).await.unwrap().items.iter().map(|item| item.modified).max().unwrap();
    assert!(store.watch("/", last).is_ok());
    if highest > last {
        assert!(matches!(store.watch("/", highest), Err(WatchError::Compacted { .. })));
    }
    assert!(store.watch("/", store.revision()).is_ok());
}

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "run by killed_under_load_loses_nothing"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = Tasks::root("child");
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(Config::new(directory), &tasks).unwrap());
        let start = store.revision().0;
        let clients = (0..8).map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let key = format!("/{start}/{client}/{n}");
                    let mut write = put(&key, &"x".repeat(300), Expect::Absent);
                    let lazy = n % 3 == 0;
                    if lazy {
                        write.durability = Durability::Lazy;
                    }
                    let revision = store.write(write).await.unwrap().0;
                    let class = if lazy { "lazy" } else { "sync" };
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {class} {key} {revision};").unwrap();
                    out.flush().unwrap();
                }
            })
        });
        futures::future::join_all(clients.collect::<Vec<_>>()).await;
    });
}
