//! The embedded store's own: the directory, formats, restart, lazy writes, compaction on disk, a full disk.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use corten_store::{Config, Durability, Expect, OpenError, Revision, Sqlite, Store, WriteError};
use corten_task::Tasks;
use rusqlite::Connection;

use crate::conformance::{create, delete, put};
use crate::{embedded, embedded_with};

fn open(directory: &std::path::Path) -> Result<Sqlite, OpenError> {
    Sqlite::open(Config::new(directory), &Tasks::root("test"))
}

#[tokio::test]
async fn restart_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(directory.path()).unwrap());
    assert_eq!(store.revision(), Revision(1), "the first change is 2, as in etcd");
    let kept = create(&store, "/kept", "1").await;
    let gone = create(&store, "/gone", "1").await;
    store.write(delete("/gone", gone)).await.unwrap();
    let mut lazy = put("/lazy", "1", Expect::Absent);
    lazy.durability = Durability::Lazy;
    let last = store.write(lazy).await.unwrap();
    store.close().await;
    drop(store);

    let store = open(directory.path()).unwrap();
    assert_eq!(store.revision(), last);
    let keys: Vec<_> = store.range("/", None, 9, None).await.unwrap().items.into_iter().map(|item| item.key).collect();
    assert_eq!(keys, ["/kept", "/lazy"]);
    assert_eq!(store.range("/", None, 9, Some(gone)).await.unwrap().items[0].key, "/gone");
    assert_eq!(store.get("/kept").await.unwrap().unwrap().created, kept);
}

#[tokio::test]
async fn files_are_private() {
    let embedded = embedded();
    create(&embedded.store, "/secret", "x").await;
    for entry in std::fs::read_dir(embedded.directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn a_directory_has_one_user() {
    let embedded = embedded();
    let Err(err) = open(embedded.directory.path()) else { panic!("opened twice") };
    assert!(matches!(err, OpenError::Locked { .. }));
    assert!(err.to_string().contains(&format!("(pid {})", std::process::id())), "{err}");
    embedded.store.close().await;
    open(embedded.directory.path()).unwrap();
}

#[tokio::test]
async fn what_it_cannot_use_it_leaves_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop_store(directory.path()).await;
    let file = directory.path().join("store.db");
    let raw = |sql: &str| Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    raw("PRAGMA user_version = 99");
    let Err(err) = open(directory.path()) else { panic!("opened a newer format") };
    assert!(matches!(err, OpenError::Newer { found: 99, known: 1, .. }), "{err}");
    raw("PRAGMA user_version = 1; PRAGMA application_id = 7");
    assert!(matches!(open(directory.path()), Err(OpenError::Foreign { .. })));
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    std::fs::write(&file, "this is no database, and long enough to be looked at".repeat(100)).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Foreign { .. })));

    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(open(&file.path().join("data")), Err(OpenError::Directory { .. })));
}

async fn drop_store(directory: &std::path::Path) {
    open(directory).unwrap().close().await;
}

/// The number of rows in the file.
fn rows(directory: &std::path::Path) -> u64 {
    let connection = Connection::open(directory.join("store.db")).unwrap();
    connection.query_row("SELECT count(*) FROM revisions", [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

#[tokio::test]
async fn an_idle_store_is_silent_and_lazy_writes_wait_for_company() {
    let embedded = embedded();
    create(&embedded.store, "/a", "1").await;
    let mut lazy = put("/lazy", "1", Expect::Absent);
    lazy.durability = Durability::Lazy;
    embedded.store.write(lazy).await.unwrap();
    assert_eq!(rows(embedded.directory.path()), 1);
    create(&embedded.store, "/b", "1").await;
    assert_eq!(rows(embedded.directory.path()), 3);
}

#[tokio::test]
async fn lazy_writes_reach_the_file_by_themselves() {
    let embedded = embedded_with(|config| config.lazy_delay = Duration::ZERO);
    create(&embedded.store, "/a", "1").await;
    let mut lazy = put("/lazy", "1", Expect::Absent);
    lazy.durability = Durability::Lazy;
    embedded.store.write(lazy).await.unwrap();
    // The compaction is answered by the same thread, after the deadline that has passed.
    embedded.store.compact(Revision(0)).await.unwrap();
    assert_eq!(rows(embedded.directory.path()), 2);
}

#[tokio::test]
async fn old_history_goes_by_itself() {
    let embedded = embedded_with(|config| config.history_revisions = 100);
    let mut at = create(&embedded.store, "/a", "0").await;
    let other = create(&embedded.store, "/other", "x").await;
    for n in 0..500 {
        at = embedded.store.write(put("/a", &n.to_string(), Expect::At(at))).await.unwrap();
    }
    assert!(rows(embedded.directory.path()) < 150);
    assert!(embedded.store.watch("/", Revision(at.0 - 50)).is_ok());
    assert!(embedded.store.watch("/", Revision(at.0 - 200)).is_err());
    assert_eq!(embedded.store.range("/", None, 9, Some(Revision(at.0 - 50))).await.unwrap().items[0].value, "449");
    embedded.store.close().await;
    let again = open(embedded.directory.path()).unwrap();
    assert_eq!(again.get("/other").await.unwrap().unwrap().modified, other);
    assert_eq!(again.get("/a").await.unwrap().unwrap().value, "499");
}

#[tokio::test]
async fn deleted_space_returns_to_the_disk() {
    let embedded = embedded_with(|config| config.history_revisions = 1);
    let store = &embedded.store;
    let value = "v".repeat(16 << 10);
    let writes = (0..600).map(|n| store.write(put(&format!("/k/{n}"), &value, Expect::Absent)));
    let made: Vec<_> = futures::future::join_all(writes).await.into_iter().map(|made| made.unwrap()).collect();
    let deletes = made.iter().enumerate().map(|(n, at)| store.write(delete(&format!("/k/{n}"), *at)));
    futures::future::join_all(deletes).await;
    for n in 0..60 {
        create(store, &format!("/small/{n}"), "x").await;
    }
    store.close().await;
    let size = store.size().await.unwrap();
    assert!(size < 5 << 20, "{size} bytes left of 10 MB");
}

/// A quota, and a small disk where the system allows to make one (root): the write that does not fit fails with a clear
/// error, what is there stays, and the store works on when there is room.
#[tokio::test]
async fn a_full_store_refuses_and_recovers() {
    let embedded = embedded_with(|config| {
        config.quota = Some(1 << 20);
        config.history_revisions = 1;
    });
    let store = &embedded.store;
    let (kept, full) = fill(store).await;
    assert!(full.contains("full"), "{full}");
    for (key, at) in &kept {
        assert_eq!(store.get(key).await.unwrap().unwrap().modified, *at);
    }
    assert_eq!(rows(embedded.directory.path()), kept.len() as u64, "nothing is half done");
    for (key, at) in &kept[..10] {
        store.write(delete(key, *at)).await.unwrap();
    }
    store.compact(store.revision()).await.unwrap();
    create(store, "/again", &"x".repeat(60_000)).await;
}

async fn fill(store: &Arc<dyn Store>) -> (Vec<(String, Revision)>, String) {
    let mut kept = Vec::new();
    for n in 0..1000 {
        let key = format!("/k/{n}");
        match store.write(put(&key, &"x".repeat(60_000), Expect::Absent)).await {
            Ok(at) => kept.push((key, at)),
            Err(WriteError::Backend { source, .. }) => return (kept, source.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the store never became full");
}

const DISK: &str = "CORTEN_STORE_DISK";

#[test]
fn a_full_disk_refuses_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    // A mount namespace of its own: the mount is gone with the process, however it ends.
    let script = r#"mount -t tmpfs -o size=2m none "$CORTEN_STORE_DISK" || exit 77
        exec "$0" --exact embedded::on_a_small_disk --ignored --nocapture"#;
    let run = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(DISK, directory.path())
        .output();
    match run {
        Ok(run) if run.status.success() => {}
        Ok(run) if matches!(run.status.code(), Some(1 | 77)) && !String::from_utf8_lossy(&run.stdout).contains("running") => {
            eprintln!("skipped: mounting is not allowed here");
        }
        other => panic!("{other:?}"),
    }
}

/// Not a test of its own: runs where `DISK` is a tmpfs of 2 MiB.
#[tokio::test]
#[ignore = "run by a_full_disk_refuses_and_recovers"]
async fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(DISK) else { return };
    let disk = std::path::PathBuf::from(disk);
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 800 << 10]).unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&disk.join("data")).unwrap());
    let (kept, full) = fill(&store).await;
    assert!(full.contains("full"), "{full}");
    std::fs::remove_file(ballast).unwrap();
    let again = create(&store, "/again", "x").await;
    store.close().await;
    drop(store);
    let store = open(&disk.join("data")).unwrap();
    assert_eq!(store.get("/again").await.unwrap().unwrap().modified, again);
    assert_eq!(store.range("/k/", None, usize::MAX, None).await.unwrap().items.len(), kept.len());
}
