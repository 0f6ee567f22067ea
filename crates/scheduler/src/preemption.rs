//! `DefaultPreemption`: makes room for an important pod by removing less important ones.
//!
//! Decided on the live state: the pods in question are taken off their node, the filters are asked again, and everything
//! is put back. Nothing else looks at the state meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::framework::{Cycle, Enabled, Filters};
use crate::pod::PodInfo;
use crate::selectors::covers;
use crate::state::{NodeId, State};

/// At least so many candidates are looked at, and at least this part of all.
const FEWEST: usize = 100;
const PART: usize = 10;

/// A node with the pods that have to go.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Whom it costs, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget protects.
    pub violations: usize,
}

/// Why there is no candidate, for each node.
pub type Refusals = BTreeMap<String, usize>;

/// Whether `pod` may preempt others at all; if not, why.
pub fn eligible(pod: &PodInfo, state: &State) -> Result<(), &'static str> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = pod.nominated().and_then(|name| state.node(name));
    let leaving = |other: &Arc<PodInfo>| other.deleting() && other.priority < pod.priority;
    if nominated.is_some_and(|node| state.nodes.placed[node].iter().any(leaving)) {
        return Err("not eligible due to a terminating pod on the nominated node.");
    }
    Ok(())
}

/// The best node to make room on, among those where that can help. `offset` is where to start.
pub fn find(
    plugins: &[Enabled],
    state: &mut State,
    pod: &PodInfo,
    resolvable: &[NodeId],
    offset: usize,
) -> Result<Candidate, Refusals> {
    let wanted = (resolvable.len() / PART).max(FEWEST);
    let (mut candidates, mut refusals) = (Vec::new(), Refusals::new());
    let start = if resolvable.is_empty() { 0 } else { offset % resolvable.len() };
    for node in resolvable[start..].iter().chain(&resolvable[..start]) {
        match victims(plugins, state, pod, *node) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => {
                for reason in reasons {
                    *refusals.entry(reason).or_default() += 1;
                }
            }
        }
        if candidates.len() >= wanted {
            break;
        }
    }
    best(candidates).ok_or_else(|| {
        let others = state.len() - resolvable.len();
        if others > 0 {
            refusals.insert("Preemption is not helpful for scheduling".to_owned(), others);
        }
        refusals
    })
}

/// The fewest pods that have to leave `node` for `pod` to fit; or why that does not help.
fn victims(plugins: &[Enabled], state: &mut State, pod: &PodInfo, node: NodeId) -> Result<Candidate, Vec<String>> {
    let mut lower: Vec<Arc<PodInfo>> =
        state.nodes.placed[node].iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    for other in &lower {
        state.vacate(node, other);
    }
    let refused = refused(plugins, state, pod, node);
    if !refused.is_empty() {
        for other in &lower {
            state.occupy(node, other);
        }
        return Err(refused);
    }
    // The most important come back first, and before them all whom a budget protects.
    lower.sort_by_key(|a| importance(a));
    let protected = protected(&lower, state);
    let (first, second): (Vec<_>, Vec<_>) = lower.iter().partition(|other| protected.contains(&other.uid));
    let (mut victims, mut violations) = (Vec::new(), 0);
    for other in first.into_iter().chain(second) {
        state.occupy(node, other);
        if !self::refused(plugins, state, pod, node).is_empty() {
            state.vacate(node, other);
            violations += usize::from(protected.contains(&other.uid));
            victims.push(other.clone());
        }
    }
    for other in &victims {
        state.occupy(node, other);
    }
    victims.sort_by_key(|a| importance(a));
    Ok(Candidate { node, victims, violations })
}

fn refused(plugins: &[Enabled], state: &State, pod: &PodInfo, node: NodeId) -> Vec<String> {
    match Filters::prepare(plugins, Cycle { pod, state }) {
        Err((_, reason)) => vec![reason],
        Ok(filters) => filters.diagnose(&[node]).reasons.into_keys().collect(),
    }
}

/// Orders pods: the higher the priority and the longer it runs, the earlier.
fn importance(pod: &PodInfo) -> (std::cmp::Reverse<i32>, Option<jiff::Timestamp>) {
    (std::cmp::Reverse(pod.priority), pod.started())
}

/// Those of `pods` whose eviction a disruption budget does not allow any more.
fn protected(pods: &[Arc<PodInfo>], state: &State) -> BTreeSet<Arc<str>> {
    let mut allowed: BTreeMap<_, i32> = state
        .budgets
        .iter()
        .map(|(key, budget)| (key, budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0)))
        .collect();
    let mut protected = BTreeSet::new();
    for pod in pods {
        for (key, _) in state.budgets.iter().filter(|(_, budget)| concerns(budget, pod)) {
            if let Some(allowed) = allowed.get_mut(key) {
                *allowed -= 1;
                if *allowed < 0 {
                    protected.insert(pod.uid.clone());
                }
            }
        }
    }
    protected
}

fn concerns(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let labels = pod.object.metadata.labels.as_ref();
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let disrupted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    budget.metadata.namespace.as_deref() == Some(&*pod.key.namespace)
        && labels.is_some_and(|labels| !labels.is_empty())
        && covers(selector, labels)
        && !disrupted.is_some_and(|disrupted| disrupted.contains_key(&*pod.key.name))
}

/// Upstream's order of preference: fewest violated budgets, the least important highest victim, the smallest sum of
/// priorities, the fewest victims, the latest start of the most important victims.
fn best(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|candidate| {
        let highest = candidate.victims.first().map_or(i32::MIN, |pod| pod.priority);
        // Priorities may be negative: shifted, so that more victims never sum up to less.
        let sum: i64 = candidate.victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum();
        let earliest = candidate.victims.iter().filter(|pod| pod.priority == highest).filter_map(|pod| pod.started()).min();
        (candidate.violations, highest, sum, candidate.victims.len(), std::cmp::Reverse(earliest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{Cluster, pod};
    use crate::plugins::{Arguments, defaults};

    fn sized(name: &str, cpu: &str, priority: i32) -> PodInfo {
        let containers = serde_json::json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        pod(name, serde_json::json!({"priority": priority, "containers": containers, "metadata": {"labels": {"app": name}}}))
    }

    fn found(cluster: &mut Cluster, pod: &PodInfo) -> Result<(String, Vec<String>, usize), Refusals> {
        let all: Vec<NodeId> = cluster.state.known_order().to_vec();
        let candidate = find(&defaults(&Arguments::default()), &mut cluster.state, pod, &all, 0)?;
        let victims = candidate.victims.iter().map(|pod| pod.key.name.to_string()).collect();
        Ok((cluster.state.nodes.name[candidate.node].to_string(), victims, candidate.violations))
    }

    #[test]
    fn the_least_important_and_fewest_go() {
        let mut cluster = Cluster::default();
        cluster.sized("a", "4", "4Gi", 10);
        cluster.sized("b", "4", "4Gi", 10);
        cluster.place(sized("high", "2", 5), "a");
        cluster.place(sized("small", "1", 1), "a");
        cluster.place(sized("large", "2", 1), "b");
        cluster.place(sized("other", "2", 0), "b");
        // On b, removing the one of priority 0 is enough.
        let (node, victims, violations) = found(&mut cluster, &sized("p", "2", 10)).unwrap();
        assert_eq!((node.as_str(), victims, violations), ("b", vec!["other".to_owned()], 0));
        assert_eq!(cluster.state.nodes.used_cpu, [3000, 4000], "everything is back in its place");
    }

    #[test]
    fn budgets_are_spared_if_possible() {
        let mut cluster = Cluster::default();
        cluster.sized("a", "2", "4Gi", 10);
        cluster.place(sized("guarded", "1", 0), "a");
        cluster.place(sized("free", "1", 1), "a");
        let budget = serde_json::json!({
            "metadata": {"namespace": "ns", "name": "b"}, "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
        });
        let budget = Arc::new(serde_json::from_value(budget).unwrap());
        cluster.state.budgets.insert(corten_client::Key::new("ns", "b"), budget);
        assert_eq!(found(&mut cluster, &sized("p", "1", 10)).unwrap().1, ["free"]);
        let (_, victims, violations) = found(&mut cluster, &sized("p", "2", 10)).unwrap();
        assert_eq!((victims.len(), violations), (2, 1));
    }

    #[test]
    fn equals_are_not_preempted() {
        let mut cluster = Cluster::default();
        cluster.sized("a", "1", "4Gi", 10);
        cluster.place(sized("other", "1", 10), "a");
        let refusals = found(&mut cluster, &sized("p", "1", 10)).unwrap_err();
        assert_eq!(refusals, [("No preemption victims found for incoming pod".to_owned(), 1)].into());
    }

    #[test]
    fn a_polite_pod_preempts_nobody() {
        let state = State::default();
        let polite = pod("p", serde_json::json!({"preemptionPolicy": "Never"}));
        assert_eq!(eligible(&polite, &state), Err("not eligible due to preemptionPolicy=Never."));
        assert_eq!(eligible(&pod("p", serde_json::json!({})), &state), Ok(()));
    }
}
