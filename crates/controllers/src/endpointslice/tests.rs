use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn pod(name: &str, ip: &str, ready: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.43.0.7", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": "http"}]}})
}

#[tokio::test(start_paused = true)]
async fn slices_follow_the_pods() {
    let world = World::new(&[super::start]);
    world.api.create(
        "/api/v1/nodes",
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {super::ZONE: "a"}}}),
    );
    world.api.create(PODS, pod("one", "10.0.0.1", true));
    world.api.create(PODS, pod("two", "10.0.0.2", false));
    world.api.create(SERVICES, service());
    world.settle().await;
    let slices = world.api.list(SLICES);
    assert_eq!(slices.len(), 1);
    let slice = &slices[0];
    let expected = json!({super::SERVICE_NAME: "web", super::MANAGED_BY: "endpointslice-controller.k8s.io", "team": "a"});
    assert_eq!(slice["metadata"]["labels"], expected);
    assert_eq!(slice["ports"], json!([{"name": "web", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(slice["endpoints"][0]["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!(slice["endpoints"][1]["conditions"], json!({"ready": false, "serving": false, "terminating": false}));
    assert_eq!((&slice["endpoints"][0]["zone"], &slice["endpoints"][0]["nodeName"]), (&json!("a"), &json!("n1")));
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "one");

    // It serves on while it terminates, but takes nothing new.
    world.api.edit(&format!("{PODS}/one"), |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    world.settle().await;
    let slice = &world.api.list(SLICES)[0];
    assert_eq!(slice["endpoints"][0]["conditions"], json!({"ready": false, "serving": true, "terminating": true}));

    world.api.remove(&format!("{PODS}/one"));
    world.api.remove(&format!("{PODS}/two"));
    world.settle().await;
    let slices = world.api.list(SLICES);
    assert_eq!((slices.len(), slices[0]["endpoints"].as_array().map_or(0, Vec::len)), (1, 0));

    world.api.clear_requests();
    world.pass(Duration::from_secs(250)).await;
    assert!(world.api.requests().is_empty(), "idle means silent");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_pods_makes_full_slices_and_no_duplicates() {
    let world = World::new(&[super::start]);
    world.api.create(SERVICES, service());
    world.settle().await;
    for n in 0..250 {
        world.api.create(PODS, pod(&format!("p{n}"), &format!("10.0.{}.{}", n / 250, n % 250), true));
        if n % 60 == 0 {
            world.settle().await;
        }
    }
    world.settle().await;
    let mut addresses: Vec<String> = Vec::new();
    for slice in world.api.list(SLICES) {
        let endpoints = slice["endpoints"].as_array().unwrap();
        assert!(endpoints.len() <= 100);
        addresses.extend(endpoints.iter().map(|endpoint| endpoint["addresses"][0].to_string()));
    }
    assert_eq!(addresses.len(), 250);
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 250);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_slice_is_made_again() {
    let world = World::new(&[super::start]);
    world.api.create(SERVICES, service());
    world.api.create(PODS, pod("one", "10.0.0.1", true));
    world.settle().await;
    let slice = world.api.list(SLICES)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    world.api.remove(&format!("{SLICES}/{slice}"));
    world.settle().await;
    assert_eq!(world.api.list(SLICES).len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hand_made_endpoints_are_mirrored() {
    let world = World::new(&[super::mirroring::start]);
    let mut bare = service();
    bare["spec"]["selector"] = Value::Null;
    world.api.create(SERVICES, bare);
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 80, "protocol": "TCP"}]}]});
    world.api.create("/api/v1/namespaces/default/endpoints", endpoints);
    world.settle().await;
    let slices = world.api.list(SLICES);
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0]["metadata"]["labels"][super::MANAGED_BY], "endpointslicemirroring-controller.k8s.io");
    assert_eq!(slices[0]["endpoints"].as_array().unwrap().len(), 2);
    world.api.delete("/api/v1/namespaces/default/endpoints/web");
    world.settle().await;
    assert!(world.api.list(SLICES).is_empty());
    world.stop().await;
}
