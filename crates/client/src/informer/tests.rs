use std::sync::Arc;
use std::time::Duration;

use corten_fakeapi::{FakeApi, failure, internal};
use corten_task::Tasks;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use parking_lot::Mutex;
use serde_json::json;

use crate::{Change, Informer, Informers, Key};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}, "managedFields": [{}]}})
}

/// A server with the objects `a` and `b`, and an informer on it with a record of the changes it tells.
async fn follow() -> (FakeApi, Informer<ConfigMap>, Arc<Mutex<Vec<String>>>, Tasks) {
    let api = FakeApi::new();
    api.create(MAPS, map("a"));
    api.create(MAPS, map("b"));
    let (tasks, informer, told) = start(&api).await;
    (api, informer, told, tasks)
}

async fn start(api: &FakeApi) -> (Tasks, Informer<ConfigMap>, Arc<Mutex<Vec<String>>>) {
    let tasks = Tasks::root("test");
    let informers = Informers::new(api.client(), &tasks);
    let informer = informers.of::<ConfigMap>();
    let told = Arc::new(Mutex::new(Vec::new()));
    informer.on_change({
        let told = told.clone();
        move |change: &Change<ConfigMap>| {
            let what = match change {
                Change::Applied { old: None, .. } => "new",
                Change::Applied { .. } => "changed",
                Change::Deleted(_) => "gone",
            };
            told.lock().push(format!("{what} {}", Key::of(&**change.object()).name));
        }
    });
    informer.synced().await;
    (tasks, informer, told)
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn take(told: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut told.lock())
}

#[tokio::test(start_paused = true)]
async fn a_cache_follows_creation_change_and_deletion() {
    let (api, informer, told, tasks) = follow().await;
    assert_eq!(take(&told), ["new a", "new b"]);
    assert!(informer.list()[0].metadata.managed_fields.is_none(), "nobody reads them, so nobody keeps them");

    api.create(MAPS, map("c"));
    api.edit(&format!("{MAPS}/a"), |object| object["data"] = json!({"x": "y"}));
    api.delete(&format!("{MAPS}/b"));
    settle().await;
    assert_eq!(take(&told), ["new c", "changed a", "gone b"]);
    assert_eq!(informer.keys(), [Key::new("default", "a"), Key::new("default", "c")]);
    assert_eq!(informer.get(&Key::new("default", "a")).unwrap().data.as_ref().unwrap()["x"], "y");
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_silent_when_nothing_happens() {
    let (api, _informer, _told, tasks) = follow().await;
    api.clear_requests();
    tokio::time::sleep(Duration::from_secs(280)).await;
    assert_eq!(api.requests().len(), 0);
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_is_resumed_without_a_list() {
    let (api, _informer, told, tasks) = follow().await;
    take(&told);
    api.clear_requests();
    api.cut_watches();
    api.create(MAPS, map("c"));
    settle().await;
    assert_eq!(take(&told), ["new c"]);
    assert!(api.requests().iter().all(|request| !request.query.contains("sendInitialEvents")));
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_lost_history_only_differences_are_told() {
    let (api, informer, told, tasks) = follow().await;
    take(&told);
    api.fail(|_| Some(internal("down")));
    api.cut_watches();
    settle().await;
    api.delete(&format!("{MAPS}/a"));
    // The same name, another object.
    api.delete(&format!("{MAPS}/b"));
    api.create(MAPS, map("b"));
    api.create(MAPS, map("c"));
    api.compact();
    api.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(take(&told), ["gone b", "new b", "new c", "gone a"]);
    assert_eq!(informer.len(), 2);
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_streaming_lists_is_listed() {
    let api = FakeApi::new();
    api.create(MAPS, map("a"));
    api.fail(|request| {
        let refused = request.query.contains("sendInitialEvents");
        refused.then(|| {
            failure(422, "Invalid", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
        })
    });
    let (tasks, informer, told) = start(&api).await;
    assert_eq!(informer.len(), 1);
    api.create(MAPS, map("b"));
    settle().await;
    assert_eq!(take(&told), ["new a", "new b"]);
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_waits_longer_and_longer_for_a_server_that_is_down() {
    let api = FakeApi::new();
    api.fail(|_| Some(internal("down")));
    let tasks = Tasks::root("test");
    let informer = Informers::new(api.client(), &tasks).of::<ConfigMap>();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!informer.is_synced());
    // 0.1 s doubled up to 30 s: nine attempts in the first minute, then two a minute.
    assert!((20..40).contains(&api.requests().len()), "{} attempts", api.requests().len());
    api.heal();
    informer.synced().await;
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_watch_serves_all_users_of_a_kind_and_late_ones_get_everything() {
    let (api, _informer, _told, tasks) = follow().await;
    let informers = Informers::new(api.client(), &tasks);
    let (one, two) = (informers.of::<ConfigMap>(), informers.of::<ConfigMap>());
    one.synced().await;
    api.clear_requests();
    let seen = Arc::new(Mutex::new(0));
    two.on_change({
        let seen = seen.clone();
        move |_| *seen.lock() += 1
    });
    assert_eq!(*seen.lock(), 2);
    assert_eq!(api.requests().len(), 0);
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_index_follows_the_objects() {
    let (api, informer, _told, tasks) = follow().await;
    informer.index("app", |map| map.metadata.labels.iter().flatten().map(|(_, value)| value.clone()).collect());
    let named =
        |term: &str| informer.indexed("app", term).iter().map(|map| map.metadata.name.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(named("a"), ["a"]);
    api.edit(&format!("{MAPS}/a"), |object| object["metadata"]["labels"]["app"] = json!("b"));
    settle().await;
    assert_eq!(named("b"), ["b", "a"]);
    assert!(named("a").is_empty());
    api.delete(&format!("{MAPS}/b"));
    settle().await;
    assert_eq!(named("b"), ["a"]);
    assert!(informer.indexed("nothing", "a").is_empty());
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_selection_sees_objects_come_and_go_by_their_fields() {
    let api = FakeApi::new();
    let pod = |name: &str, node: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node, "containers": []}});
    api.create("/api/v1/namespaces/default/pods", pod("a", "n1"));
    api.create("/api/v1/namespaces/default/pods", pod("b", "n2"));
    let tasks = Tasks::root("test");
    let informer = Informers::new(api.client(), &tasks).select::<Pod>("spec.nodeName=n1");
    informer.synced().await;
    assert_eq!(informer.keys(), [Key::new("default", "a")]);
    api.edit("/api/v1/namespaces/default/pods/a", |pod| pod["spec"]["nodeName"] = json!("n2"));
    settle().await;
    assert!(informer.is_empty());
    tasks.stop().await;
}

#[tokio::test(start_paused = true)]
async fn metadata_informers_keep_nothing_else_and_end_with_their_owner() {
    let api = FakeApi::new();
    api.create(MAPS, map("a"));
    let tasks = Tasks::root("test");
    let resource = kube::api::ApiResource::erase::<ConfigMap>(&());
    let child = tasks.child("configmaps");
    let informer = Informers::new(api.client(), &tasks).metadata(&resource, &child);
    informer.synced().await;
    let object = informer.get(&Key::new("default", "a")).unwrap();
    assert!(object.metadata.uid.is_some() && object.metadata.labels.is_none() && object.types.is_none());
    child.stop().await;
    api.create(MAPS, map("b"));
    settle().await;
    assert_eq!(informer.len(), 1);
    tasks.stop().await;
}
