//! `PodTopologySpread`: keeps like pods evenly over zones, nodes or whatever label names a place.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{MAX_SCORE, Rejection, node_affinity, taint_toleration};
use crate::node::NodeView;
use crate::pod::PodView;
use crate::selector::selects;

const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// How the pods a constraint is about are spread now.
#[derive(Debug)]
pub struct Spread<'a> {
    constraint: &'a TopologySpreadConstraint,
    selector: Option<LabelSelector>,
    /// Matching pods for each value of the topology key, over eligible nodes.
    counts: HashMap<String, i64>,
}

/// Counts for every constraint of the pod: those that are required, then those that are preferred.
pub fn count<'a>(pod: &'a PodView, nodes: &[NodeView]) -> (Vec<Spread<'a>>, Vec<Spread<'a>>) {
    let (hard, soft): (Vec<_>, Vec<_>) = pod.spread().iter().partition(|c| c.when_unsatisfiable == "DoNotSchedule");
    let all = |constraints: Vec<&'a TopologySpreadConstraint>| {
        let keys: Vec<&str> = constraints.iter().map(|c| c.topology_key.as_str()).collect();
        constraints.into_iter().map(|c| Spread::new(pod, c, &keys, nodes)).collect()
    };
    (all(hard), all(soft))
}

// === impl Spread ===

impl<'a> Spread<'a> {
    fn new(pod: &PodView, constraint: &'a TopologySpreadConstraint, keys: &[&str], nodes: &[NodeView]) -> Self {
        let selector = selector_of(pod, constraint);
        let mut counts = HashMap::new();
        for node in nodes.iter().filter(|n| n.node.is_some() && eligible(pod, constraint, n)) {
            if !keys.iter().all(|key| node.labels().contains_key(*key)) {
                continue;
            }
            let Some(place) = node.labels().get(&constraint.topology_key) else { continue };
            let alike = node.pods.iter().filter(|p| {
                p.key.namespace == pod.key.namespace && !p.is_terminating() && selects(selector.as_ref(), p.labels())
            });
            *counts.entry(place.clone()).or_insert(0) += alike.count() as i64;
        }
        Self { constraint, selector, counts }
    }

    /// The pod itself counts where it would be put, if it is one of those the constraint is about.
    fn own(&self, pod: &PodView) -> i64 {
        i64::from(selects(self.selector.as_ref(), pod.labels()))
    }

    fn least(&self) -> i64 {
        let places = self.counts.len() as i32;
        if places < self.constraint.min_domains.unwrap_or(1) { 0 } else { self.counts.values().copied().min().unwrap_or(0) }
    }
}

/// Refuses a node where putting the pod would make the spread larger than allowed.
pub fn filter(pod: &PodView, node: &NodeView, spreads: &[Spread<'_>]) -> Option<Rejection> {
    for spread in spreads {
        let Some(place) = node.labels().get(&spread.constraint.topology_key) else {
            return Some(Rejection::final_("PodTopologySpread", MISSING_LABEL));
        };
        let there = spread.counts.get(place).copied().unwrap_or(0);
        if there + spread.own(pod) - spread.least() > i64::from(spread.constraint.max_skew) {
            return Some(Rejection::resolvable("PodTopologySpread", MISMATCH));
        }
    }
    None
}

/// Scores of the nodes that fit: fewer like pods in the node's place is better.
pub fn score(nodes: &[&NodeView], spreads: &[Spread<'_>]) -> Vec<i64> {
    if spreads.is_empty() {
        return vec![0; nodes.len()];
    }
    // A place counts by the logarithm of how many there are, so that zones weigh less than nodes.
    let weight = |spread: &Spread<'_>| {
        let places: HashSet<_> = nodes.iter().filter_map(|n| n.labels().get(&spread.constraint.topology_key)).collect();
        (places.len() as f64 + 2.0).ln()
    };
    let weights: Vec<f64> = spreads.iter().map(weight).collect();
    let raw: Vec<Option<i64>> = nodes
        .iter()
        .map(|node| {
            let mut sum = 0.0;
            for (spread, weight) in spreads.iter().zip(&weights) {
                let place = node.labels().get(&spread.constraint.topology_key)?;
                let there = spread.counts.get(place).copied().unwrap_or(0);
                sum += there as f64 * weight + f64::from(spread.constraint.max_skew - 1);
            }
            Some(sum.round() as i64)
        })
        .collect();
    let known = raw.iter().flatten();
    let (min, max) = (known.clone().min().copied().unwrap_or(0), known.max().copied().unwrap_or(0));
    let scaled = |value: Option<i64>| match value {
        None => 0,
        Some(_) if max == 0 => MAX_SCORE,
        Some(value) => MAX_SCORE * (max + min - value) / max,
    };
    raw.into_iter().map(scaled).collect()
}

fn eligible(pod: &PodView, constraint: &TopologySpreadConstraint, node: &NodeView) -> bool {
    let honor = |policy: &Option<String>, default: &str| policy.as_deref().unwrap_or(default) == "Honor";
    let by_affinity = !honor(&constraint.node_affinity_policy, "Honor") || node_affinity::selected(pod, node);
    by_affinity && (!honor(&constraint.node_taints_policy, "Ignore") || taint_toleration::filter(pod, node).is_none())
}

/// The constraint's selector, with `matchLabelKeys` filled in from the pod (KEP-3243).
fn selector_of(pod: &PodView, constraint: &TopologySpreadConstraint) -> Option<LabelSelector> {
    let mut selector = constraint.label_selector.clone();
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels().get(key) {
            selector.get_or_insert_default().match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    selector
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{labelled_pod, node, view};

    #[test]
    fn a_full_zone_is_refused_and_an_unlabelled_node_too() {
        let like = |name: &str| {
            labelled_pod(
                name,
                "1",
                &[("app", "web")],
                json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]}),
            )
        };
        let nodes = [
            view(node("a", "4", &[("zone", "a")]), &[like("one")]),
            view(node("b", "4", &[("zone", "b")]), &[]),
            view(node("c", "4", &[]), &[]),
        ];
        let pod = like("new");
        let (hard, _) = count(&pod, &nodes);
        let reasons: Vec<_> = nodes.iter().map(|n| filter(&pod, n, &hard).map(|r| r.reasons[0].clone())).collect();
        assert_eq!(reasons, [Some(MISMATCH.into()), None, Some(MISSING_LABEL.into())]);
    }
}
