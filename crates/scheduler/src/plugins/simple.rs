//! Filters of a few lines: cordoned nodes, a node asked for by name, host ports, resource claims.

use std::borrow::Cow;

use crate::events::ClusterEvent;
use crate::framework::{Check, Cycle, Filter, Plugin, Prefilter};
use crate::plugins::taints::tolerates;
use crate::pod::PodInfo;
use crate::state::{Effect, NodeId, State};

/// `NodeUnschedulable`: keeps pods off cordoned nodes, unless they tolerate the taint that says so.
pub struct Unschedulable;

struct Cordoned<'a>(&'a State);

impl Plugin for Unschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        let tolerations = cycle.pod.spec().tolerations.as_deref().unwrap_or_default();
        let tolerated = tolerations
            .iter()
            .any(|toleration| tolerates(toleration, "node.kubernetes.io/unschedulable", "", Effect::NoSchedule));
        if tolerated { Prefilter::Skip } else { Prefilter::Filter(Box::new(Cordoned(cycle.state))) }
    }

    fn helped_by(&self, event: &ClusterEvent, _pod: &PodInfo, state: &State) -> bool {
        matches!(event, ClusterEvent::Node(node) if !state.nodes.unschedulable[*node])
    }
}

impl Filter for Cordoned<'_> {
    fn check(&self, node: NodeId) -> Check {
        if self.0.nodes.unschedulable[node] { Check::Unresolvable } else { Check::Pass }
    }

    fn reasons(&self, _node: NodeId) -> Vec<Cow<'static, str>> {
        vec!["node(s) were unschedulable".into()]
    }
}

/// `NodeName`: a pod that asks for a node by name.
pub struct NodeName;

struct Named<'a> {
    state: &'a State,
    name: &'a str,
}

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        match cycle.pod.node() {
            None => Prefilter::Skip,
            Some(name) => Prefilter::Filter(Box::new(Named { state: cycle.state, name })),
        }
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, state: &State) -> bool {
        matches!(event, ClusterEvent::Node(node) if pod.node() == Some(&*state.nodes.name[*node]))
    }
}

impl Filter for Named<'_> {
    fn check(&self, node: NodeId) -> Check {
        if *self.state.nodes.name[node] == *self.name { Check::Pass } else { Check::Unresolvable }
    }

    fn reasons(&self, _node: NodeId) -> Vec<Cow<'static, str>> {
        vec!["node(s) didn't match the requested node name".into()]
    }
}

/// `NodePorts`: host ports can be taken once.
pub struct NodePorts;

struct Ports<'a>(Cycle<'a>);

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        if cycle.pod.ports.is_empty() { Prefilter::Skip } else { Prefilter::Filter(Box::new(Ports(cycle))) }
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, _state: &State) -> bool {
        match event {
            ClusterEvent::Node(_) => true,
            ClusterEvent::PodRemoved(gone, _) => gone.ports.iter().any(|port| pod.ports.iter().any(|own| own.conflicts(port))),
            _ => false,
        }
    }
}

impl Filter for Ports<'_> {
    fn check(&self, node: NodeId) -> Check {
        let used = &self.0.state.nodes.ports[node];
        let taken = self.0.pod.ports.iter().any(|port| used.iter().any(|used| used.conflicts(port)));
        if taken { Check::Unschedulable } else { Check::Pass }
    }

    fn reasons(&self, _node: NodeId) -> Vec<Cow<'static, str>> {
        vec!["node(s) didn't have free ports for the requested pod ports".into()]
    }
}

/// `DynamicResources`: holds pods with resource claims back, for nobody here can allocate devices yet. Placing them
/// without would let them wait on their node for ever.
pub struct ResourceClaims;

impl Plugin for ResourceClaims {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        if cycle.pod.spec().resource_claims.as_ref().is_none_or(Vec::is_empty) {
            return Prefilter::Skip;
        }
        Prefilter::Reject { reason: "the scheduler does not support the allocation of resource claims".into() }
    }

    fn helped_by(&self, _event: &ClusterEvent, _pod: &PodInfo, _state: &State) -> bool {
        false
    }
}
