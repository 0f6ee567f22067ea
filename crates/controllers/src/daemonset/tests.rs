use serde_json::{Value, json};

use super::fit::target;
use crate::testing::World;

const SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn world(nodes: &[&str]) -> World {
    let world = World::new(&[super::start]);
    for node in nodes {
        world.api.create(
            "/api/v1/nodes",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"on": node}}, "spec": {}}),
        );
    }
    world
}

fn agent(strategy: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}})
}

/// Node and image of every pod, sorted.
fn places(world: &World) -> Vec<String> {
    let place = |pod: &Value| {
        let typed = serde_json::from_value(pod.clone()).unwrap();
        format!("{} {}", target(&typed).unwrap(), pod["spec"]["containers"][0]["image"].as_str().unwrap())
    };
    let mut places: Vec<String> =
        world.api.list(PODS).iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).map(place).collect();
    places.sort();
    places
}

/// Plays scheduler and kubelet on the node that each pod is meant for.
async fn run(world: &World) {
    for _ in 0..20 {
        world.settle().await;
        for pod in world.api.list(PODS) {
            let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
            if pod["status"]["phase"].is_null() {
                let typed = serde_json::from_value(pod.clone()).unwrap();
                let node = target(&typed).unwrap().to_owned();
                let since = crate::clock::now_time();
                world.api.edit(&path, |pod| {
                    pod["spec"]["nodeName"] = json!(node);
                    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]});
                });
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_node_has_one() {
    let world = world(&["n1", "n2"]);
    world.api.create(SETS, agent(json!({"type": "RollingUpdate"})));
    run(&world).await;
    assert_eq!(places(&world), ["n1 one", "n2 one"]);
    world.api.create("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n3"}, "spec": {}}));
    run(&world).await;
    assert_eq!(places(&world), ["n1 one", "n2 one", "n3 one"]);
    let status = world.api.get(&format!("{SETS}/agent")).unwrap()["status"].clone();
    assert_eq!(
        (&status["desiredNumberScheduled"], &status["numberReady"], &status["numberAvailable"]),
        (&json!(3), &json!(3), &json!(3))
    );
    // A node that it no longer fits loses its pod, a pod that failed is replaced.
    world.api.edit("/api/v1/nodes/n3", |node| node["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoExecute"}]));
    let first = world.api.list(PODS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    world.api.edit(&format!("{PODS}/{first}"), |pod| pod["status"] = json!({"phase": "Failed"}));
    run(&world).await;
    assert_eq!(places(&world), ["n1 one", "n2 one"]);
    assert!(world.api.get(&format!("{PODS}/{first}")).is_none());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_replaces_one_after_the_other() {
    let world = world(&["n1", "n2", "n3"]);
    world.api.create(SETS, agent(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}})));
    run(&world).await;
    let update = |world: &World, image: &str| {
        world.api.edit(&format!("{SETS}/agent"), |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image))
    };
    update(&world, "two");
    world.settle().await;
    assert_eq!(places(&world).iter().filter(|place| place.ends_with("two")).count(), 1, "the next waits for it");
    run(&world).await;
    assert_eq!(places(&world), ["n1 two", "n2 two", "n3 two"]);
    let revisions = world.api.list("/apis/apps/v1/namespaces/default/controllerrevisions");
    assert_eq!(revisions.len(), 2);
    // Back again: the old revision gets the newest number.
    update(&world, "one");
    run(&world).await;
    assert_eq!(places(&world), ["n1 one", "n2 one", "n3 one"]);
    let mut numbers: Vec<_> = world
        .api
        .list("/apis/apps/v1/namespaces/default/controllerrevisions")
        .iter()
        .map(|revision| revision["revision"].as_i64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    world.stop().await;
}
