//! What happens in the cluster that may let a pending pod be scheduled.

use std::sync::Arc;

use crate::pod::PodInfo;
use crate::state::NodeId;

/// A change, after it was applied to the state.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// A node came, or changed in a way that matters for scheduling.
    Node(NodeId),
    /// A pod was assigned, or an assigned one changed its labels.
    PodAssigned(Arc<PodInfo>),
    /// An assigned pod is gone or asks for less: there is room on the node, if that is still there.
    PodRemoved(Arc<PodInfo>, Option<NodeId>),
    /// A claim, volume, storage class or CSI node changed.
    Storage,
    /// A namespace's labels changed.
    Namespace,
}

impl ClusterEvent {
    /// The node on which things are better now, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(*node),
            Self::PodRemoved(_, node) => *node,
            _ => None,
        }
    }
}
