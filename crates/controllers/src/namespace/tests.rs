use corten_fakeapi::FakeApi;
use serde_json::json;

use crate::Config;
use crate::testing::{World, serve_discovery};

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_and_goes() {
    let api = FakeApi::new();
    serve_discovery(
        &api,
        &[("", "v1", "pods", "Pod", true), ("", "v1", "nodes", "Node", false), ("example.com", "v1", "things", "Thing", true)],
    );
    api.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    api.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b"}}));
    let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": []}});
    api.create("/api/v1/namespaces/a/pods", pod("one"));
    api.create("/api/v1/namespaces/b/pods", pod("two"));
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "held", "finalizers": ["example.com/wait"]}});
    api.create("/apis/example.com/v1/namespaces/a/things", thing);
    let world = World::with(api, Config::default(), &[super::start]);
    world.settle().await;
    assert_eq!(world.api.list("/api/v1/pods").len(), 2, "nobody asked for a deletion");

    world.api.delete("/api/v1/namespaces/a");
    world.settle().await;
    assert!(world.api.list("/api/v1/namespaces/a/pods").is_empty());
    let status = world.api.get("/api/v1/namespaces/a").unwrap()["status"].clone();
    assert_eq!(status["phase"], "Terminating");
    let condition = |kind: &str| {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap()["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        condition("NamespaceContentRemaining"),
        "Some resources are remaining: things.example.com has 1 resource instances"
    );
    assert_eq!(
        condition("NamespaceFinalizersRemaining"),
        "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances"
    );

    // Whoever holds it lets go: the namespace follows.
    world.api.remove("/apis/example.com/v1/namespaces/a/things/held");
    world.pass(std::time::Duration::from_secs(30)).await;
    assert!(world.api.get("/api/v1/namespaces/a").is_none());
    assert_eq!(world.api.list("/api/v1/pods").len(), 1, "other namespaces are left alone");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_pods_rely_on_goes_after_them() {
    let api = FakeApi::new();
    serve_discovery(&api, &[("", "v1", "configmaps", "ConfigMap", true), ("", "v1", "pods", "Pod", true)]);
    api.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    let (pod, map) = ("/api/v1/namespaces/a/pods/p", "/api/v1/namespaces/a/configmaps/m");
    let held = json!({"name": "p", "finalizers": ["example.com/wait"]});
    api.create(
        "/api/v1/namespaces/a/pods",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": held, "spec": {"containers": []}}),
    );
    api.create("/api/v1/namespaces/a/configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}));
    let world = World::with(api, Config::default(), &[super::start]);
    world.settle().await;
    world.api.delete("/api/v1/namespaces/a");
    world.settle().await;
    assert!(world.api.get(pod).unwrap()["metadata"]["deletionTimestamp"].is_string());
    assert!(world.api.get(map).is_some());

    // No time passes: the end of the last pod is what is waited for.
    world.api.remove(pod);
    world.settle().await;
    assert!(world.api.get(map).is_none());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn namespaces_get_their_account_and_the_ca() {
    let config = Config { root_ca: "PEM".into(), ..Config::default() };
    let world = World::with(FakeApi::new(), config, &[crate::serviceaccount::start, crate::rootca::start]);
    world.api.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    world.settle().await;
    let map = "/api/v1/namespaces/a/configmaps/kube-root-ca.crt";
    let account = "/api/v1/namespaces/a/serviceaccounts/default";
    assert_eq!(world.api.get(map).unwrap()["data"], json!({"ca.crt": "PEM"}));
    assert!(world.api.get(account).is_some());
    world.api.delete(account);
    world.api.edit(map, |map| map["data"] = json!({"ca.crt": "somebody else's"}));
    world.settle().await;
    assert!(world.api.get(account).is_some());
    assert_eq!(world.api.get(map).unwrap()["data"], json!({"ca.crt": "PEM"}));
    world.stop().await;
}
