use corten_fakeapi::FakeApi;
use serde_json::{Value, json};

use super::sweep::{Owner, Verdict, judge};
use crate::Config;
use crate::testing::{World, serve_discovery};

const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn api() -> FakeApi {
    let api = FakeApi::new();
    serve_discovery(
        &api,
        &[
            ("", "v1", "pods", "Pod", true),
            ("apps", "v1", "replicasets", "ReplicaSet", true),
            ("", "v1", "events", "Event", true),
        ],
    );
    api
}

fn set(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "uid": name}, "spec": {"selector": {}}})
}

fn pod(name: &str, owners: &[&str]) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|owner| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "blockOwnerDeletion": true}))
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "ownerReferences": owners}, "spec": {"containers": []}})
}

fn pods(world: &World) -> Vec<String> {
    world.api.list(PODS).iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn delete(world: &World, path: &str, policy: &str) {
    let client = world.api.client();
    let request = http::Request::delete(path).body(json!({"propagationPolicy": policy}).to_string().into_bytes()).unwrap();
    client.request::<Value>(request).await.unwrap();
}

#[test]
fn verdicts() {
    let owners = |list: &[(&str, Owner)]| {
        let reference =
            |uid: &str| serde_json::from_value(json!({"apiVersion": "v1", "kind": "X", "name": uid, "uid": uid})).unwrap();
        list.iter().map(|(uid, owner)| (reference(uid), *owner)).collect::<Vec<_>>()
    };
    let judge = |list: &[(&str, Owner)], dependents: bool| judge(&Default::default(), &owners(list), dependents);
    use kube::api::PropagationPolicy::{Background, Foreground};
    let same = |verdict: Verdict, expected: Verdict| assert_eq!(format!("{verdict:?}"), format!("{expected:?}"));
    same(judge(&[], true), Verdict::Keep);
    same(judge(&[("a", Owner::Solid)], true), Verdict::Keep);
    same(judge(&[("a", Owner::Solid), ("b", Owner::Dangling)], true), Verdict::Release(vec!["b".into()]));
    same(judge(&[("a", Owner::Solid), ("b", Owner::Waiting)], true), Verdict::Release(vec!["b".into()]));
    same(judge(&[("a", Owner::Dangling)], true), Verdict::Delete(Background));
    same(judge(&[("a", Owner::Waiting), ("b", Owner::Dangling)], true), Verdict::Delete(Foreground));
    same(judge(&[("a", Owner::Waiting)], false), Verdict::Delete(Background));
}

#[tokio::test(start_paused = true)]
async fn background_deletion_takes_dependents_along() {
    let world = World::with(api(), Config::default(), &[super::start]);
    world.api.create(SETS, set("a"));
    world.api.create(SETS, set("b"));
    world.api.create(PODS, pod("of-a", &["a"]));
    world.api.create(PODS, pod("of-both", &["a", "b"]));
    world.api.create(PODS, pod("free", &[]));
    world.settle().await;
    assert_eq!(pods(&world).len(), 3);
    delete(&world, &format!("{SETS}/a"), "Background").await;
    world.settle().await;
    assert_eq!(pods(&world), ["free", "of-both"]);
    let owners = world.api.get(&format!("{PODS}/of-both")).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!((owners.as_array().unwrap().len(), &owners[0]["uid"]), (1, &json!("b")));
    delete(&world, &format!("{SETS}/b"), "Background").await;
    world.settle().await;
    assert_eq!(pods(&world), ["free"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_lost_its_owner_while_nobody_looked_is_collected() {
    let api = api();
    api.create(PODS, pod("lost", &["gone"]));
    // A namesake of its owner is not its owner.
    let mut namesake = set("gone");
    namesake["metadata"]["uid"] = json!("another");
    api.create(SETS, namesake);
    let world = World::with(api, Config::default(), &[super::start]);
    world.settle().await;
    assert!(pods(&world).is_empty());
    assert_eq!(world.api.list(SETS).len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn foreground_deletion_ends_with_the_owner() {
    let world = World::with(api(), Config::default(), &[super::start]);
    world.api.create(SETS, set("a"));
    let mut slow = pod("slow", &["a"]);
    slow["metadata"]["finalizers"] = json!(["test/slow"]);
    world.api.create(PODS, slow);
    world.api.create(PODS, pod("quick", &["a"]));
    world.settle().await;
    delete(&world, &format!("{SETS}/a"), "Foreground").await;
    world.settle().await;
    assert_eq!(pods(&world), ["slow"]);
    assert!(world.api.get(&format!("{SETS}/a")).is_some(), "it waits for its dependents");
    world.api.remove(&format!("{PODS}/slow"));
    world.settle().await;
    assert!(world.api.list(SETS).is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphaning_sets_dependents_free() {
    let world = World::with(api(), Config::default(), &[super::start]);
    world.api.create(SETS, set("a"));
    world.api.create(PODS, pod("one", &["a"]));
    world.settle().await;
    delete(&world, &format!("{SETS}/a"), "Orphan").await;
    world.settle().await;
    assert!(world.api.list(SETS).is_empty());
    assert_eq!(world.api.get(&format!("{PODS}/one")).unwrap()["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len), 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn new_resources_are_collected_too() {
    let api = api();
    let crds = ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false);
    let (pods_, sets) = (("", "v1", "pods", "Pod", true), ("apps", "v1", "replicasets", "ReplicaSet", true));
    serve_discovery(&api, &[pods_, sets, crds]);
    let world = World::with(api, Config::default(), &[super::start]);
    world.settle().await;
    serve_discovery(&world.api, &[pods_, sets, crds, ("example.com", "v1", "things", "Thing", true)]);
    world
        .api
        .create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json!({"metadata": {"name": "things.example.com"}}));
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t", "uid": "t"}});
    world.api.create("/apis/example.com/v1/namespaces/default/things", thing);
    let mut owned = pod("of-thing", &[]);
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "t"}]);
    world.api.create(PODS, owned);
    world.pass(std::time::Duration::from_secs(5)).await;
    assert_eq!(pods(&world), ["of-thing"]);
    world.api.delete("/apis/example.com/v1/namespaces/default/things/t");
    world.settle().await;
    assert!(pods(&world).is_empty());
    world.stop().await;
}
