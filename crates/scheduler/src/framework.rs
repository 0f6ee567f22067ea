//! The frame of one scheduling cycle: plugins prepare themselves for a pod, filter nodes, and score what is left.
//!
//! A plugin is asked once per pod whether it has anything to say, and prepares what it needs then; for most pods most
//! plugins have not, and cost nothing per node. Filters answer with a code only; reasons are spelled out afterwards, for
//! a pod that fits nowhere.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::events::ClusterEvent;
use crate::pod::PodInfo;
use crate::state::{NodeId, State};

/// Greatest score of a node by one plugin.
pub const MAX_SCORE: i64 = 100;

/// What a plugin sees.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    /// The pod to place.
    pub pod: &'a PodInfo,
    /// The cluster.
    pub state: &'a State,
}

/// A plugin's opinion of a pod before it looks at nodes.
pub enum Prefilter<'a> {
    /// Nothing to say about any node.
    Skip,
    /// Nodes have to be checked.
    Filter(Box<dyn Filter + 'a>),
    /// No node will do.
    Reject {
        /// Why.
        reason: String,
    },
}

/// A plugin's opinion of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The pod can go there.
    Pass,
    /// Not now, but if pods went away it might.
    Unschedulable,
    /// Not whatever pods go away.
    Unresolvable,
}

/// Filters nodes for one pod.
pub trait Filter {
    /// Whether the pod can go to `node`.
    fn check(&self, node: NodeId) -> Check;
    /// Why not, in upstream's words. Called for nodes that did not pass.
    fn reasons(&self, node: NodeId) -> Vec<Cow<'static, str>>;
}

/// Scores nodes for one pod.
pub trait Score {
    /// How good `node` is, on the plugin's own scale.
    fn score(&self, node: NodeId) -> i64;
    /// Brings the scores of all nodes to 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// A plugin.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// Prepares to filter.
    fn filter<'a>(&'a self, _cycle: Cycle<'a>) -> Prefilter<'a> {
        Prefilter::Skip
    }
    /// Prepares to score the nodes that passed.
    fn score<'a>(&'a self, _cycle: Cycle<'a>, _feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        None
    }
    /// Whether `event` can make a pod schedulable that this plugin has rejected.
    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, state: &State) -> bool;
}

/// A plugin in use.
pub struct Enabled {
    /// The plugin.
    pub plugin: Box<dyn Plugin>,
    /// Whether it filters.
    pub filters: bool,
    /// The weight of its score; 0 if it does not score.
    pub weight: i64,
}

/// Why a pod fits nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// Number of nodes in all.
    pub nodes: usize,
    /// What a plugin said before it looked at nodes.
    pub prefilter: Option<String>,
    /// How many nodes were rejected for which reason.
    pub reasons: BTreeMap<String, usize>,
    /// The plugins that rejected nodes.
    pub plugins: Vec<&'static str>,
    /// Nodes on which room could be made.
    pub resolvable: Vec<NodeId>,
    /// What was tried afterwards.
    pub postfilter: String,
}

/// Upstream's wording: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: …`.
impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(message) = &self.prefilter {
            write!(f, " {message}.")?;
        } else if !self.reasons.is_empty() {
            let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            reasons.sort_unstable();
            write!(f, " {}.", reasons.join(", "))?;
        }
        if !self.postfilter.is_empty() {
            write!(f, " {}", self.postfilter)?;
        }
        Ok(())
    }
}

/// The filters that have something to say about a pod.
pub struct Filters<'a> {
    filters: Vec<(&'static str, Box<dyn Filter + 'a>)>,
}

impl<'a> Filters<'a> {
    /// Lets every plugin prepare. The error names the plugin that rejects the pod as such.
    pub fn prepare(plugins: &'a [Enabled], cycle: Cycle<'a>) -> Result<Self, (&'static str, String)> {
        let mut filters = Vec::new();
        for enabled in plugins.iter().filter(|enabled| enabled.filters) {
            match enabled.plugin.filter(cycle) {
                Prefilter::Skip => {}
                Prefilter::Filter(filter) => filters.push((enabled.plugin.name(), filter)),
                Prefilter::Reject { reason } => return Err((enabled.plugin.name(), reason)),
            }
        }
        Ok(Self { filters })
    }

    /// Whether the pod can go to `node`.
    #[must_use]
    pub fn pass(&self, node: NodeId) -> bool {
        self.filters.iter().all(|(_, filter)| filter.check(node) == Check::Pass)
    }

    /// The first filter that rejects `node`.
    fn rejecting(&self, node: NodeId) -> Option<(&'static str, &dyn Filter, Check)> {
        self.filters.iter().find_map(|(name, filter)| match filter.check(node) {
            Check::Pass => None,
            check => Some((*name, &**filter, check)),
        })
    }

    /// The nodes of `order` that pass, from position `start` on and around, until there are `enough`; and how many were
    /// looked at.
    #[must_use]
    pub fn feasible(&self, order: &[NodeId], start: usize, enough: usize) -> (Vec<NodeId>, usize) {
        let mut found = Vec::with_capacity(enough.min(order.len()));
        let start = if order.is_empty() { 0 } else { start % order.len() };
        for (looked, node) in order[start..].iter().chain(&order[..start]).enumerate() {
            if self.pass(*node) {
                found.push(*node);
                if found.len() >= enough {
                    return (found, looked + 1);
                }
            }
        }
        (found, order.len())
    }

    /// Says for every node why it does not pass.
    #[must_use]
    pub fn diagnose(&self, order: &[NodeId]) -> Diagnosis {
        let mut diagnosis = Diagnosis { nodes: order.len(), ..Diagnosis::default() };
        let mut counts: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
        for node in order {
            let Some((plugin, filter, check)) = self.rejecting(*node) else { continue };
            if !diagnosis.plugins.contains(&plugin) {
                diagnosis.plugins.push(plugin);
            }
            if check == Check::Unschedulable {
                diagnosis.resolvable.push(*node);
            }
            for reason in filter.reasons(*node) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        diagnosis.reasons = counts.into_iter().map(|(reason, count)| (reason.into_owned(), count)).collect();
        diagnosis
    }
}

/// How many feasible nodes are enough: all of a small cluster, and a smaller part the larger it is. `percentage` is the
/// configured one, 0 for the adaptive default.
#[must_use]
pub fn enough(nodes: usize, percentage: usize) -> usize {
    const FEWEST: usize = 100;
    if nodes < FEWEST {
        return nodes;
    }
    let percentage = match percentage {
        0 => 50usize.saturating_sub(nodes / 125).max(5),
        given => given.min(100),
    };
    (nodes * percentage / 100).max(FEWEST)
}

/// The best of `feasible`; among equals `pick` chooses, given how many there are.
pub fn best(plugins: &[Enabled], cycle: Cycle<'_>, feasible: &[NodeId], pick: impl FnOnce(usize) -> usize) -> Option<NodeId> {
    let [_, _, ..] = feasible else { return feasible.first().copied() };
    let totals = totals(plugins, cycle, feasible);
    let highest = totals.iter().copied().max()?;
    let ties: Vec<NodeId> = feasible.iter().zip(&totals).filter(|(_, total)| **total == highest).map(|(node, _)| *node).collect();
    ties.get(pick(ties.len())).copied()
}

/// The weighted sum of all scores, for each node.
#[must_use]
pub fn totals(plugins: &[Enabled], cycle: Cycle<'_>, feasible: &[NodeId]) -> Vec<i64> {
    let mut totals = vec![0; feasible.len()];
    let mut scores = vec![0; feasible.len()];
    for enabled in plugins.iter().filter(|enabled| enabled.weight > 0) {
        let Some(scorer) = enabled.plugin.score(cycle, feasible) else { continue };
        for (score, node) in scores.iter_mut().zip(feasible) {
            *score = scorer.score(*node);
        }
        scorer.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * enabled.weight;
        }
    }
    totals
}

/// Upstream's usual normalization: the highest becomes 100; the other way round if `reverse`.
pub fn normalize_by_highest(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    if highest == 0 {
        if reverse {
            scores.fill(MAX_SCORE);
        }
        return;
    }
    for score in scores {
        let scaled = *score * MAX_SCORE / highest;
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn large_clusters_are_sampled() {
        //          nodes   percentage  expected
        assert_eq!(enough(5,      0),    5);
        assert_eq!(enough(100,    0),    100);
        assert_eq!(enough(1000,   0),    420);
        assert_eq!(enough(5000,   0),    500);
        assert_eq!(enough(6000,   0),    300);
        assert_eq!(enough(10_000, 0),    500);
        assert_eq!(enough(1000,   5),    100);
        assert_eq!(enough(1000,   100),  1000);
    }

    #[test]
    fn a_diagnosis_reads_as_upstreams() {
        let mut diagnosis = Diagnosis {
            nodes: 3,
            reasons: [("node(s) had untolerated taint(s)".to_owned(), 2), ("Insufficient cpu".to_owned(), 1)].into(),
            ..Diagnosis::default()
        };
        assert_eq!(diagnosis.to_string(), "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).");
        diagnosis.postfilter = "preemption: none".into();
        diagnosis.prefilter = Some("no".into());
        assert_eq!(diagnosis.to_string(), "0/3 nodes are available: no. preemption: none");
        assert_eq!(Diagnosis::default().to_string(), "no nodes available to schedule pods");
    }
}
