//! `NodeResourcesFit` and `NodeResourcesBalancedAllocation`: whether a pod's requests fit, and how well.

use std::borrow::Cow;

use crate::events::ClusterEvent;
use crate::framework::{Check, Cycle, Filter, MAX_SCORE, Plugin, Prefilter, Score};
use crate::interner::Id;
use crate::pod::PodInfo;
use crate::state::{NodeId, State};

/// How nodes are scored, with the weight of each resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Emptier nodes are better.
    LeastAllocated(Vec<(String, i64)>),
    /// Fuller nodes are better.
    MostAllocated(Vec<(String, i64)>),
    /// The score is a function of the utilization in percent, given by points.
    RequestedToCapacityRatio(Vec<(String, i64)>, Vec<(i64, i64)>),
}

impl Default for Strategy {
    fn default() -> Self {
        Self::LeastAllocated(vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)])
    }
}

/// `NodeResourcesFit`.
pub struct Fit {
    strategy: Strategy,
}

struct Fitting<'a> {
    state: &'a State,
    pod: &'a PodInfo,
    /// Extended resources the pod asks for; the number is missing if no node has ever had such.
    scalar: Vec<(Option<Id>, &'a str, i64)>,
    empty: bool,
}

impl Fit {
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy }
    }
}

impl<'a> Fitting<'a> {
    fn new(cycle: Cycle<'a>) -> Self {
        let wanted = &cycle.pod.requests;
        let scalar: Vec<_> = wanted
            .scalar
            .iter()
            .filter(|(_, amount)| *amount > 0)
            .map(|(name, amount)| (cycle.state.interner.lookup(name), name.as_str(), *amount))
            .collect();
        let empty = wanted.cpu == 0 && wanted.memory == 0 && wanted.storage == 0 && scalar.is_empty();
        Self { state: cycle.state, pod: cycle.pod, scalar, empty }
    }

    /// Calls `each` for every resource that is short, with its name and whether the node could ever have enough.
    fn short(&self, node: NodeId, mut each: impl FnMut(&str, bool)) {
        let nodes = &self.state.nodes;
        if nodes.placed[node].len() as i64 + 1 > nodes.pods[node] {
            each("pods", nodes.pods[node] > 0);
        }
        if self.empty {
            return;
        }
        let wanted = &self.pod.requests;
        let of_node = [
            ("cpu", wanted.cpu, nodes.cpu[node], nodes.used_cpu[node]),
            ("memory", wanted.memory, nodes.memory[node], nodes.used_memory[node]),
            ("ephemeral-storage", wanted.storage, nodes.storage[node], nodes.used_storage[node]),
        ];
        for (name, wanted, has, used) in of_node {
            if wanted > 0 && wanted > has - used {
                each(name, wanted <= has);
            }
        }
        for (id, name, wanted) in &self.scalar {
            let amount = |list: &[(Id, i64)]| list.iter().find(|(known, _)| Some(*known) == *id).map_or(0, |(_, amount)| *amount);
            let (has, used) = (amount(&nodes.scalar[node]), amount(&nodes.used_scalar[node]));
            if *wanted > has - used {
                each(name, *wanted <= has);
            }
        }
    }
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        Prefilter::Filter(Box::new(Fitting::new(cycle)))
    }

    fn score<'a>(&'a self, cycle: Cycle<'a>, _feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        let resources = match &self.strategy {
            Strategy::LeastAllocated(resources) | Strategy::MostAllocated(resources) => resources,
            Strategy::RequestedToCapacityRatio(resources, _) => resources,
        };
        let resources = resources.iter().map(|(name, weight)| (Resource::of(name, cycle), *weight)).collect();
        Some(Box::new(Scoring { cycle, strategy: &self.strategy, resources }))
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, state: &State) -> bool {
        let Some(node) = event.node() else { return false };
        Fitting::new(Cycle { pod, state }).check(node) == Check::Pass
    }
}

impl Filter for Fitting<'_> {
    fn check(&self, node: NodeId) -> Check {
        let nodes = &self.state.nodes;
        let wanted = &self.pod.requests;
        // The common case first, without a branch for each resource's name.
        let fits = (nodes.placed[node].len() as i64) < nodes.pods[node]
            && (wanted.cpu == 0 || wanted.cpu <= nodes.cpu[node] - nodes.used_cpu[node])
            && (wanted.memory == 0 || wanted.memory <= nodes.memory[node] - nodes.used_memory[node])
            && wanted.storage == 0
            && self.scalar.is_empty();
        if fits {
            return Check::Pass;
        }
        let mut check = Check::Pass;
        self.short(node, |_, possible| {
            check = match (possible, check) {
                (true, Check::Pass | Check::Unschedulable) => Check::Unschedulable,
                _ => Check::Unresolvable,
            };
        });
        check
    }

    fn reasons(&self, node: NodeId) -> Vec<Cow<'static, str>> {
        let mut reasons = Vec::new();
        self.short(node, |name, _| {
            reasons.push(if name == "pods" { "Too many pods".into() } else { format!("Insufficient {name}").into() });
        });
        reasons
    }
}

/// A resource that is scored.
enum Resource {
    Cpu,
    Memory,
    Storage,
    Scalar(Option<Id>, i64),
}

struct Scoring<'a> {
    cycle: Cycle<'a>,
    strategy: &'a Strategy,
    resources: Vec<(Resource, i64)>,
}

impl Resource {
    fn of(name: &str, cycle: Cycle<'_>) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            "ephemeral-storage" => Self::Storage,
            name => Self::Scalar(cycle.state.interner.lookup(name), cycle.pod.requests.scalar(name)),
        }
    }

    /// What the node has, and what would be used of it with the pod. Resources the pod does not ask for are left out,
    /// except CPU and memory, which every pod uses.
    fn use_of(&self, cycle: Cycle<'_>, node: NodeId) -> Option<(i64, i64)> {
        let (nodes, pod) = (&cycle.state.nodes, cycle.pod);
        match self {
            Self::Cpu => Some((nodes.cpu[node], nodes.non_zero[node].0 + pod.non_zero.0)),
            Self::Memory => Some((nodes.memory[node], nodes.non_zero[node].1 + pod.non_zero.1)),
            Self::Storage => Some((nodes.storage[node], nodes.used_storage[node] + pod.requests.storage)),
            Self::Scalar(id, wanted) => {
                let amount =
                    |list: &[(Id, i64)]| list.iter().find(|(known, _)| Some(*known) == *id).map_or(0, |(_, amount)| *amount);
                (*wanted > 0).then(|| (amount(&nodes.scalar[node]), amount(&nodes.used_scalar[node]) + wanted))
            }
        }
    }
}

impl Score for Scoring<'_> {
    fn score(&self, node: NodeId) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (resource, weight) in &self.resources {
            let Some((has, used)) = resource.use_of(self.cycle, node) else { continue };
            if has == 0 {
                continue;
            }
            weights += weight;
            sum += weight
                * match self.strategy {
                    Strategy::LeastAllocated(_) => (has - used).max(0) * MAX_SCORE / has,
                    Strategy::MostAllocated(_) => used.min(has) * MAX_SCORE / has,
                    Strategy::RequestedToCapacityRatio(_, points) => shaped(points, (used * 100 / has).min(100)),
                };
        }
        if weights == 0 { 0 } else { sum / weights }
    }
}

/// The value at `x` of the line through `points`.
fn shaped(points: &[(i64, i64)], x: i64) -> i64 {
    let mut before: Option<(i64, i64)> = None;
    for &(at, score) in points {
        if x <= at {
            return match before {
                Some((left, low)) if at > left => low + (score - low) * (x - left) / (at - left),
                _ => score,
            };
        }
        before = Some((at, score));
    }
    before.map_or(0, |(_, score)| score)
}

/// `NodeResourcesBalancedAllocation`: prefers nodes on which CPU and memory would be used to the same degree.
pub struct Balanced;

struct Balancing<'a>(Cycle<'a>);

impl Plugin for Balanced {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&'a self, cycle: Cycle<'a>, _feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        // A pod that asks for nothing balances nothing.
        let wanted = &cycle.pod.requests;
        (wanted.cpu > 0 || wanted.memory > 0).then(|| Box::new(Balancing(cycle)) as Box<dyn Score>)
    }

    fn helped_by(&self, _event: &ClusterEvent, _pod: &PodInfo, _state: &State) -> bool {
        false
    }
}

impl Score for Balancing<'_> {
    fn score(&self, node: NodeId) -> i64 {
        let (nodes, wanted) = (&self.0.state.nodes, &self.0.pod.requests);
        let fraction = |used: i64, has: i64| if has == 0 { 1.0 } else { (used as f64 / has as f64).min(1.0) };
        let cpu = fraction(nodes.used_cpu[node] + wanted.cpu, nodes.cpu[node]);
        let memory = fraction(nodes.used_memory[node] + wanted.memory, nodes.memory[node]);
        // The standard deviation of two numbers.
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, pod, requesting};
    use super::*;

    #[test]
    fn requests_have_to_fit_and_reasons_say_what_is_short() {
        let mut cluster = Cluster::default();
        cluster.sized("small", "1", "1Gi", 10);
        cluster.sized("full", "4", "4Gi", 10);
        cluster.sized("crowded", "4", "4Gi", 1);
        cluster.sized("good", "4", "4Gi", 10);
        cluster.place(requesting("a", "3", "1Gi"), "full");
        cluster.place(requesting("b", "0", "0"), "crowded");
        let fit = Fit::new(Strategy::default());
        let rejected = cluster.filtered(&fit, &requesting("p", "2", "2Gi"));
        assert_eq!(
            rejected,
            [
                ("small".into(), "Insufficient cpu, Insufficient memory".into()),
                ("full".into(), "Insufficient cpu".into()),
                ("crowded".into(), "Too many pods".into()),
            ]
        );
        // A node that is too small altogether is not helped by preemption.
        assert_eq!(cluster.check(&fit, &requesting("p", "2", "2Gi"), "small"), Check::Unresolvable);
        assert_eq!(cluster.check(&fit, &requesting("p", "2", "2Gi"), "full"), Check::Unschedulable);
        let device =
            pod("p", serde_json::json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}));
        assert_eq!(cluster.filtered(&fit, &device)[3], ("good".into(), "Insufficient example.com/gpu".into()));
    }

    #[test]
    fn emptier_and_balanced_nodes_score_higher() {
        let mut cluster = Cluster::default();
        cluster.sized("empty", "4", "4Gi", 10);
        cluster.sized("half", "4", "4Gi", 10);
        cluster.place(requesting("a", "2", "0"), "half");
        let wanting = requesting("p", "1", "1Gi");
        // (75 + 75) / 2, and (25 + 75) / 2: who asks for no memory in so many words uses none.
        assert_eq!(cluster.scored(&Fit::new(Strategy::default()), &wanting), [("empty".into(), 75), ("half".into(), 50)]);
        assert_eq!(cluster.scored(&Balanced, &wanting), [("empty".into(), 100), ("half".into(), 75)]);
        let packing = Strategy::MostAllocated(vec![("cpu".into(), 1)]);
        assert_eq!(cluster.scored(&Fit::new(packing), &wanting), [("empty".into(), 25), ("half".into(), 75)]);
        let ratio = Strategy::RequestedToCapacityRatio(vec![("cpu".into(), 1)], vec![(0, 0), (50, 100), (100, 0)]);
        assert_eq!(cluster.scored(&Fit::new(ratio), &wanting), [("empty".into(), 50), ("half".into(), 50)]);
    }
}
