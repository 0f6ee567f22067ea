//! What may happen in a cluster, and which refusals it may lift: upstream's queueing hints in their coarse form.

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node was added or became schedulable, or its labels, taints or resources changed.
    NodeAdded,
    /// A pod that took resources is gone or has ended.
    PodGone,
    /// A pod was placed or its labels changed.
    PodPlaced,
    /// A claim, volume or storage class changed.
    Volume,
    /// A namespace's labels changed.
    Namespace,
}

impl Event {
    /// Whether a pod that `plugin` refused may fit now.
    pub fn helps(self, plugin: &str) -> bool {
        match self {
            Self::NodeAdded => true,
            Self::PodGone => {
                matches!(plugin, "NodeResourcesFit" | "NodePorts" | "PodTopologySpread" | "InterPodAffinity" | "VolumeBinding")
            }
            Self::PodPlaced => matches!(plugin, "InterPodAffinity" | "PodTopologySpread"),
            Self::Volume => plugin == "VolumeBinding",
            Self::Namespace => plugin == "InterPodAffinity",
        }
    }
}
