use super::*;
use crate::plugins::testing::{Cluster, pod, requesting};
use crate::plugins::{Arguments, defaults};

fn core(cluster: Cluster) -> Core {
    let profile = Profile { plugins: defaults(&Arguments::default()), percentage: 0, preempts: true };
    Core { state: cluster.state, ..Core::new([("default-scheduler".to_owned(), profile)].into()) }
}

#[track_caller]
fn place(core: &mut Core, pod: PodInfo) -> Result<String, (String, Option<Candidate>)> {
    match core.schedule(&Arc::new(pod)) {
        Outcome::Assigned { node, .. } => Ok(node.to_string()),
        Outcome::Unschedulable { diagnosis, preempt } => Err((diagnosis.to_string(), preempt)),
    }
}

#[test]
fn pods_spread_over_nodes_and_then_nothing_fits() {
    let mut cluster = Cluster::default();
    cluster.sized("a", "2", "4Gi", 10);
    cluster.sized("b", "2", "4Gi", 10);
    let mut core = core(cluster);
    let mut nodes = vec![place(&mut core, requesting("1", "1500m", "1Gi")).unwrap()];
    nodes.push(place(&mut core, requesting("2", "1500m", "1Gi")).unwrap());
    nodes.sort();
    assert_eq!(nodes, ["a", "b"]);
    let (message, preempt) = place(&mut core, requesting("3", "1500m", "1Gi")).unwrap_err();
    assert_eq!(
        message,
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, \
         preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    );
    assert!(preempt.is_none());
}

#[test]
fn messages_count_reasons_as_upstream() {
    let mut cluster = Cluster::default();
    cluster.sized("a", "1", "4Gi", 10);
    for name in ["b", "c"] {
        cluster.node(name, serde_json::json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}));
    }
    let (message, _) = place(&mut core(cluster), requesting("p", "2", "1Gi")).unwrap_err();
    assert_eq!(
        message,
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). no new claims to deallocate, \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    let (message, _) = place(&mut core(Cluster::default()), requesting("p", "2", "1Gi")).unwrap_err();
    assert_eq!(message, "no nodes available to schedule pods");
}

#[test]
fn a_missing_claim_is_said_once() {
    let mut cluster = Cluster::default();
    cluster.sized("a", "1", "4Gi", 10);
    let claiming = pod("p", serde_json::json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}));
    let (message, _) = place(&mut core(cluster), claiming).unwrap_err();
    assert_eq!(
        message,
        "0/1 nodes are available: persistentvolumeclaim \"data\" not found. no new claims to deallocate, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn room_that_was_made_is_kept_for_whom_it_was_made() {
    let important = || {
        let containers = serde_json::json!([{"name": "c", "resources": {"requests": {"cpu": "2"}}}]);
        pod("important", serde_json::json!({"priority": 10, "containers": containers}))
    };
    let mut cluster = Cluster::default();
    cluster.sized("a", "2", "4Gi", 10);
    let mut core = core(cluster);
    place(&mut core, requesting("old", "2", "0")).unwrap();
    let (message, preempt) = place(&mut core, important()).unwrap_err();
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient cpu.");
    let candidate = preempt.unwrap();
    assert_eq!(candidate.victims.len(), 1);
    core.state.nominate(Arc::new(important()), "a");
    core.state.remove_pod("old");
    assert!(place(&mut core, requesting("upstart", "1", "0")).is_err(), "the room is taken");
    assert_eq!(place(&mut core, important()).unwrap(), "a");
    assert!(core.state.nominated.is_empty());
}

#[test]
fn host_ports_and_names_decide() {
    let mut cluster = Cluster::default();
    for name in ["a", "b"] {
        cluster.node(name, serde_json::json!({}));
    }
    cluster.node("cordoned", serde_json::json!({"spec": {"unschedulable": true}}));
    let mut core = core(cluster);
    let ported = |name: &str| {
        pod(name, serde_json::json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}))
    };
    let mut nodes = vec![place(&mut core, ported("1")).unwrap(), place(&mut core, ported("2")).unwrap()];
    nodes.sort();
    assert_eq!(nodes, ["a", "b"]);
    let (message, _) = place(&mut core, ported("3")).unwrap_err();
    assert!(
        message.starts_with(
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't have free ports for the requested pod ports."
        ),
        "{message}"
    );
}
