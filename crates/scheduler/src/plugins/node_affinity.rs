//! `NodeAffinity`: node selectors, required and preferred node affinity.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::NodeAffinity as ApiAffinity;

use crate::events::ClusterEvent;
use crate::framework::{Check, Cycle, Filter, Plugin, Prefilter, Score, normalize_by_highest};
use crate::pod::PodInfo;
use crate::selectors::{NodeTerm, NodeTerms};
use crate::state::{NodeId, State};

/// The plugin.
pub struct NodeAffinity {
    /// What the administrator demands of all pods of a profile.
    added: Option<ApiAffinity>,
}

/// The node affinity a pod requires, compiled. Spreading asks it too.
pub struct Required {
    map: Option<NodeTerm>,
    terms: Option<NodeTerms>,
}

struct Matching<'a> {
    state: &'a State,
    own: Required,
    added: Option<NodeTerms>,
}

struct Preferring<'a> {
    state: &'a State,
    terms: Vec<(i64, NodeTerm)>,
}

impl NodeAffinity {
    pub fn new(added: Option<ApiAffinity>) -> Self {
        Self { added }
    }
}

impl Required {
    /// Compiles what `pod` requires; `None` if it is nothing.
    pub fn of(pod: &PodInfo, state: &State) -> Option<Self> {
        let spec = pod.spec();
        let map = spec.node_selector.as_ref().filter(|map| !map.is_empty());
        let affinity = pod.affinity().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        if map.is_none() && required.is_none() {
            return None;
        }
        Some(Self {
            map: map.map(|map| NodeTerm::of_map(map, &state.interner)),
            terms: required.map(|required| NodeTerms::new(required, &state.interner)),
        })
    }

    /// Whether `node` is what the pod requires.
    pub fn matches(&self, state: &State, node: NodeId) -> bool {
        let (labels, name) = (&state.nodes.labels[node], state.nodes.name_id[node]);
        self.map.as_ref().is_none_or(|map| map.matches(labels, name, &state.interner))
            && self.terms.as_ref().is_none_or(|terms| terms.matches(labels, name, &state.interner))
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        let added = self.added.as_ref().and_then(|added| added.required_during_scheduling_ignored_during_execution.as_ref());
        let added = added.map(|required| NodeTerms::new(required, &cycle.state.interner));
        let own = Required::of(cycle.pod, cycle.state);
        if added.is_none() && own.is_none() {
            return Prefilter::Skip;
        }
        let own = own.unwrap_or(Required { map: None, terms: None });
        Prefilter::Filter(Box::new(Matching { state: cycle.state, own, added }))
    }

    fn score<'a>(&'a self, cycle: Cycle<'a>, _feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        let own = cycle.pod.affinity().and_then(|affinity| affinity.node_affinity.as_ref());
        let preferred = own.into_iter().chain(&self.added);
        let preferred =
            preferred.flat_map(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten());
        let terms: Vec<_> = preferred
            .filter(|term| term.weight != 0)
            .map(|term| (i64::from(term.weight), NodeTerm::new(&term.preference, &cycle.state.interner)))
            .collect();
        (!terms.is_empty()).then(|| Box::new(Preferring { state: cycle.state, terms }) as Box<dyn Score>)
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, state: &State) -> bool {
        let ClusterEvent::Node(node) = event else { return false };
        Required::of(pod, state).is_none_or(|required| required.matches(state, *node))
    }
}

impl Filter for Matching<'_> {
    fn check(&self, node: NodeId) -> Check {
        if self.demanded(node) && self.own.matches(self.state, node) { Check::Pass } else { Check::Unresolvable }
    }

    fn reasons(&self, node: NodeId) -> Vec<Cow<'static, str>> {
        if self.demanded(node) {
            vec!["node(s) didn't match Pod's node affinity/selector".into()]
        } else {
            vec!["node(s) didn't match scheduler-enforced node affinity".into()]
        }
    }
}

impl Matching<'_> {
    fn demanded(&self, node: NodeId) -> bool {
        let (labels, name) = (&self.state.nodes.labels[node], self.state.nodes.name_id[node]);
        self.added.as_ref().is_none_or(|terms| terms.matches(labels, name, &self.state.interner))
    }
}

impl Score for Preferring<'_> {
    fn score(&self, node: NodeId) -> i64 {
        let (labels, name) = (&self.state.nodes.labels[node], self.state.nodes.name_id[node]);
        let matching = self.terms.iter().filter(|(_, term)| term.matches(labels, name, &self.state.interner));
        matching.map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, pod};
    use super::*;

    #[test]
    fn selector_and_affinity_both_have_to_hold() {
        let mut cluster = Cluster::default();
        for (name, zone, disk) in [("a", "x", "ssd"), ("b", "y", "ssd"), ("c", "x", "hdd")] {
            cluster.node(name, serde_json::json!({"metadata": {"labels": {"zone": zone, "disk": disk}}}));
        }
        let plugin = NodeAffinity::new(None);
        let wanting = pod(
            "p",
            serde_json::json!({
                "nodeSelector": {"zone": "x"},
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]},
                ]}}},
            }),
        );
        let reason = "node(s) didn't match Pod's node affinity/selector";
        assert_eq!(cluster.filtered(&plugin, &wanting), [("b".into(), reason.into()), ("c".into(), reason.into())]);
        assert!(cluster.filtered(&plugin, &pod("p", serde_json::json!({}))).is_empty());
    }

    #[test]
    fn preferred_terms_add_up() {
        let mut cluster = Cluster::default();
        for (name, zone, disk) in [("a", "x", "ssd"), ("b", "y", "ssd"), ("c", "y", "hdd")] {
            cluster.node(name, serde_json::json!({"metadata": {"labels": {"zone": zone, "disk": disk}}}));
        }
        let prefer = |weight: i32, key: &str, value: &str| {
            serde_json::json!({
                "weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]},
            })
        };
        let wanting = pod(
            "p",
            serde_json::json!({"affinity": {"nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [prefer(30, "zone", "x"), prefer(10, "disk", "ssd")],
            }}}),
        );
        let scores = cluster.scored(&NodeAffinity::new(None), &wanting);
        assert_eq!(scores, [("a".into(), 100), ("b".into(), 25), ("c".into(), 0)]);
    }
}
