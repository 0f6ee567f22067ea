//! `NodeResourcesFit` (LeastAllocated) and `NodeResourcesBalancedAllocation`.

use std::borrow::Cow;

use super::{MAX_SCORE, Rejection};
use crate::node::NodeView;
use crate::pod::PodView;

/// Refuses a node that lacks a requested resource, and names each that is lacking.
pub fn filter(pod: &PodView, node: &NodeView) -> Option<Rejection> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut resolvable = true;
    if node.pods.len() as i64 + 1 > node.max_pods {
        reasons.push("Too many pods".into());
    }
    let (wanted, has, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut check = |name: Cow<'static, str>, wanted: i64, has: i64, used: i64| {
        if wanted > 0 && wanted > has - used {
            reasons.push(name);
            // Even an empty node has not enough.
            resolvable &= wanted <= has;
        }
    };
    check("Insufficient cpu".into(), wanted.cpu, has.cpu, used.cpu);
    check("Insufficient memory".into(), wanted.memory, has.memory, used.memory);
    check("Insufficient ephemeral-storage".into(), wanted.ephemeral, has.ephemeral, used.ephemeral);
    for (name, amount) in &wanted.scalars {
        let of = |resources: &crate::resources::Resources| resources.scalars.get(name).copied().unwrap_or(0);
        check(format!("Insufficient {name}").into(), *amount, of(has), of(used));
    }
    (!reasons.is_empty()).then_some(Rejection { plugin: "NodeResourcesFit", reasons, resolvable })
}

/// Prefers nodes with much left of CPU and memory.
pub fn least_allocated(pod: &PodView, node: &NodeView) -> i64 {
    let left = |has: i64, used: i64| if has == 0 || used > has { 0 } else { (has - used) * MAX_SCORE / has };
    let cpu = left(node.allocatable.cpu, node.nonzero.0 + pod.nonzero.0);
    let memory = left(node.allocatable.memory, node.nonzero.1 + pod.nonzero.1);
    (cpu + memory) / 2
}

/// Prefers nodes where CPU and memory are used in like shares.
pub fn balanced(pod: &PodView, node: &NodeView) -> i64 {
    let share = |used: i64, has: i64| if has == 0 { 1.0 } else { (used as f64 / has as f64).min(1.0) };
    let cpu = share(node.requested.cpu + pod.requests.cpu, node.allocatable.cpu);
    let memory = share(node.requested.memory + pod.requests.memory, node.allocatable.memory);
    // Of two values the standard deviation is half their distance.
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod, view};

    #[test]
    #[rustfmt::skip]
    fn what_is_lacking_is_named() {
        //    node  used  wanted  expected
        check("4",  "1",  "3",    &[],                    true);
        check("4",  "1",  "3001m", &["Insufficient cpu"], true);
        check("4",  "1",  "5",    &["Insufficient cpu"],  false); // would not fit on an empty node either
        #[track_caller]
        fn check(cpu: &str, used: &str, wanted: &str, expected: &[&str], resolvable: bool) {
            let node = view(node("n", cpu, &[]), &[pod("other", used)]);
            let rejection = filter(&pod("p", wanted), &node);
            let reasons = rejection.as_ref().map(|r| r.reasons.clone()).unwrap_or_default();
            assert_eq!(reasons, expected);
            assert_eq!(rejection.is_none_or(|r| r.resolvable), resolvable);
        }
    }

    #[test]
    fn the_emptier_node_scores_higher() {
        let empty = view(node("a", "4", &[]), &[]);
        let busy = view(node("b", "4", &[]), &[pod("other", "2")]);
        assert!(least_allocated(&pod("p", "1"), &empty) > least_allocated(&pod("p", "1"), &busy));
    }
}
