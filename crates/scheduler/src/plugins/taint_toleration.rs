//! `TaintToleration` and `NodeUnschedulable`: nodes that keep pods away.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::Rejection;
use crate::node::NodeView;
use crate::pod::PodView;

/// The taint of a cordoned node, which a toleration may accept.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Refuses a cordoned node.
pub fn unschedulable(pod: &PodView, node: &NodeView) -> Option<Rejection> {
    let taint = Taint { key: UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Taint::default() };
    let refused = node.is_unschedulable() && !tolerated(pod.tolerations(), &taint);
    refused.then(|| Rejection::final_("NodeUnschedulable", "node(s) were unschedulable"))
}

/// Refuses a node with a taint of effect NoSchedule or NoExecute that the pod does not tolerate.
pub fn filter(pod: &PodView, node: &NodeView) -> Option<Rejection> {
    let mut hard = node.taints().iter().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
    let refused = hard.any(|taint| !tolerated(pod.tolerations(), taint));
    refused.then(|| Rejection::final_("TaintToleration", "node(s) had untolerated taint(s)"))
}

/// Counts the PreferNoSchedule taints that are not tolerated; fewer is better.
pub fn score(pod: &PodView, node: &NodeView) -> i64 {
    let soft = node.taints().iter().filter(|t| t.effect == "PreferNoSchedule");
    let relevant: Vec<Toleration> = pod
        .tolerations()
        .iter()
        .filter(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")))
        .cloned()
        .collect();
    soft.filter(|taint| !tolerated(&relevant, taint)).count() as i64
}

fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    let (own, wanted) = (text(&taint.value), text(&toleration.value));
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => own == wanted,
        // KEP-5471: numeric comparison.
        "Gt" => matches!((own.parse::<i64>(), wanted.parse::<i64>()), (Ok(own), Ok(wanted)) if own > wanted),
        "Lt" => matches!((own.parse::<i64>(), wanted.parse::<i64>()), (Ok(own), Ok(wanted)) if own < wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{node_with, pod_with, view};

    #[test]
    #[rustfmt::skip]
    fn taints_are_tolerated_by_key_value_and_effect() {
        let taint = json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"});
        //     toleration                                                          fits
        check(&taint, json!([]),                                                   false);
        check(&taint, json!([{"key": "gpu", "value": "yes"}]),                     true);
        check(&taint, json!([{"key": "gpu", "value": "no"}]),                      false);
        check(&taint, json!([{"key": "gpu", "operator": "Exists"}]),               true);
        check(&taint, json!([{"operator": "Exists"}]),                             true);  // tolerates everything
        check(&taint, json!([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]), false);
        check(&json!({"key": "x", "effect": "PreferNoSchedule"}), json!([]),       true);  // a wish only
        #[track_caller]
        fn check(taint: &Value, tolerations: Value, fits: bool) {
            let node = view(node_with("n", "1", &[], json!({"taints": [taint]})), &[]);
            let pod = pod_with("p", "1", json!({"tolerations": tolerations}));
            assert_eq!(filter(&pod, &node).is_none(), fits);
        }
    }
}
