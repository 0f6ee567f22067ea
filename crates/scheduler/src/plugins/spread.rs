//! `PodTopologySpread`: keeps the pods of a group evenly spread over domains (KEP-895).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::events::ClusterEvent;
use crate::framework::{Check, Cycle, Filter, MAX_SCORE, Plugin, Prefilter, Score};
use crate::interner::Id;
use crate::plugins::node_affinity::Required;
use crate::plugins::taints::TaintToleration;
use crate::pod::PodInfo;
use crate::selectors::covers;
use crate::state::{NodeId, State, ZONE};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// The plugin.
pub struct Spread {
    defaults: Option<Vec<TopologySpreadConstraint>>,
}

/// One constraint with what is counted for it.
struct Counted {
    key: Option<Id>,
    hostname: bool,
    max_skew: i64,
    /// Whether the pod itself counts.
    own: i64,
    /// Pods per value of the key, over eligible nodes.
    counts: HashMap<Id, i64>,
    /// The fewest pods in a domain.
    fewest: i64,
    group: Group,
}

/// Which pods count.
enum Group {
    /// Those a selector covers.
    Selected(Option<LabelSelector>),
    /// Those of one controller: for pods that state no constraints of their own.
    Owned(String),
}

struct Spreading<'a> {
    state: &'a State,
    constraints: Vec<Counted>,
}

struct Weighing<'a> {
    state: &'a State,
    namespace: &'a str,
    constraints: Vec<(Counted, f64)>,
    /// Whether nodes without all keys are left out, as for constraints that the pod states itself.
    strict: bool,
}

impl Spread {
    pub fn new(defaults: Option<Vec<TopologySpreadConstraint>>) -> Self {
        Self { defaults }
    }
}

impl Plugin for Spread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        let constraints = self.constraints(cycle.pod, "DoNotSchedule");
        if constraints.is_empty() {
            return Prefilter::Skip;
        }
        let keys: Vec<Option<Id>> =
            constraints.iter().map(|constraint| cycle.state.interner.lookup(&constraint.topology_key)).collect();
        let group = |constraint: &TopologySpreadConstraint| Group::Selected(selector(constraint, cycle.pod));
        let counted = constraints.iter().map(|constraint| Counted::new(cycle, constraint, &keys, group(constraint))).collect();
        Prefilter::Filter(Box::new(Spreading { state: cycle.state, constraints: counted }))
    }

    fn score<'a>(&'a self, cycle: Cycle<'a>, feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        let usual;
        let mut constraints = self.constraints(cycle.pod, "ScheduleAnyway");
        let mut owner = None;
        let unstated = self.defaults.is_none() && cycle.pod.spec().topology_spread_constraints.as_ref().is_none_or(Vec::is_empty);
        if unstated && let Some(controller) = controller(cycle.pod) {
            usual = usual_constraints();
            constraints = usual.iter().collect();
            owner = Some(controller);
        }
        if constraints.is_empty() {
            return None;
        }
        let strict = cycle.pod.spec().topology_spread_constraints.as_ref().is_some_and(|own| !own.is_empty());
        let keys: Vec<Option<Id>> = if strict {
            constraints.iter().map(|constraint| cycle.state.interner.lookup(&constraint.topology_key)).collect()
        } else {
            Vec::new()
        };
        let weighed = constraints
            .iter()
            .map(|constraint| {
                let group = match owner {
                    Some(owner) => Group::Owned(owner.to_owned()),
                    None => Group::Selected(selector(constraint, cycle.pod)),
                };
                let counted = Counted::new(cycle, constraint, &keys, group);
                let domains = if counted.hostname {
                    feasible.len()
                } else {
                    let mut values: Vec<_> = feasible.iter().filter_map(|node| cycle.state.label(*node, counted.key?)).collect();
                    values.sort_unstable();
                    values.dedup();
                    values.len()
                };
                // The more domains, the less a difference in one of them means.
                (counted, ((domains + 2) as f64).ln())
            })
            .collect();
        let namespace = &*cycle.pod.key.namespace;
        Some(Box::new(Weighing { state: cycle.state, namespace, constraints: weighed, strict }))
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, _state: &State) -> bool {
        let counts = |other: &PodInfo| {
            other.key.namespace == pod.key.namespace
                && self
                    .constraints(pod, "DoNotSchedule")
                    .iter()
                    .any(|constraint| covers(selector(constraint, pod).as_ref(), other.object.metadata.labels.as_ref()))
        };
        match event {
            ClusterEvent::Node(_) => true,
            ClusterEvent::PodAssigned(other) | ClusterEvent::PodRemoved(other, _) => counts(other),
            _ => false,
        }
    }
}

impl Spread {
    fn constraints<'a>(&'a self, pod: &'a PodInfo, action: &str) -> Vec<&'a TopologySpreadConstraint> {
        let own = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
        let constraints = if own.is_empty() { self.defaults.as_deref().unwrap_or_default() } else { own };
        constraints.iter().filter(|constraint| constraint.when_unsatisfiable == action).collect()
    }
}

impl Counted {
    fn new(cycle: Cycle<'_>, constraint: &TopologySpreadConstraint, keys: &[Option<Id>], group: Group) -> Self {
        let Cycle { pod, state } = cycle;
        let key = state.interner.lookup(&constraint.topology_key);
        let mut this = Self {
            key,
            hostname: constraint.topology_key == HOSTNAME,
            max_skew: i64::from(constraint.max_skew),
            own: i64::from(group.has(pod)),
            counts: HashMap::new(),
            fewest: 0,
            group,
        };
        let Some(key) = key else { return this };
        let required = (constraint.node_affinity_policy.as_deref() != Some("Ignore")).then(|| Required::of(pod, state)).flatten();
        let honor_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
        for &node in state.known_order() {
            // A node that lacks one of the keys is outside of all of this.
            if !keys.iter().all(|key| key.is_some_and(|key| state.label(node, key).is_some())) {
                continue;
            }
            let Some(value) = state.label(node, key) else { continue };
            if required.as_ref().is_some_and(|required| !required.matches(state, node))
                || (honor_taints && !TaintToleration::tolerated(cycle, node))
            {
                continue;
            }
            *this.counts.entry(value).or_default() += this.matching(state, node, &pod.key.namespace);
        }
        this.fewest = this.counts.values().copied().min().unwrap_or(0);
        if this.counts.len() < usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1) {
            this.fewest = 0;
        }
        this
    }

    fn matching(&self, state: &State, node: NodeId, namespace: &str) -> i64 {
        let placed = state.nodes.placed[node].iter();
        placed.filter(|other| *other.key.namespace == *namespace && !other.deleting() && self.group.has(other)).count() as i64
    }
}

impl Filter for Spreading<'_> {
    fn check(&self, node: NodeId) -> Check {
        let mut check = Check::Pass;
        for constraint in &self.constraints {
            let Some(value) = constraint.key.and_then(|key| self.state.label(node, key)) else { return Check::Unresolvable };
            let here = constraint.counts.get(&value).copied().unwrap_or(0);
            if here + constraint.own - constraint.fewest > constraint.max_skew {
                check = Check::Unschedulable;
            }
        }
        check
    }

    fn reasons(&self, node: NodeId) -> Vec<Cow<'static, str>> {
        vec![match self.check(node) {
            Check::Unresolvable => "node(s) didn't match pod topology spread constraints (missing required label)".into(),
            _ => "node(s) didn't match pod topology spread constraints".into(),
        }]
    }
}

/// Marks a node that lacks a key, until scores are normalized.
const OUTSIDE: i64 = -1;

impl Score for Weighing<'_> {
    fn score(&self, node: NodeId) -> i64 {
        let mut sum = 0.0;
        for (constraint, weight) in &self.constraints {
            let Some(value) = constraint.key.and_then(|key| self.state.label(node, key)) else {
                if self.strict {
                    return OUTSIDE;
                }
                continue;
            };
            let here = if constraint.hostname {
                constraint.matching(self.state, node, self.namespace)
            } else {
                constraint.counts.get(&value).copied().unwrap_or(0)
            };
            sum += here as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        sum.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let inside = || scores.iter().copied().filter(|score| *score != OUTSIDE);
        let (lowest, highest) = (inside().min().unwrap_or(0), inside().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                OUTSIDE => 0,
                _ if highest == 0 => MAX_SCORE,
                score => MAX_SCORE * (highest + lowest - score) / highest,
            };
        }
    }
}

impl Group {
    fn has(&self, pod: &PodInfo) -> bool {
        match self {
            Self::Selected(selector) => covers(selector.as_ref(), pod.object.metadata.labels.as_ref()),
            Self::Owned(owner) => controller(pod) == Some(owner),
        }
    }
}

/// The identity of the pod's controller.
fn controller(pod: &PodInfo) -> Option<&str> {
    let mut owners = pod.object.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// What holds for pods that state nothing, as upstream's `System` defaults: loosely over nodes and zones. Upstream finds
/// the group through Services and controllers' selectors; the common controller is nearly always the same.
fn usual_constraints() -> [TopologySpreadConstraint; 2] {
    [(HOSTNAME, 3), (ZONE, 5)].map(|(key, skew)| TopologySpreadConstraint {
        max_skew: skew,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    })
}

/// The selector of a constraint, with the pod's own values of `matchLabelKeys` (KEP-3243).
fn selector(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Option<LabelSelector> {
    let mut selector = constraint.label_selector.clone();
    let labels = pod.object.metadata.labels.as_ref();
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = labels.and_then(|labels| labels.get(key)) {
            let exact = selector.get_or_insert_default().match_labels.get_or_insert_with(BTreeMap::new);
            exact.insert(key.clone(), value.clone());
        }
    }
    selector
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, pod};
    use super::*;

    fn constraint(key: &str, skew: i32, action: &str) -> serde_json::Value {
        serde_json::json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": action, "labelSelector": {"matchLabels": {"app": "web"}}})
    }

    fn web(name: &str, constraints: serde_json::Value) -> PodInfo {
        pod(name, serde_json::json!({"metadata": {"labels": {"app": "web"}}, "topologySpreadConstraints": constraints}))
    }

    fn cluster(pods: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
            cluster.node(name, serde_json::json!({"metadata": {"labels": {"zone": zone}}}));
        }
        cluster.node("none", serde_json::json!({}));
        for (i, node) in pods.iter().enumerate() {
            cluster.place(web(&format!("w{i}"), serde_json::json!([])), node);
        }
        cluster
    }

    #[test]
    #[rustfmt::skip]
    fn skew_is_limited() {
        let missing = "none: node(s) didn't match pod topology spread constraints (missing required label)";
        let full = |name: &str| format!("{name}: node(s) didn't match pod topology spread constraints");
        //    existing pods           skew  rejected
        check(&[],                    1,    &[missing.into()]);
        check(&["a1"],                1,    &[full("a1"), full("a2"), missing.into()]);
        check(&["a1", "b1"],          1,    &[missing.into()]);
        check(&["a1", "a2"],          2,    &[full("a1"), full("a2"), missing.into()]);
        check(&["a1"],                2,    &[missing.into()]);
        #[track_caller]
        fn check(pods: &[&str], skew: i32, expected: &[String]) {
            let pod = web("p", serde_json::json!([constraint("zone", skew, "DoNotSchedule")]));
            let rejected = cluster(pods).filtered(&Spread::new(None), &pod);
            let rejected: Vec<String> = rejected.into_iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
            assert_eq!(rejected, expected);
        }
    }

    #[test]
    fn few_domains_count_as_an_empty_one_more() {
        let mut strict = constraint("zone", 1, "DoNotSchedule");
        strict["minDomains"] = 3.into();
        let rejected = cluster(&["a1", "b1"]).filtered(&Spread::new(None), &web("p", serde_json::json!([strict])));
        assert_eq!(rejected.len(), 4);
    }

    #[test]
    fn a_node_the_pod_cannot_use_does_not_count() {
        let mut wanting = serde_json::json!({"metadata": {"labels": {"app": "web"}}, "nodeSelector": {"zone": "a"}});
        wanting["topologySpreadConstraints"] = serde_json::json!([constraint("zone", 1, "DoNotSchedule")]);
        let rejected = cluster(&["a1", "a1"]).filtered(&Spread::new(None), &pod("p", wanting));
        // Zone b is not reachable, so zone a is the emptiest there is.
        let names: Vec<String> = rejected.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b1", "none"].map(ToOwned::to_owned).into_iter().filter(|n| n == "none").collect::<Vec<_>>());
    }

    #[test]
    fn pods_of_one_controller_spread_by_themselves() {
        let owned = |name: &str| {
            let owner = serde_json::json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "7", "controller": true}]);
            pod(name, serde_json::json!({"metadata": {"ownerReferences": owner}}))
        };
        let mut cluster = cluster(&[]);
        cluster.place(owned("w"), "a1");
        let scores = cluster.scored(&Spread::new(None), &owned("p"));
        let of = |name: &str| scores.iter().find(|(known, _)| known == name).unwrap().1;
        assert!(of("a1") < of("a2"), "{scores:?}");
        assert!(cluster.scored(&Spread::new(Some(Vec::new())), &owned("p")).is_empty());
    }

    #[test]
    fn emptier_domains_score_higher() {
        let pod = web("p", serde_json::json!([constraint("zone", 1, "ScheduleAnyway")]));
        let scores = cluster(&["a1", "a2"]).scored(&Spread::new(None), &pod);
        assert_eq!(scores, [("a1".into(), 0), ("a2".into(), 0), ("b1".into(), 100), ("none".into(), 0)]);
    }
}
