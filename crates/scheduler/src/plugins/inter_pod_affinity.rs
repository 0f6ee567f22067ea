//! `InterPodAffinity`: pods that want to be near others, or far from them.
//!
//! What matters of a node is only its topology domains. Before nodes are looked at, the pods that a term speaks of are
//! counted per domain; a node then costs a few look-ups.

use std::borrow::Cow;
use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PodAffinityTerm, WeightedPodAffinityTerm};

use crate::events::ClusterEvent;
use crate::framework::{Check, Cycle, Filter, MAX_SCORE, Plugin, Prefilter, Score};
use crate::interner::Id;
use crate::plugins::Arguments;
use crate::pod::PodInfo;
use crate::selectors::covers;
use crate::state::{NodeId, State};

/// A label key and its value on a node.
type Domain = (Id, Id);

/// The plugin.
pub struct InterPodAffinity {
    hard_weight: i64,
    ignore_preferred: bool,
}

struct Near<'a> {
    state: &'a State,
    pod: &'a PodInfo,
    /// Domains in which a pod wants this one not to be.
    repelled: HashMap<Domain, i64>,
    /// Pods that fulfil all affinity terms, per domain.
    attracting: HashMap<Domain, i64>,
    /// Pods that fulfil an anti-affinity term, per domain.
    avoided: HashMap<Domain, i64>,
    affinity: Vec<Option<Id>>,
    anti: Vec<Option<Id>>,
}

struct Weighed<'a> {
    state: &'a State,
    weights: HashMap<Domain, i64>,
    keys: Vec<Id>,
}

impl InterPodAffinity {
    pub fn new(arguments: &Arguments) -> Self {
        Self { hard_weight: arguments.hard_pod_affinity_weight.unwrap_or(1), ignore_preferred: arguments.ignore_preferred_terms }
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        let Cycle { pod, state } = cycle;
        let mut repelled = HashMap::new();
        for node in state.repelling() {
            for other in state.nodes.placed[node].iter().filter(|other| other.repels) {
                for term in other.required_anti_affinity() {
                    if let Some(domain) = domain(state, node, term)
                        && concerns(term, other, pod, state)
                    {
                        *repelled.entry(domain).or_default() += 1;
                    }
                }
            }
        }
        let (affinity, anti) = (pod.required_affinity(), pod.required_anti_affinity());
        if repelled.is_empty() && affinity.is_empty() && anti.is_empty() {
            return Prefilter::Skip;
        }
        let (mut attracting, mut avoided) = (HashMap::new(), HashMap::new());
        if !affinity.is_empty() || !anti.is_empty() {
            for &node in state.known_order() {
                for other in &state.nodes.placed[node] {
                    if !affinity.is_empty() && affinity.iter().all(|term| concerns(term, pod, other, state)) {
                        for domain in affinity.iter().filter_map(|term| domain(state, node, term)) {
                            *attracting.entry(domain).or_default() += 1;
                        }
                    }
                    for term in anti.iter().filter(|term| concerns(term, pod, other, state)) {
                        if let Some(domain) = domain(state, node, term) {
                            *avoided.entry(domain).or_default() += 1;
                        }
                    }
                }
            }
        }
        let keys = |terms: &[PodAffinityTerm]| terms.iter().map(|term| state.interner.lookup(&term.topology_key)).collect();
        let (affinity, anti) = (keys(affinity), keys(anti));
        Prefilter::Filter(Box::new(Near { state, pod, repelled, attracting, avoided, affinity, anti }))
    }

    fn score<'a>(&'a self, cycle: Cycle<'a>, _feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        let Cycle { pod, state } = cycle;
        let affinity = pod.affinity();
        let near = affinity.and_then(|a| a.pod_affinity.as_ref());
        let near = preferred(near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()));
        let far = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let far = preferred(far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()));
        let wishes = !near.is_empty() || !far.is_empty();
        let nodes: Vec<NodeId> = if wishes {
            state.known_order().to_vec()
        } else if self.ignore_preferred && self.hard_weight == 0 {
            Vec::new()
        } else {
            state.affine().collect()
        };
        let mut weights: HashMap<Domain, i64> = HashMap::new();
        for node in nodes {
            for other in &state.nodes.placed[node] {
                let mut add = |term: &PodAffinityTerm, weight: i64| {
                    if let Some(domain) = domain(state, node, term) {
                        *weights.entry(domain).or_default() += weight;
                    }
                };
                for (terms, sign) in [(near, 1), (far, -1)] {
                    for wish in terms.iter().filter(|wish| concerns(&wish.pod_affinity_term, pod, other, state)) {
                        add(&wish.pod_affinity_term, sign * i64::from(wish.weight));
                    }
                }
                if !other.has_affinity {
                    continue;
                }
                // What holds for them holds the other way round too.
                if self.hard_weight > 0 {
                    for term in other.required_affinity().iter().filter(|term| concerns(term, other, pod, state)) {
                        add(term, self.hard_weight);
                    }
                }
                if self.ignore_preferred {
                    continue;
                }
                let theirs = other.affinity();
                let near = theirs.and_then(|a| a.pod_affinity.as_ref());
                let near = preferred(near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()));
                let far = theirs.and_then(|a| a.pod_anti_affinity.as_ref());
                let far = preferred(far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()));
                for (terms, sign) in [(near, 1), (far, -1)] {
                    for wish in terms.iter().filter(|wish| concerns(&wish.pod_affinity_term, other, pod, state)) {
                        add(&wish.pod_affinity_term, sign * i64::from(wish.weight));
                    }
                }
            }
        }
        let mut keys: Vec<Id> = weights.keys().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        (!weights.is_empty()).then(|| Box::new(Weighed { state, weights, keys }) as Box<dyn Score>)
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, state: &State) -> bool {
        match event {
            ClusterEvent::Node(_) => true,
            ClusterEvent::PodAssigned(other) => pod.required_affinity().iter().any(|term| concerns(term, pod, other, state)),
            ClusterEvent::PodRemoved(other, _) => {
                pod.required_anti_affinity().iter().any(|term| concerns(term, pod, other, state))
                    || other.required_anti_affinity().iter().any(|term| concerns(term, other, pod, state))
            }
            ClusterEvent::Namespace => true,
            ClusterEvent::Storage => false,
        }
    }
}

impl Near<'_> {
    fn has(&self, counts: &HashMap<Domain, i64>, key: Option<Id>, node: NodeId) -> bool {
        let domain = key.and_then(|key| Some((key, self.state.label(node, key)?)));
        domain.is_some_and(|domain| counts.get(&domain).is_some_and(|count| *count > 0))
    }

    fn repels(&self, node: NodeId) -> bool {
        !self.repelled.is_empty() && self.state.nodes.labels[node].iter().any(|domain| self.repelled.contains_key(domain))
    }

    fn avoids(&self, node: NodeId) -> bool {
        self.anti.iter().any(|key| self.has(&self.avoided, *key, node))
    }

    fn attracts(&self, node: NodeId) -> bool {
        if self.affinity.iter().all(|key| self.has(&self.attracting, *key, node)) {
            return true;
        }
        // The first of a group that wants to be together finds nobody: it may go anywhere its terms have a domain.
        self.attracting.is_empty()
            && self.affinity.iter().all(|key| key.is_some_and(|key| self.state.label(node, key).is_some()))
            && self.pod.required_affinity().iter().all(|term| concerns(term, self.pod, self.pod, self.state))
    }
}

impl Filter for Near<'_> {
    fn check(&self, node: NodeId) -> Check {
        if !self.attracts(node) {
            return Check::Unresolvable;
        }
        if self.avoids(node) || self.repels(node) { Check::Unschedulable } else { Check::Pass }
    }

    fn reasons(&self, node: NodeId) -> Vec<Cow<'static, str>> {
        vec![if !self.attracts(node) {
            "node(s) didn't match pod affinity rules".into()
        } else if self.avoids(node) {
            "node(s) didn't match pod anti-affinity rules".into()
        } else {
            "node(s) didn't satisfy existing pods anti-affinity rules".into()
        }]
    }
}

impl Score for Weighed<'_> {
    fn score(&self, node: NodeId) -> i64 {
        let domains = self.keys.iter().filter_map(|key| Some((*key, self.state.label(node, *key)?)));
        domains.filter_map(|domain| self.weights.get(&domain)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (lowest, highest) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if highest == lowest { 0 } else { MAX_SCORE * (*score - lowest) / (highest - lowest) };
        }
    }
}

/// The domain of a term on a node.
fn domain(state: &State, node: NodeId, term: &PodAffinityTerm) -> Option<Domain> {
    let key = state.interner.lookup(&term.topology_key)?;
    Some((key, state.label(node, key)?))
}

/// Whether a term of `owner` speaks of `other`.
fn concerns(term: &PodAffinityTerm, owner: &PodInfo, other: &PodInfo, state: &State) -> bool {
    let labels = other.object.metadata.labels.as_ref();
    if !covers(term.label_selector.as_ref(), labels) {
        return false;
    }
    let own = |key: &String| owner.object.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let theirs = |key: &String| labels.and_then(|labels| labels.get(key));
    // KEP-3633: keys whose values have to be the owner's, or must not be. A key that the owner lacks says nothing.
    let same = term.match_label_keys.iter().flatten().all(|key| own(key).is_none_or(|value| theirs(key) == Some(value)));
    let different = term.mismatch_label_keys.iter().flatten().all(|key| own(key).is_none_or(|value| theirs(key) != Some(value)));
    same && different && in_namespaces(term, owner, other, state)
}

fn in_namespaces(term: &PodAffinityTerm, owner: &PodInfo, other: &PodInfo, state: &State) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    if named.iter().any(|name| **name == *other.key.namespace) {
        return true;
    }
    match &term.namespace_selector {
        None => named.is_empty() && owner.key.namespace == other.key.namespace,
        Some(selector) => {
            let namespace = state.namespaces.get(&other.key.namespace);
            covers(Some(selector), namespace.and_then(|namespace| namespace.metadata.labels.as_ref()))
        }
    }
}

fn preferred(terms: Option<&Vec<WeightedPodAffinityTerm>>) -> &[WeightedPodAffinityTerm] {
    terms.map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, pod};
    use super::*;

    fn term(app: &str, key: &str) -> serde_json::Value {
        serde_json::json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
    }

    fn labelled(name: &str, app: &str, affinity: serde_json::Value) -> PodInfo {
        pod(name, serde_json::json!({"metadata": {"labels": {"app": app}}, "affinity": affinity}))
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
            cluster.node(name, serde_json::json!({"metadata": {"labels": {"zone": zone}}}));
        }
        cluster
    }

    fn names(rejected: Vec<(String, String)>) -> Vec<String> {
        rejected.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn affinity_keeps_together_and_the_first_goes_anywhere() {
        let plugin = InterPodAffinity::new(&Arguments::default());
        let mut cluster = cluster();
        let near = |app: &str, wanted: &str| {
            let terms =
                serde_json::json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(wanted, "zone")]}});
            labelled("p", app, terms)
        };
        assert_eq!(names(cluster.filtered(&plugin, &near("web", "db"))), ["a1", "a2", "b1"]);
        assert!(cluster.filtered(&plugin, &near("web", "web")).is_empty(), "its own terms speak of itself");
        cluster.place(labelled("db", "db", serde_json::json!({})), "a1");
        let rejected = cluster.filtered(&plugin, &near("web", "db"));
        assert_eq!(rejected, [("b1".into(), "node(s) didn't match pod affinity rules".into())]);
    }

    #[test]
    fn anti_affinity_works_both_ways() {
        let plugin = InterPodAffinity::new(&Arguments::default());
        let mut cluster = cluster();
        let far = |key: &str| serde_json::json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("web", key)]}});
        cluster.place(labelled("w", "web", far("zone")), "a1");
        let rejected = cluster.filtered(&plugin, &labelled("p", "web", serde_json::json!({})));
        let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
        assert_eq!(rejected, [("a1".into(), reason.into()), ("a2".into(), reason.into())]);
        let rejected = cluster.filtered(&plugin, &labelled("p", "db", far("kubernetes.io/hostname")));
        assert_eq!(rejected, [("a1".into(), "node(s) didn't match pod anti-affinity rules".into())]);
        assert!(cluster.filtered(&plugin, &labelled("p", "db", serde_json::json!({}))).is_empty());
    }

    #[test]
    fn namespaces_are_selected() {
        let plugin = InterPodAffinity::new(&Arguments::default());
        let mut cluster = cluster();
        let namespace = serde_json::json!({"metadata": {"name": "other", "labels": {"team": "x"}}});
        cluster.state.namespaces.insert("other".into(), std::sync::Arc::new(serde_json::from_value(namespace).unwrap()));
        let elsewhere = pod("db", serde_json::json!({"metadata": {"namespace": "other", "labels": {"app": "db"}}}));
        cluster.place(elsewhere, "a1");
        let check = |more: serde_json::Value, expected: &[&str]| {
            let mut term = term("db", "kubernetes.io/hostname");
            for (key, value) in more.as_object().unwrap() {
                term[key] = value.clone();
            }
            let anti = serde_json::json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
            assert_eq!(names(cluster.filtered(&plugin, &labelled("p", "web", anti))), expected, "{more}");
        };
        check(serde_json::json!({}), &[]);
        check(serde_json::json!({"namespaces": ["other"]}), &["a1"]);
        check(serde_json::json!({"namespaceSelector": {}}), &["a1"]);
        check(serde_json::json!({"namespaceSelector": {"matchLabels": {"team": "y"}}}), &[]);
    }

    #[test]
    fn wishes_weigh() {
        let plugin = InterPodAffinity::new(&Arguments::default());
        let mut cluster = cluster();
        cluster.place(labelled("db", "db", serde_json::json!({})), "a1");
        let wish = serde_json::json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "podAffinityTerm": term("db", "zone")},
            {"weight": 10, "podAffinityTerm": term("db", "kubernetes.io/hostname")},
        ]}});
        let scores = cluster.scored(&plugin, &labelled("p", "web", wish));
        assert_eq!(scores, [("a1".into(), 100), ("a2".into(), 50), ("b1".into(), 0)]);
        assert!(cluster.scored(&plugin, &labelled("p", "web", serde_json::json!({}))).is_empty());
    }
}
