//! Which taints a node should have. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};

use super::health::status;
use crate::clock::whole_seconds;

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, its status, and the NoSchedule taint that it stands for.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether the node's pods are being evicted for its health.
pub(super) fn has_no_execute(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.effect == "NoExecute" && matches!(&*taint.key, NOT_READY | UNREACHABLE))
}

/// The taints that `node` should have, or none when it has them. Taints of others are left as they are.
/// `ready` is the status of its Ready condition; `evict` is whether a NoExecute taint may be set now.
pub(super) fn plan(node: &Node, ready: &str, evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let health = match ready {
        "False" => Some(NOT_READY),
        "True" => None,
        _ => Some(UNREACHABLE),
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, bad, key) in BY_CONDITION {
        let is_bad = if kind == "Ready" { health == Some(key) } else { status(node, kind) == Some(bad) };
        if is_bad {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if let Some(key) = health
        && evict
    {
        wanted.push((key, "NoExecute"));
    }
    let is_managed = |taint: &Taint| match &*taint.effect {
        "NoSchedule" => taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key),
        // While it may not be set, one that is there stays, except of the wrong kind.
        "NoExecute" => matches!(&*taint.key, NOT_READY | UNREACHABLE) && (evict || health != Some(&taint.key)),
        _ => false,
    };
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect);
    let mut next: Vec<Taint> = taints(node).iter().filter(|taint| !is_managed(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !next.iter().any(|taint| taint.key == key && taint.effect == effect) {
            next.push(Taint { key: key.into(), effect: effect.into(), time_added: Some(whole_seconds(now)), value: None });
        }
    }
    (next != taints(node)).then_some(next)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn taints_follow_the_conditions() {
        let ns = |key: &str| format!("{key}:NoSchedule");
        let ne = |key: &str| format!("{key}:NoExecute");
        let other = json!({"key": "gpu", "effect": "NoSchedule"});
        let no_execute = json!({"key": NOT_READY, "effect": "NoExecute"});
        //    ready      evict  spec                                          taints
        check("True",    true,  json!({}),                                    None);
        check("False",   true,  json!({}),                                    Some(vec![ns(NOT_READY), ne(NOT_READY)]));
        check("False",   false, json!({}),                                    Some(vec![ns(NOT_READY)]));
        check("Unknown", true,  json!({}),                                    Some(vec![ns(UNREACHABLE), ne(UNREACHABLE)]));
        check("Unknown", true,  json!({"taints": [no_execute]}),              Some(vec![ns(UNREACHABLE), ne(UNREACHABLE)]));
        check("True",    true,  json!({"taints": [no_execute, other]}),       Some(vec![ns("gpu")]));
        check("False",   false, json!({"taints": [no_execute]}),              Some(vec![ne(NOT_READY), ns(NOT_READY)]));
        check("True",    true,  json!({"unschedulable": true}),               Some(vec![ns(UNSCHEDULABLE)]));
        check("True",    true,  json!({"taints": [{"key": UNSCHEDULABLE, "effect": "NoSchedule"}]}), Some(vec![]));
        #[track_caller]
        fn check(ready: &str, evict: bool, spec: Value, expected: Option<Vec<String>>) {
            let node: Node = from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {}, "spec": spec})).unwrap();
            let taints = plan(&node, ready, evict, Timestamp::UNIX_EPOCH);
            let shown = taints.map(|taints| taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect::<Vec<_>>());
            assert_eq!(shown, expected);
        }
    }
}
