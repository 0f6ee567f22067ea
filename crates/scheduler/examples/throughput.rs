//! Places pods on nodes in memory and prints how fast: `cargo run --release --example throughput [NODES] [PODS]`.
//!
//! This is the scheduler without the API: queue, filters, scores, assuming. What a cluster adds is the time of its writes.

use std::sync::Arc;
use std::time::Instant;

use corten_scheduler::{Config, Core, Outcome, PodInfo};
use serde_json::json;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (nodes, pods) = (numbers.next().unwrap_or(5000), numbers.next().unwrap_or(10_000));
    let plain = json!({"containers": [container()]});
    let selecting = json!({"containers": [container()], "nodeSelector": {"disk": "ssd"}});
    let spreading = json!({"containers": [container()], "topologySpreadConstraints": [{
        "maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]});
    let apart = json!({"containers": [container()], "affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {
            "labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname",
        }}],
    }}});
    println!("{:<28} {:>10} {:>12} {:>12}", format!("{pods} pods on {nodes} nodes"), "pods/s", "per pod", "placed");
    for (name, spec) in [("plain", plain), ("node selector", selecting), ("topology spread", spreading), ("anti-affinity", apart)]
    {
        run(name, &spec, nodes, pods);
    }
}

fn container() -> serde_json::Value {
    json!({"name": "c", "image": "hello", "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}})
}

fn run(name: &str, spec: &serde_json::Value, nodes: usize, pods: usize) {
    let profiles = Config::default().profiles().expect("the default configuration is valid");
    let mut core = Core::new(profiles);
    for i in 0..nodes {
        let node = json!({
            "metadata": {"name": format!("node-{i}"), "labels": {
                "kubernetes.io/hostname": format!("node-{i}"), "topology.kubernetes.io/zone": format!("zone-{}", i % 3),
                "disk": if i % 2 == 0 { "ssd" } else { "hdd" },
            }},
            "spec": {}, "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}},
        });
        core.state.set_node(Arc::new(serde_json::from_value(node).expect("a node")));
    }
    let now = tokio::time::Instant::now();
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]);
    for i in 0..pods {
        let metadata = json!({
            "namespace": "default", "name": format!("pod-{i}"), "uid": format!("pod-{i}"),
            "labels": {"app": "web"}, "ownerReferences": owner,
        });
        let object = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod");
        core.queue.add(Arc::new(PodInfo::new(Arc::new(object))), now);
    }
    let started = Instant::now();
    let mut placed = 0;
    while let Some(queued) = core.queue.pop(now) {
        match core.schedule(&queued.pod) {
            Outcome::Assigned { .. } => placed += 1,
            Outcome::Unschedulable { .. } => core.queue.unschedulable(queued, Vec::new(), now),
        }
    }
    let took = started.elapsed();
    println!("{name:<28} {:>10.0} {:>12.1?} {placed:>12}", pods as f64 / took.as_secs_f64(), took / pods as u32);
}
