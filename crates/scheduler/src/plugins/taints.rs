//! `TaintToleration`: keeps pods off nodes whose taints they do not tolerate.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Toleration;

use crate::events::ClusterEvent;
use crate::framework::{Check, Cycle, Filter, Plugin, Prefilter, Score, normalize_by_highest};
use crate::pod::PodInfo;
use crate::state::{Effect, NodeId, State, Taint};

/// The plugin.
pub struct TaintToleration;

struct Tolerant<'a>(Cycle<'a>);

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        Prefilter::Filter(Box::new(Tolerant(cycle)))
    }

    fn score<'a>(&'a self, cycle: Cycle<'a>, feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        let preferring =
            |node: &NodeId| cycle.state.nodes.taints[*node].iter().any(|taint| taint.effect == Effect::PreferNoSchedule);
        // Without such taints all nodes are equal.
        feasible.iter().any(preferring).then(|| Box::new(Tolerant(cycle)) as Box<dyn Score>)
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, state: &State) -> bool {
        matches!(event, ClusterEvent::Node(node) if Tolerant(Cycle { pod, state }).check(*node) == Check::Pass)
    }
}

impl TaintToleration {
    /// Whether the pod can stand the taints of `node`.
    pub fn tolerated(cycle: Cycle<'_>, node: NodeId) -> bool {
        Tolerant(cycle).check(node) == Check::Pass
    }
}

impl Filter for Tolerant<'_> {
    fn check(&self, node: NodeId) -> Check {
        let taints = &self.0.state.nodes.taints[node];
        let mut keeping = taints.iter().filter(|taint| taint.effect != Effect::PreferNoSchedule);
        if keeping.all(|taint| self.tolerated(taint, |_| true)) { Check::Pass } else { Check::Unresolvable }
    }

    fn reasons(&self, _node: NodeId) -> Vec<Cow<'static, str>> {
        vec!["node(s) had untolerated taint(s)".into()]
    }
}

impl Score for Tolerant<'_> {
    fn score(&self, node: NodeId) -> i64 {
        let taints = self.0.state.nodes.taints[node].iter().filter(|taint| taint.effect == Effect::PreferNoSchedule);
        let effect = |toleration: &Toleration| matches!(toleration.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
        taints.filter(|taint| !self.tolerated(taint, effect)).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, true);
    }
}

impl Tolerant<'_> {
    fn tolerated(&self, taint: &Taint, which: impl Fn(&Toleration) -> bool) -> bool {
        let interner = &self.0.state.interner;
        let tolerations = self.0.pod.spec().tolerations.as_deref().unwrap_or_default();
        let (key, value) = (interner.text(taint.key), interner.text(taint.value));
        tolerations.iter().any(|toleration| which(toleration) && tolerates(toleration, key, value, taint.effect))
    }
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: Effect) -> bool {
    let given = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    if given(&toleration.effect).is_some_and(|word| Effect::read(&word) != Some(effect)) {
        return false;
    }
    if toleration.key.as_deref().is_some_and(|known| !known.is_empty() && known != key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.key.as_deref().is_some_and(|key| !key.is_empty())
                && toleration.value.as_deref().unwrap_or_default() == value
        }
        // Numeric comparison of values (KEP-5471).
        Some("Gt") => compare(toleration, value, |taint, bound| taint > bound),
        Some("Lt") => compare(toleration, value, |taint, bound| taint < bound),
        Some(_) => false,
    }
}

fn compare(toleration: &Toleration, value: &str, holds: impl Fn(i64, i64) -> bool) -> bool {
    let bound = toleration.value.as_deref().and_then(|bound| bound.parse().ok());
    matches!((value.parse(), bound), (Ok(value), Some(bound)) if holds(value, bound))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, pod};
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn tolerations_cover_taints() {
        //    key        operator   value      effect               of a=1:NoSchedule
        check(Some("a"), None,      Some("1"), Some("NoSchedule"),  true);
        check(Some("a"), None,      Some("1"), None,                true);   // any effect
        check(Some("a"), None,      Some("2"), None,                false);
        check(Some("a"), Some("Exists"), None, Some("NoExecute"),   false);
        check(Some("a"), Some("Exists"), None, None,                true);
        check(None,      Some("Exists"), None, None,                true);   // everything
        check(Some("b"), Some("Exists"), None, None,                false);
        check(None,      None,      Some("1"), None,                false);  // no key needs Exists
        #[track_caller]
        fn check(key: Option<&str>, operator: Option<&str>, value: Option<&str>, effect: Option<&str>, expected: bool) {
            let own = |text: Option<&str>| text.map(ToOwned::to_owned);
            let toleration = Toleration { key: own(key), operator: own(operator), value: own(value), effect: own(effect), toleration_seconds: None };
            assert_eq!(tolerates(&toleration, "a", "1", Effect::NoSchedule), expected);
        }
    }

    #[test]
    fn tainted_nodes_are_left_out_and_avoided() {
        let mut cluster = Cluster::default();
        cluster.node("free", serde_json::json!({}));
        cluster.node("hard", serde_json::json!({"spec": {"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}]}}));
        cluster.node("soft", serde_json::json!({"spec": {"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}}));
        let plain = pod("p", serde_json::json!({}));
        assert_eq!(cluster.filtered(&TaintToleration, &plain), [("hard".into(), "node(s) had untolerated taint(s)".into())]);
        assert_eq!(cluster.scored(&TaintToleration, &plain), [("free".into(), 100), ("hard".into(), 100), ("soft".into(), 0)]);
        let tolerant = pod("p", serde_json::json!({"tolerations": [{"operator": "Exists"}]}));
        assert!(cluster.filtered(&TaintToleration, &tolerant).is_empty());
    }
}
