//! `DefaultPreemption`: a pod that fits nowhere may push out pods of lower priority.
//!
//! For each node that refused for a reason that goes when pods go: take all lower ones away, see whether the pod fits, and
//! let as many as possible stay, the important ones first. The node where least is lost is chosen.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::cache::Cache;
use crate::cycle::{Diagnosis, Prepared, World, filter};
use crate::diagnosis::histogram;
use crate::node::NodeView;
use crate::pod::PodView;
use crate::selector::selects;
use crate::volumes::VolumeFilter;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// What preemption found.
#[derive(Debug)]
pub enum Preemption {
    /// Delete these pods, and the pod will fit on this node.
    Victims {
        /// The node.
        node: String,
        /// The pods to delete.
        victims: Vec<Arc<PodView>>,
    },
    /// Nothing helps; the words for the event.
    Never(String),
}

struct Candidate {
    node: String,
    victims: Vec<Arc<PodView>>,
    violations: usize,
}

/// Looks for a node to make room on.
pub fn preempt(
    pod: &PodView,
    diagnosis: &Diagnosis,
    cache: &Cache,
    volumes: &VolumeFilter,
    budgets: &[Arc<PodDisruptionBudget>],
    world: &World<'_>,
) -> Preemption {
    if pod.spec().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return Preemption::Never("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let mut reasons: Vec<&str> = Vec::new();
    let mut candidates = Vec::new();
    for (name, rejection) in &diagnosis.rejections {
        let node = cache.nodes().iter().find(|n| n.name == *name);
        match node {
            Some(node) if rejection.resolvable => match make_room(pod, node, cache, volumes, budgets, world) {
                Some(candidate) => candidates.push(candidate),
                None => reasons.push(NO_VICTIMS),
            },
            _ => reasons.push(NOT_HELPFUL),
        }
    }
    match candidates.into_iter().min_by_key(cost) {
        Some(best) => Preemption::Victims { node: best.node, victims: best.victims },
        None if reasons.is_empty() => {
            Preemption::Never(format!("preemption: 0/{n} nodes are available: {n} {NOT_HELPFUL}.", n = diagnosis.nodes))
        }
        None => {
            Preemption::Never(format!("preemption: 0/{} nodes are available: {}.", diagnosis.nodes, histogram(reasons.iter())))
        }
    }
}

/// Upstream's order: fewest violated budgets, then the least important victim, the smallest sum of priorities, the fewest.
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, String) {
    let priorities = || candidate.victims.iter().map(|v| v.priority());
    let sum = priorities().map(|p| i64::from(p) - i64::from(i32::MIN)).sum();
    (candidate.violations, priorities().max().unwrap_or(i32::MIN), sum, candidate.victims.len(), candidate.node.clone())
}

fn make_room(
    pod: &PodView,
    node: &NodeView,
    cache: &Cache,
    volumes: &VolumeFilter,
    budgets: &[Arc<PodDisruptionBudget>],
    world: &World<'_>,
) -> Option<Candidate> {
    let mut lower: Vec<Arc<PodView>> = node.pods.iter().filter(|other| other.priority() < pod.priority()).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    let mut room = node.clone();
    for other in &lower {
        room.remove(&other.uid);
    }
    if !fits(pod, &room, cache, volumes, world) {
        return None;
    }
    // The more important and the older go back first; those whose budget would be violated before the others.
    let started = |p: &PodView| p.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    lower.sort_by_key(|p| (Reverse(p.priority()), started(p)));
    let mut left: Vec<(Arc<PodDisruptionBudget>, i32)> = budgets.iter().map(|b| (b.clone(), allowed(b))).collect();
    let (violating, others): (Vec<_>, Vec<_>) = lower.into_iter().partition(|other| violates(other, &mut left));
    let mut victims = Vec::new();
    let mut violations = 0;
    for (group, violating) in [(violating, true), (others, false)] {
        for other in group {
            room.add(other.clone());
            if !fits(pod, &room, cache, volumes, world) {
                room.remove(&other.uid);
                violations += usize::from(violating);
                victims.push(other);
            }
        }
    }
    Some(Candidate { node: node.name.clone(), victims, violations })
}

fn fits(pod: &PodView, room: &NodeView, cache: &Cache, volumes: &VolumeFilter, world: &World<'_>) -> bool {
    let concerned =
        cache.has_affine_pods() || !pod.spread().is_empty() || !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
    if !concerned {
        return filter(pod, room, &Prepared::new(pod, &[], false, world), volumes, world).is_none();
    }
    // The counts over all nodes change with this one.
    let nodes: Vec<NodeView> = cache.nodes().iter().map(|n| if n.name == room.name { room.clone() } else { n.clone() }).collect();
    filter(pod, room, &Prepared::new(pod, &nodes, true, world), volumes, world).is_none()
}

fn allowed(budget: &PodDisruptionBudget) -> i32 {
    budget.status.as_ref().map_or(0, |status| status.disruptions_allowed.unwrap_or(0))
}

/// Takes one disruption from every budget of the pod, and tells whether one had none left.
fn violates(pod: &PodView, left: &mut [(Arc<PodDisruptionBudget>, i32)]) -> bool {
    let mut violated = false;
    for (budget, left) in left {
        let here = budget.metadata.namespace.as_deref() == Some(&*pod.key.namespace);
        if here && selects(budget.spec.as_ref().and_then(|s| s.selector.as_ref()), pod.labels()) {
            *left -= 1;
            violated |= *left < 0;
        }
    }
    violated
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cycle::{Outcome, schedule};
    use crate::selector::Labels;
    use crate::testing::{node, pod_with};

    fn run(cpu: &str, priority: i32) -> Preemption {
        let mut cache = Cache::default();
        cache.set_node(node("n", "4", &[]));
        for (name, cpu, priority) in [("low", "2", 0), ("middle", "1", 5), ("high", "1", 100)] {
            cache.assume(pod_with(name, cpu, json!({"priority": priority})), "n");
        }
        let world = World { namespace_labels: &|_| Labels::new(), percentage: 0 };
        let pod = pod_with("p", cpu, json!({"priority": priority}));
        let Outcome::Unschedulable(diagnosis) = schedule(&pod, &mut cache, &VolumeFilter::default(), &world) else {
            panic!("the node is full")
        };
        preempt(&pod, &diagnosis, &cache, &VolumeFilter::default(), &[], &world)
    }

    #[test]
    #[rustfmt::skip]
    fn the_least_important_pods_go_and_no_more_than_needed() {
        //    wants  priority  victims
        check("1",   10,       Some(&["low"]));
        check("2",   10,       Some(&["low"]));
        check("3",   10,       Some(&["middle", "low"]));
        check("4",   10,       None);                 // the important one stays
        check("1",   0,        None);                 // equals are not pushed out
        #[track_caller]
        fn check(cpu: &str, priority: i32, expected: Option<&[&str]>) {
            let victims = match run(cpu, priority) {
                Preemption::Victims { victims, .. } => Some(victims.iter().map(|v| v.key.name.to_string()).collect::<Vec<_>>()),
                Preemption::Never(_) => None,
            };
            assert_eq!(victims.as_deref().map(|v| v.iter().map(String::as_str).collect::<Vec<_>>()), expected.map(<[&str]>::to_vec));
        }
    }

    #[test]
    fn the_event_says_why_preemption_does_not_help() {
        let Preemption::Never(words) = run("1", 0) else { panic!("equals are not pushed out") };
        assert_eq!(words, "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.");
    }
}
