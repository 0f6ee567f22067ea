use serde_json::{Value, json};

use super::*;
use crate::pods::tests::{at, pod};
use crate::testing::World;

const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn set(replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn plan_creates_or_ranks() {
    let pods: Vec<Arc<Pod>> = ["a", "b", "c"].iter().map(|name| Arc::new(pod(name, json!({})))).collect();
    let broken = Arc::new(pod("broken", json!({"status": {"conditions": []}})));
    let active: Vec<&Arc<Pod>> = pods.iter().chain([&broken]).collect();
    assert_eq!(plan(4, &active, &[], at(10)), Plan::Keep);
    assert_eq!(plan(6, &active, &[], at(10)), Plan::Create(2));
    assert_eq!(plan(9999, &active, &[], at(10)), Plan::Create(500));
    assert_eq!(plan(3, &active, &[], at(10)), Plan::Delete(vec![&broken]));
}

#[tokio::test(start_paused = true)]
async fn a_set_grows_shrinks_and_reports() {
    let world = World::new(&[start]);
    world.api.create(SETS, set(3));
    world.run("default").await;
    assert_eq!(world.api.list(PODS).len(), 3);
    let pod = &world.api.list(PODS)[0];
    assert!(pod["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
    let status = &world.api.get(&format!("{SETS}/web")).unwrap()["status"];
    assert_eq!(
        (&status["replicas"], &status["readyReplicas"], &status["availableReplicas"], &status["observedGeneration"]),
        (&json!(3), &json!(3), &json!(3), &json!(1))
    );

    world.api.edit(&format!("{SETS}/web"), |set| set["spec"]["replicas"] = json!(1));
    world.run("default").await;
    assert_eq!(world.api.list(PODS).len(), 1);
    let events: Vec<String> = world.events().iter().map(|event| event[..event.len() - 5].to_owned()).collect();
    assert_eq!(events.iter().filter(|event| *event == "SuccessfulCreate: Created pod: web-").count(), 3);
    assert_eq!(events.iter().filter(|event| *event == "SuccessfulDelete: Deleted pod: web-").count(), 2);

    world.api.clear_requests();
    world.pass(Duration::from_secs(250)).await;
    assert!(world.api.requests().is_empty(), "idle means silent");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_are_adopted_and_strangers_released() {
    let world = World::new(&[start]);
    let orphan = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orphan", "labels": {"app": "web"}}, "spec": {"containers": []}});
    world.api.create(PODS, orphan);
    world.api.create(SETS, set(2));
    world.run("default").await;
    assert_eq!(world.api.list(PODS).len(), 2);
    let orphan = format!("{PODS}/orphan");
    assert_eq!(world.api.get(&orphan).unwrap()["metadata"]["ownerReferences"][0]["name"], "web");

    // Taken out of the selector, for debugging: it is let go and replaced.
    world.api.edit(&orphan, |pod| pod["metadata"]["labels"]["app"] = json!("debug"));
    world.run("default").await;
    assert_eq!(world.api.list(PODS).len(), 3);
    assert!(world.api.get(&orphan).unwrap()["metadata"]["ownerReferences"].is_null());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_creation_is_said_and_retried() {
    let world = World::new(&[start]);
    world.api.fail(|request| {
        let refused = request.method == "POST" && request.path == PODS;
        refused.then(|| corten_fakeapi::failure(403, "Forbidden", "pods \"web-\" is forbidden: exceeded quota"))
    });
    world.api.create(SETS, set(8));
    world.settle().await;
    let set = world.api.get(&format!("{SETS}/web")).unwrap();
    let condition = &set["status"]["conditions"][0];
    assert_eq!((condition["type"].as_str(), condition["reason"].as_str()), (Some("ReplicaFailure"), Some("FailedCreate")));
    assert_eq!(world.events(), ["FailedCreate: Error creating: pods \"web-\" is forbidden: exceeded quota"]);
    // One request an attempt: a slow start ends with its first failure, and the attempts grow rare.
    let attempts = world.api.writes().iter().filter(|write| *write == &format!("POST {PODS}")).count();
    assert!((5..12).contains(&attempts), "{attempts} attempts in a second");
    world.api.heal();
    world.pass(Duration::from_secs(60)).await;
    world.run("default").await;
    assert_eq!(world.api.list(PODS).len(), 8);
    assert!(world.api.get(&format!("{SETS}/web")).unwrap()["status"]["conditions"].is_null());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn availability_comes_with_time() {
    let world = World::new(&[start]);
    let mut set = set(1);
    set["spec"]["minReadySeconds"] = json!(30);
    world.api.create(SETS, set);
    world.run("default").await;
    let available = || world.api.get(&format!("{SETS}/web")).unwrap()["status"]["availableReplicas"].as_i64().unwrap_or(0);
    assert_eq!(available(), 0);
    world.pass(Duration::from_secs(31)).await;
    assert_eq!(available(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn replication_controllers_are_served_too() {
    let world = World::new(&[start_replication_controllers]);
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "old", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"app": "old"}, "template": {"metadata": {"labels": {"app": "old"}}, "spec": {"containers": []}}}});
    world.api.create("/api/v1/namespaces/default/replicationcontrollers", controller);
    world.run("default").await;
    assert_eq!(world.api.list(PODS).len(), 2);
    let status = &world.api.get("/api/v1/namespaces/default/replicationcontrollers/old").unwrap()["status"];
    assert_eq!(status["readyReplicas"], 2);
    world.stop().await;
}
