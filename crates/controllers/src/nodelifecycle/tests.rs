use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::World;
use crate::{nodelifecycle, podgc, tainteviction};

const PODS: &str = "/api/v1/namespaces/default/pods";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

fn world(nodes: &[&str]) -> World {
    let world = World::new(&[nodelifecycle::start, tainteviction::start, podgc::start]);
    for node in nodes {
        world.api.create(
            "/api/v1/nodes",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        world.api.create(
            LEASES,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node}, "spec": {}}),
        );
    }
    let tolerations = json!([
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
    world.api.create(
        PODS,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": nodes[0], "containers": [], "tolerations": tolerations},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    world
}

async fn beat(world: &World, nodes: &[&str], seconds: u64) {
    for n in 0..seconds / 10 {
        for node in nodes {
            world.api.edit(&format!("{LEASES}/{node}"), |lease| lease["spec"]["leaseTransitions"] = json!(n));
        }
        world.pass(Duration::from_secs(10)).await;
    }
}

fn taints(world: &World, node: &str) -> Vec<String> {
    let node = world.api.get(&format!("/api/v1/nodes/{node}")).unwrap();
    let text = |taint: &Value| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap());
    node["spec"]["taints"].as_array().into_iter().flatten().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_loses_its_pods_after_five_minutes() {
    let world = world(&["n1", "n2", "n3"]);
    beat(&world, &["n1", "n2", "n3"], 120).await;
    assert!(taints(&world, "n1").is_empty());
    beat(&world, &["n2", "n3"], 60).await;
    let node = world.api.get("/api/v1/nodes/n1").unwrap();
    assert_eq!(node["status"]["conditions"][0]["status"], "Unknown");
    assert_eq!(node["status"]["conditions"][0]["message"], "Kubelet stopped posting node status.");
    assert_eq!(taints(&world, "n1"), ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]);
    assert!(taints(&world, "n2").is_empty());
    assert_eq!(world.api.get(&format!("{PODS}/web")).unwrap()["status"]["conditions"][0]["status"], "False");
    beat(&world, &["n2", "n3"], 250).await;
    assert!(world.api.get(&format!("{PODS}/web")).is_some());
    beat(&world, &["n2", "n3"], 60).await;
    assert!(world.api.get(&format!("{PODS}/web")).is_none());
    assert!(world.events().contains(&"TaintManagerEviction: Marking for deletion Pod default/web".into()));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_in_time_keeps_its_pods() {
    let world = world(&["n1", "n2", "n3"]);
    beat(&world, &["n2", "n3"], 100).await;
    assert!(!taints(&world, "n1").is_empty());
    world.api.edit("/api/v1/nodes/n1", |node| {
        node["status"]["conditions"][0] = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"});
    });
    beat(&world, &["n1", "n2", "n3"], 600).await;
    assert!(taints(&world, "n1").is_empty());
    assert!(world.api.get(&format!("{PODS}/web")).is_some());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_evicted_when_everything_is_down() {
    let world = world(&["n1"]);
    world.pass(Duration::from_secs(1200)).await;
    assert_eq!(taints(&world, "n1"), ["node.kubernetes.io/unreachable:NoSchedule"]);
    assert!(world.api.get(&format!("{PODS}/web")).is_some());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_no_longer_exists_are_removed() {
    let world = world(&["n1", "n2"]);
    world.settle().await;
    world.api.remove("/api/v1/nodes/n1");
    beat(&world, &["n2"], 30).await;
    assert!(world.api.get(&format!("{PODS}/web")).is_some());
    beat(&world, &["n2"], 20).await;
    assert!(world.api.get(&format!("{PODS}/web")).is_none());
    world.stop().await;
}
