//! `NodeAffinity`, `NodeName` and `NodePorts`: what a pod asks of its node.

use super::Rejection;
use crate::node::NodeView;
use crate::pod::PodView;
use crate::selector::node_matches;

/// Refuses nodes that the node selector or the required node affinity does not select.
pub fn filter(pod: &PodView, node: &NodeView) -> Option<Rejection> {
    (!selected(pod, node)).then(|| Rejection::final_("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
}

/// Whether node selector and required affinity accept the node.
pub fn selected(pod: &PodView, node: &NodeView) -> bool {
    let labels = node.labels();
    let selector = pod.spec().and_then(|s| s.node_selector.as_ref());
    let by_selector = selector.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    by_selector && pod.required_nodes().is_none_or(|terms| terms.iter().any(|term| node_matches(term, &node.name, labels)))
}

/// Refuses every node but the one the pod names.
pub fn name(pod: &PodView, node: &NodeView) -> Option<Rejection> {
    let refused = pod.node().is_some_and(|name| name != node.name);
    refused.then(|| Rejection::final_("NodeName", "node(s) didn't match the requested node name"))
}

/// Refuses a node on which a wanted port is taken.
pub fn ports(pod: &PodView, node: &NodeView) -> Option<Rejection> {
    let taken = pod.ports.iter().any(|port| node.port_taken(port));
    taken.then(|| Rejection::resolvable("NodePorts", "node(s) didn't have free ports for the requested pod ports"))
}

/// Sums the weights of the preferred terms that match.
pub fn score(pod: &PodView, node: &NodeView) -> i64 {
    let terms = pod.preferred_nodes().iter();
    terms.filter(|t| node_matches(&t.preference, &node.name, node.labels())).map(|t| i64::from(t.weight)).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{node, pod_with, view};

    #[test]
    #[rustfmt::skip]
    fn selector_and_affinity_have_both_to_match() {
        let affinity = |zone: &str| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}}});
        check(json!({}), true);
        check(json!({"nodeSelector": {"zone": "a"}}), true);
        check(json!({"nodeSelector": {"zone": "b"}}), false);
        check(json!({"affinity": affinity("a")}), true);
        check(json!({"nodeSelector": {"zone": "a"}, "affinity": affinity("b")}), false);
        #[track_caller]
        fn check(spec: Value, fits: bool) {
            let node = view(node("n", "1", &[("zone", "a")]), &[]);
            assert_eq!(filter(&pod_with("p", "1", spec), &node).is_none(), fits);
        }
    }

    #[test]
    fn a_port_is_taken_by_address_protocol_and_number() {
        let with = |ip: &str, protocol: &str| {
            pod_with(
                "p",
                "1",
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]}),
            )
        };
        let node = view(node("n", "1", &[]), &[with("10.0.0.1", "TCP")]);
        assert!(ports(&with("10.0.0.1", "TCP"), &node).is_some());
        assert!(ports(&with("", "TCP"), &node).is_some(), "all addresses include a taken one");
        assert!(ports(&with("10.0.0.2", "TCP"), &node).is_none());
        assert!(ports(&with("10.0.0.1", "UDP"), &node).is_none());
    }
}
