use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::testing::World;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn web(replicas: u32, strategy: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}})
}

fn world() -> World {
    World::new(&[start, crate::replicaset::start])
}

fn set_image(world: &World, image: &str) {
    world.api.edit(WEB, |web| {
        web["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        web["metadata"]["generation"] = json!(web["metadata"]["generation"].as_i64().unwrap() + 1);
    });
}

/// Image, size and revision of every set, by revision.
fn sets(world: &World) -> Vec<(String, i64, String)> {
    let describe = |set: &Value| {
        let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        let revision = set["metadata"]["annotations"][revision::REVISION].as_str().unwrap_or_default().to_owned();
        (image, set["spec"]["replicas"].as_i64().unwrap(), revision)
    };
    let mut sets: Vec<_> = world.api.list(SETS).iter().map(describe).collect();
    sets.sort_by_key(|(_, _, revision)| revision.parse::<u32>().unwrap_or(0));
    sets
}

fn condition(world: &World, kind: &str) -> (String, String) {
    let web = world.api.get(WEB).unwrap();
    let conditions = web["status"]["conditions"].as_array().unwrap().clone();
    let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
}

fn owned(image: &str, size: i64, revision: &str) -> (String, i64, String) {
    (image.to_owned(), size, revision.to_owned())
}

#[tokio::test(start_paused = true)]
async fn rolls_out_updates_and_rolls_back() {
    let world = world();
    world.api.create(DEPLOYMENTS, web(3, json!({"type": "RollingUpdate"})));
    world.run("default").await;
    assert_eq!(sets(&world), [owned("one", 3, "1")]);
    let status = world.api.get(WEB).unwrap()["status"].clone();
    assert_eq!(
        (&status["availableReplicas"], &status["updatedReplicas"], &status["observedGeneration"]),
        (&json!(3), &json!(3), &json!(1))
    );
    assert_eq!(condition(&world, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(condition(&world, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(world.api.get(WEB).unwrap()["metadata"]["annotations"][revision::REVISION], "1");

    set_image(&world, "two");
    world.run("default").await;
    assert_eq!(sets(&world), [owned("one", 0, "1"), owned("two", 3, "2")]);
    assert_eq!(world.api.list(PODS).len(), 3);

    // What `kubectl rollout undo` does: the old template again. Its set comes back under a new revision.
    set_image(&world, "one");
    world.run("default").await;
    assert_eq!(sets(&world), [owned("two", 0, "2"), owned("one", 3, "3")]);
    let set = world.api.list(SETS).into_iter().find(|set| set["metadata"]["annotations"][revision::REVISION] == "3").unwrap();
    assert_eq!(set["metadata"]["annotations"][revision::REVISION_HISTORY], "1");
    assert_eq!(world.api.get(WEB).unwrap()["metadata"]["annotations"][revision::REVISION], "3");
    let events = world.events();
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("ScalingReplicaSet: Scaled up replica set web-") && event.ends_with(" from 0 to 3"))
    );
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("ScalingReplicaSet: Scaled down replica set web-") && event.ends_with(" from 1 to 0"))
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_keeps_its_limits_at_every_moment() {
    let world = world();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}});
    world.api.create(DEPLOYMENTS, web(10, strategy));
    world.run("default").await;
    set_image(&world, "two");
    for _ in 0..40 {
        world.settle().await;
        let pods = world.api.list(PODS);
        let ready = pods.iter().filter(|pod| !pod["status"]["phase"].is_null()).count();
        assert!(pods.len() <= 12, "{} pods", pods.len());
        assert!(ready >= 9, "{ready} ready");
        world.run_pods("default");
    }
    assert_eq!(sets(&world), [owned("one", 0, "1"), owned("two", 10, "2")]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn recreate_waits_for_the_last_old_pod() {
    let world = world();
    world.api.create(DEPLOYMENTS, web(2, json!({"type": "Recreate"})));
    world.run("default").await;
    // The pods take their time to end.
    for pod in world.api.list(PODS) {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        world.api.edit(&path, |pod| pod["metadata"]["finalizers"] = json!(["test/slow"]));
    }
    set_image(&world, "two");
    world.settle().await;
    assert_eq!(sets(&world), [owned("one", 0, "1")], "nothing new as long as something old runs");
    world.run("default").await;
    assert_eq!(sets(&world), [owned("one", 0, "1"), owned("two", 2, "2")]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_rollout_is_scaled_but_goes_on_only_when_resumed() {
    let world = world();
    world.api.create(DEPLOYMENTS, web(2, json!({})));
    world.run("default").await;
    world.api.edit(WEB, |web| web["spec"]["paused"] = json!(true));
    set_image(&world, "two");
    world.run("default").await;
    assert_eq!(condition(&world, "Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
    assert_eq!(sets(&world), [owned("one", 2, "1")]);
    world.api.edit(WEB, |web| web["spec"]["replicas"] = json!(4));
    world.run("default").await;
    assert_eq!(sets(&world), [owned("one", 4, "1")]);
    world.api.edit(WEB, |web| web["spec"]["paused"] = json!(false));
    world.run("default").await;
    assert_eq!(sets(&world), [owned("one", 0, "1"), owned("two", 4, "2")]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_does_not_move_on_times_out() {
    let world = world();
    world.api.create(DEPLOYMENTS, web(2, json!({})));
    // Nobody runs the pods.
    world.pass(Duration::from_secs(590)).await;
    assert_eq!(condition(&world, "Progressing").0, "True");
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(condition(&world, "Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(condition(&world, "Available").0, "False");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn old_sets_beyond_the_limit_are_deleted() {
    let world = world();
    let mut web = web(1, json!({}));
    web["spec"]["revisionHistoryLimit"] = json!(2);
    world.api.create(DEPLOYMENTS, web);
    for image in ["two", "three", "four", "five"] {
        world.run("default").await;
        set_image(&world, image);
    }
    world.run("default").await;
    assert_eq!(sets(&world), [owned("three", 0, "3"), owned("four", 0, "4"), owned("five", 1, "5")]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_is_avoided() {
    let world = world();
    let wanted = Wanted { replicas: 1, surge: 1, unavailable: 0, rolling: true };
    let deployment: Deployment = serde_json::from_value(web(1, json!({}))).unwrap();
    let mut other = serde_json::to_value(revision::new_set(&deployment, 1, &wanted)).unwrap();
    other["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "x", "controller": true}]);
    world.api.create(SETS, other);
    world.api.create(DEPLOYMENTS, web(1, json!({})));
    world.run("default").await;
    assert_eq!(world.api.list(SETS).len(), 2);
    assert_eq!(world.api.get(WEB).unwrap()["status"]["collisionCount"], 1);
    assert_eq!(world.api.list(PODS).len(), 1);
    world.stop().await;
}
