//! The filter and score plugins, by upstream's names. Each is a module with pure functions of a pod and a node; what
//! depends on all nodes (spreading, affinity to pods) is counted once per cycle.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod resources_fit;
pub mod taint_toleration;
pub mod topology_spread;

use std::borrow::Cow;

/// The largest score of a node, after normalization.
pub const MAX_SCORE: i64 = 100;

/// Why a node was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The plugin that refused it.
    pub plugin: &'static str,
    /// Its words, which users know from events.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing other pods could help.
    pub resolvable: bool,
}

impl Rejection {
    /// One reason that goes when pods go.
    pub fn resolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: true }
    }

    /// One reason that preemption cannot help.
    pub fn final_(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: false }
    }
}

/// Scales scores so that the largest becomes [`MAX_SCORE`]; `reverse` turns large into small.
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
