//! The plugins, one file each, with upstream's names, words and default weights.

mod fit;
mod images;
mod inter_pod_affinity;
mod node_affinity;
mod simple;
mod spread;
mod taints;
pub mod volumes;

#[cfg(test)]
pub(crate) mod testing;

pub use fit::Strategy;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::framework::{Enabled, Plugin};

/// Arguments of plugins that take some.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// How `NodeResourcesFit` scores.
    pub strategy: Strategy,
    /// The weight of existing pods' required terms, `hardPodAffinityWeight`.
    pub hard_pod_affinity_weight: Option<i64>,
    /// Whether existing pods' preferred terms are left out of account.
    pub ignore_preferred_terms: bool,
    /// Constraints of pods that have none; `None` for upstream's own.
    pub spread_defaults: Option<Vec<TopologySpreadConstraint>>,
    /// What every pod has to match besides its own affinity.
    pub added_affinity: Option<k8s_openapi::api::core::v1::NodeAffinity>,
}

/// All plugins with upstream's default order and weights.
#[must_use]
pub fn defaults(arguments: &Arguments) -> Vec<Enabled> {
    let plugin = |plugin: Box<dyn Plugin>, weight| Enabled { plugin, filters: true, weight };
    vec![
        plugin(Box::new(simple::Unschedulable), 0),
        plugin(Box::new(simple::NodeName), 0),
        plugin(Box::new(taints::TaintToleration), 3),
        plugin(Box::new(node_affinity::NodeAffinity::new(arguments.added_affinity.clone())), 2),
        plugin(Box::new(simple::NodePorts), 0),
        plugin(Box::new(fit::Fit::new(arguments.strategy.clone())), 1),
        plugin(Box::new(volumes::Restrictions), 0),
        plugin(Box::new(volumes::Limits), 0),
        plugin(Box::new(volumes::Binding), 0),
        plugin(Box::new(volumes::Zone), 0),
        plugin(Box::new(spread::Spread::new(arguments.spread_defaults.clone())), 2),
        plugin(Box::new(inter_pod_affinity::InterPodAffinity::new(arguments)), 2),
        plugin(Box::new(simple::ResourceClaims), 0),
        plugin(Box::new(fit::Balanced), 1),
        plugin(Box::new(images::ImageLocality), 1),
    ]
}
