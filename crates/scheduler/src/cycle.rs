//! One scheduling cycle: a pure function of a pod and the nodes as they are.

use std::collections::HashMap;

use crate::cache::Cache;
use crate::node::NodeView;
use crate::plugins::{
    Rejection, image_locality, inter_pod_affinity, node_affinity, normalize, resources_fit, taint_toleration, topology_spread,
};
use crate::pod::PodView;
use crate::selector::Labels;
use crate::volumes::VolumeFilter;

/// Below this number of nodes all of them are looked at (upstream's `minFeasibleNodesToFind`).
const MIN_FEASIBLE: usize = 100;

/// What the cycle may ask besides the nodes.
pub struct World<'a> {
    /// Labels of a namespace, for affinity terms with a namespace selector.
    pub namespace_labels: &'a dyn Fn(&str) -> Labels,
    /// Share of nodes to find before scoring, in per cent; 0 adapts.
    pub percentage: u32,
}

/// How a cycle ended.
#[derive(Debug)]
pub enum Outcome {
    /// The pod goes to this node.
    Node(String),
    /// No node fits, and why.
    Unschedulable(Diagnosis),
}

/// Why no node fits: the verdict of each node, kept for events, for re-queueing and for `why`.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// Nodes that were considered.
    pub nodes: usize,
    /// A reason that holds for all nodes, found before looking at any.
    pub before: Option<Rejection>,
    /// Reason by node name.
    pub rejections: Vec<(String, Rejection)>,
}

/// What is counted once for all nodes.
pub struct Prepared<'a> {
    hard: Vec<topology_spread::Spread<'a>>,
    soft: Vec<topology_spread::Spread<'a>>,
    affinity: Option<inter_pod_affinity::Counts>,
}

impl<'a> Prepared<'a> {
    /// Counts what the pod's constraints and the pods that are there need.
    pub fn new(pod: &'a PodView, nodes: &[NodeView], any_affine: bool, world: &World<'_>) -> Self {
        let (hard, soft) = topology_spread::count(pod, nodes);
        let concerned = any_affine || !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
        let affinity = concerned.then(|| inter_pod_affinity::count(pod, nodes, world.namespace_labels));
        Self { hard, soft, affinity }
    }
}

/// Finds the node for a pod.
pub fn schedule(pod: &PodView, cache: &mut Cache, volumes: &VolumeFilter, world: &World<'_>) -> Outcome {
    let total = cache.len();
    if let Some(before) = volumes.before() {
        return Outcome::Unschedulable(Diagnosis { nodes: total, before: Some(before), rejections: Vec::new() });
    }
    let nodes = cache.nodes();
    let prepared = Prepared::new(pod, nodes, cache.has_affine_pods(), world);
    let enough = feasible_to_find(total, world.percentage);
    let mut fitting = Vec::new();
    let mut rejections = Vec::new();
    let mut looked = 0;
    for step in 0..nodes.len() {
        let node = &nodes[(cache.start + step) % nodes.len()];
        looked += 1;
        if node.node.is_none() {
            continue;
        }
        match filter(pod, node, &prepared, volumes, world) {
            None => fitting.push(node),
            Some(rejection) => rejections.push((node.name.clone(), rejection)),
        }
        if fitting.len() == enough {
            break;
        }
    }
    let chosen = match fitting.as_slice() {
        [] => return Outcome::Unschedulable(Diagnosis { nodes: total, before: None, rejections }),
        [only] => only.name.clone(),
        several => best(pod, several, nodes, &prepared, cache.has_affine_pods(), world).name.clone(),
    };
    cache.start = (cache.start + looked) % cache.nodes().len();
    Outcome::Node(chosen)
}

/// The verdict on one node: the first plugin that refuses it, in upstream's order.
pub fn filter(
    pod: &PodView,
    node: &NodeView,
    prepared: &Prepared<'_>,
    volumes: &VolumeFilter,
    world: &World<'_>,
) -> Option<Rejection> {
    taint_toleration::unschedulable(pod, node)
        .or_else(|| node_affinity::name(pod, node))
        .or_else(|| taint_toleration::filter(pod, node))
        .or_else(|| node_affinity::filter(pod, node))
        .or_else(|| node_affinity::ports(pod, node))
        .or_else(|| resources_fit::filter(pod, node))
        .or_else(|| volumes.filter(node))
        .or_else(|| topology_spread::filter(pod, node, &prepared.hard))
        .or_else(|| inter_pod_affinity::filter(pod, node, prepared.affinity.as_ref()?, world.namespace_labels))
}

/// The node with the highest sum of weighted scores; of equals one by chance, so that they fill evenly.
fn best<'a>(
    pod: &PodView,
    fitting: &[&'a NodeView],
    all: &[NodeView],
    prepared: &Prepared<'_>,
    any_affine: bool,
    world: &World<'_>,
) -> &'a NodeView {
    let each = |score: &dyn Fn(&NodeView) -> i64| fitting.iter().map(|node| score(node)).collect::<Vec<_>>();
    let mut total = vec![0; fitting.len()];
    let mut add = |weight: i64, scores: Vec<i64>| total.iter_mut().zip(scores).for_each(|(sum, score)| *sum += weight * score);

    let mut taints = each(&|node| taint_toleration::score(pod, node));
    normalize(&mut taints, true);
    add(3, taints);
    let mut affinity = each(&|node| node_affinity::score(pod, node));
    normalize(&mut affinity, false);
    add(2, affinity);
    add(1, each(&|node| resources_fit::least_allocated(pod, node)));
    add(1, each(&|node| resources_fit::balanced(pod, node)));
    add(2, topology_spread::score(fitting, &prepared.soft));
    if any_affine || !pod.preferred.is_empty() {
        add(2, inter_pod_affinity::score(pod, fitting, all, world.namespace_labels));
    }
    let mut holders: HashMap<String, f64> = HashMap::new();
    for image in fitting.iter().flat_map(|node| node.images.keys()) {
        *holders.entry(image.clone()).or_default() += 1.0 / fitting.len() as f64;
    }
    add(1, each(&|node| image_locality::score(pod, node, |image| holders.get(image).copied().unwrap_or(0.0))));

    let highest = total.iter().copied().max().unwrap_or(0);
    let winners: Vec<_> = fitting.iter().zip(&total).filter(|(_, score)| **score == highest).map(|(node, _)| *node).collect();
    winners[rand::random_range(0..winners.len())]
}

/// How many fitting nodes are enough: all of a small cluster, a share of a large one that shrinks with its size.
fn feasible_to_find(nodes: usize, percentage: u32) -> usize {
    if nodes < MIN_FEASIBLE || percentage >= 100 {
        return nodes;
    }
    let share = match percentage {
        0 => 50_usize.saturating_sub(nodes / 125).max(5),
        given => given as usize,
    };
    (nodes * share / 100).max(MIN_FEASIBLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    fn world() -> World<'static> {
        World { namespace_labels: &|_| Labels::new(), percentage: 0 }
    }

    #[test]
    fn the_emptier_of_two_nodes_is_taken() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "4", &[]));
        cache.set_node(node("b", "4", &[]));
        cache.assume(pod("other", "3"), "a");
        let outcome = schedule(&pod("p", "1"), &mut cache, &VolumeFilter::default(), &world());
        assert!(matches!(outcome, Outcome::Node(name) if name == "b"));
    }

    #[test]
    fn a_pod_that_fits_nowhere_keeps_the_verdict_of_each_node() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "1", &[]));
        cache.set_node(node("b", "2", &[]));
        let Outcome::Unschedulable(diagnosis) = schedule(&pod("p", "3"), &mut cache, &VolumeFilter::default(), &world()) else {
            panic!("3 CPUs fit on no node")
        };
        assert_eq!(diagnosis.rejections.len(), 2);
    }

    #[test]
    #[rustfmt::skip]
    fn large_clusters_are_not_scanned_whole() {
        for (nodes, percentage, expected) in [(50, 0, 50), (100, 0, 100), (1000, 0, 420), (5000, 0, 500), (1000, 30, 300), (200, 10, 100), (1000, 100, 1000)] {
            assert_eq!(feasible_to_find(nodes, percentage), expected, "{nodes} nodes, {percentage} %");
        }
    }
}
