//! `InterPodAffinity`: pods that want to be near others, or away from them.

use std::collections::HashMap;

use super::{MAX_SCORE, Rejection};
use crate::node::NodeView;
use crate::pod::{PodTerm, PodView};
use crate::selector::Labels;

/// How many matching pods there are in each place, by topology key and value.
type Places = HashMap<(String, String), i64>;

/// What a cycle has to know about the pods that are there.
#[derive(Debug, Default)]
pub struct Counts {
    /// Pods that match all of the pod's affinity terms.
    affinity: Places,
    /// Pods that match one of its anti-affinity terms.
    anti_affinity: Places,
    /// Pods that are there and refuse this one.
    refused_by: Places,
}

/// Counts once per cycle. `labels_of` gives a namespace's labels.
pub fn count(pod: &PodView, nodes: &[NodeView], labels_of: &dyn Fn(&str) -> Labels) -> Counts {
    let mut counts = Counts::default();
    for node in nodes.iter().filter(|n| n.node.is_some()) {
        let mut add = |places: fn(&mut Counts) -> &mut Places, key: &str| {
            if let Some(value) = node.labels().get(key) {
                *places(&mut counts).entry((key.to_owned(), value.clone())).or_insert(0) += 1;
            }
        };
        for other in &node.pods {
            if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| term.matches(other, labels_of)) {
                pod.affinity.iter().for_each(|term| add(|c| &mut c.affinity, &term.topology_key));
            }
            for term in pod.anti_affinity.iter().filter(|term| term.matches(other, labels_of)) {
                add(|c| &mut c.anti_affinity, &term.topology_key);
            }
            for term in other.anti_affinity.iter().filter(|term| term.matches(pod, labels_of)) {
                add(|c| &mut c.refused_by, &term.topology_key);
            }
        }
    }
    counts
}

/// Refuses nodes by the three rules, in upstream's order.
pub fn filter(pod: &PodView, node: &NodeView, counts: &Counts, labels_of: &dyn Fn(&str) -> Labels) -> Option<Rejection> {
    let there = |places: &Places, key: &str| {
        let value = node.labels().get(key);
        value.is_some_and(|v| places.get(&(key.to_owned(), v.clone())).is_some_and(|n| *n > 0))
    };
    let near = pod
        .affinity
        .iter()
        .all(|term| node.labels().contains_key(&term.topology_key) && there(&counts.affinity, &term.topology_key));
    // The first of its kind may go anywhere where the labels exist, if its own terms match itself.
    let first = counts.affinity.is_empty()
        && pod.affinity.iter().all(|term| node.labels().contains_key(&term.topology_key) && term.matches(pod, labels_of));
    if !pod.affinity.is_empty() && !near && !first {
        return Some(Rejection::final_("InterPodAffinity", "node(s) didn't match pod affinity rules"));
    }
    if pod.anti_affinity.iter().any(|term| there(&counts.anti_affinity, &term.topology_key)) {
        return Some(Rejection::resolvable("InterPodAffinity", "node(s) didn't match pod anti-affinity rules"));
    }
    let refused = counts.refused_by.iter().any(|((key, value), n)| *n > 0 && node.labels().get(key) == Some(value));
    refused.then(|| Rejection::resolvable("InterPodAffinity", "node(s) didn't satisfy existing pods anti-affinity rules"))
}

/// Scores of the nodes that fit: the weights of preferred terms, of this pod about others and of others about it.
pub fn score(pod: &PodView, fitting: &[&NodeView], all: &[NodeView], labels_of: &dyn Fn(&str) -> Labels) -> Vec<i64> {
    let mut places = Places::new();
    for node in all.iter().filter(|n| n.node.is_some()) {
        let mut add = |term: &PodTerm, weight: i64| {
            if let Some(value) = node.labels().get(&term.topology_key) {
                *places.entry((term.topology_key.clone(), value.clone())).or_insert(0) += weight;
            }
        };
        for other in &node.pods {
            pod.preferred.iter().filter(|(_, term)| term.matches(other, labels_of)).for_each(|(weight, term)| add(term, *weight));
            other.preferred.iter().filter(|(_, term)| term.matches(pod, labels_of)).for_each(|(weight, term)| add(term, *weight));
            // A pod that requires this one near is taken to like it (hardPodAffinityWeight 1).
            other.affinity.iter().filter(|term| term.matches(pod, labels_of)).for_each(|term| add(term, 1));
        }
    }
    let raw: Vec<i64> = fitting
        .iter()
        .map(|node| {
            places.iter().filter(|((key, value), _)| node.labels().get(key) == Some(value)).map(|(_, weight)| weight).sum()
        })
        .collect();
    let (min, max) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
    let scaled = |value: i64| if max == min { 0 } else { MAX_SCORE * (value - min) / (max - min) };
    raw.into_iter().map(scaled).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{labelled_pod, node, view};

    fn term(kind: &str, app: &str) -> Value {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}}]}}})
    }

    #[test]
    #[rustfmt::skip]
    fn pods_go_near_and_stay_away() {
        let near = "node(s) didn't match pod affinity rules";
        let away = "node(s) didn't match pod anti-affinity rules";
        let existing = "node(s) didn't satisfy existing pods anti-affinity rules";
        // the new pod                           app    expected in zone a (a db is there), zone b (a loner is there)
        check(json!({}),                         "web", None,       None);
        check(term("podAffinity", "db"),         "web", None,       Some(near));
        check(term("podAntiAffinity", "db"),     "web", Some(away), None);
        check(json!({}),                         "x",   None,       Some(existing));
        check(term("podAffinity", "first"),    "first", None,       None); // the first of its kind
        #[track_caller]
        fn check(spec: Value, app: &str, a: Option<&'static str>, b: Option<&'static str>) {
            let nodes = [
                view(node("a", "4", &[("zone", "a")]), &[labelled_pod("db", "1", &[("app", "db")], json!({}))]),
                view(node("b", "4", &[("zone", "b")]), &[labelled_pod("loner", "1", &[], term("podAntiAffinity", "x"))]),
            ];
            let pod = labelled_pod("new", "1", &[("app", app)], spec);
            let none = |_: &str| Labels::new();
            let counts = count(&pod, &nodes, &none);
            let reasons = nodes.each_ref().map(|n| filter(&pod, n, &counts, &none).map(|r| r.reasons[0].clone()));
            assert_eq!(reasons, [a.map(Into::into), b.map(Into::into)]);
        }
    }
}
