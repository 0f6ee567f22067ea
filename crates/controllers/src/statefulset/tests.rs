use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::World;

const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn db(patch: Value) -> Value {
    let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "default"},
        "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    crate::pods::tests::merge(&mut set, &patch);
    set
}

fn pods(world: &World) -> Vec<String> {
    let text = |pod: &Value| {
        format!("{} {}", pod["metadata"]["name"].as_str().unwrap(), pod["spec"]["containers"][0]["image"].as_str().unwrap())
    };
    world.api.list(PODS).iter().map(text).collect()
}

fn set_image(world: &World, image: &str) {
    world.api.edit(&format!("{SETS}/db"), |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

#[tokio::test(start_paused = true)]
async fn pods_come_and_go_in_order() {
    let world = World::new(&[super::start]);
    world.api.create(SETS, db(json!({})));
    world.settle().await;
    assert_eq!(pods(&world), ["db-0 one"], "the second waits for the first");
    world.run("default").await;
    assert_eq!(pods(&world), ["db-0 one", "db-1 one", "db-2 one"]);
    let pod = world.api.get(&format!("{PODS}/db-1")).unwrap();
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-1");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    let status = world.api.get(&format!("{SETS}/db")).unwrap()["status"].clone();
    assert_eq!(
        (&status["readyReplicas"], &status["updatedReplicas"], &status["currentReplicas"]),
        (&json!(3), &json!(3), &json!(3))
    );
    assert_eq!(status["currentRevision"], status["updateRevision"]);

    world.api.edit(&format!("{SETS}/db"), |set| set["spec"]["replicas"] = json!(1));
    world.run("default").await;
    assert_eq!(pods(&world), ["db-0 one"]);
    let claims = world.api.list("/api/v1/namespaces/default/persistentvolumeclaims");
    assert_eq!(claims.len(), 3, "data outlives pods");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_down_halts_at_a_broken_pod() {
    let world = World::new(&[super::start]);
    world.api.create(SETS, db(json!({})));
    world.run("default").await;
    let set_ready = |name: &str, ready: &str| {
        world.api.edit(&format!("{PODS}/{name}"), |pod| pod["status"]["conditions"][0]["status"] = json!(ready));
    };
    assert_eq!(world.api.get(&format!("{PODS}/db-0")).unwrap()["status"]["conditions"][0]["type"], "Ready");
    ["db-0", "db-2"].into_iter().for_each(|name| set_ready(name, "False"));
    world.api.edit(&format!("{SETS}/db"), |set| set["spec"]["replicas"] = json!(0));
    world.settle().await;
    assert_eq!(pods(&world).len(), 3, "two are broken: the highest of them has to wait");
    set_ready("db-2", "True");
    world.settle().await;
    assert_eq!(pods(&world), Vec::<String>::new(), "the only broken one does not stop itself");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_pod_comes_back_under_its_name() {
    let world = World::new(&[super::start]);
    world.api.create(SETS, db(json!({})));
    world.run("default").await;
    let before = world.api.get(&format!("{PODS}/db-1")).unwrap()["metadata"]["uid"].clone();
    world.api.remove(&format!("{PODS}/db-1"));
    world.run("default").await;
    assert_ne!(world.api.get(&format!("{PODS}/db-1")).unwrap()["metadata"]["uid"], before);
    world.api.edit(&format!("{PODS}/db-2"), |pod| pod["status"] = json!({"phase": "Failed"}));
    world.run("default").await;
    assert_eq!(world.api.get(&format!("{PODS}/db-2")).unwrap()["status"]["phase"], "Running");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn updates_go_down_to_the_partition() {
    let world = World::new(&[super::start]);
    world.api.create(SETS, db(json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}})));
    world.run("default").await;
    set_image(&world, "two");
    world.run("default").await;
    assert_eq!(pods(&world), ["db-0 one", "db-1 one", "db-2 two"]);
    // Below the partition a lost pod comes back as it was.
    world.api.remove(&format!("{PODS}/db-0"));
    world.run("default").await;
    assert_eq!(pods(&world), ["db-0 one", "db-1 one", "db-2 two"]);
    world.api.edit(&format!("{SETS}/db"), |set| set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(0));
    world.run("default").await;
    assert_eq!(pods(&world), ["db-0 two", "db-1 two", "db-2 two"]);
    let status = world.api.get(&format!("{SETS}/db")).unwrap()["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_update_stops_at_the_first_pod_and_can_be_replaced() {
    let world = World::new(&[super::start]);
    world.api.create(SETS, db(json!({})));
    world.run("default").await;
    set_image(&world, "broken");
    // Nobody makes the new pod run.
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(pods(&world), ["db-0 one", "db-1 one", "db-2 broken"]);
    set_image(&world, "two");
    world.run("default").await;
    assert_eq!(pods(&world), ["db-0 two", "db-1 two", "db-2 two"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn parallel_means_all_at_once() {
    let world = World::new(&[super::start]);
    world.api.create(SETS, db(json!({"spec": {"podManagementPolicy": "Parallel"}})));
    world.settle().await;
    assert_eq!(pods(&world).len(), 3);
    world.stop().await;
}
