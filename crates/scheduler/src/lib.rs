//! The scheduler: it gives every pending pod a node.
//!
//! One task owns the [`cache`] (what nodes have and what pods take) and the [`queue`] (who waits, and for what), fed by
//! informers. A scheduling [`cycle`] is a pure function of a pod and the nodes: the [`plugins`] filter, then score.
//! Binding goes out concurrently; until the API confirms it the cache assumes it. Nothing polls: a pod that does not fit
//! waits for a cluster event that may change that, or for its back-off.
#![forbid(unsafe_code)]

mod cache;
mod cycle;
mod diagnosis;
mod events;
mod node;
mod plugins;
mod pod;
mod preemption;
mod queue;
mod resources;
mod run;
mod selector;
mod volumes;

pub use run::Scheduler;

/// What a scheduler is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `spec.schedulerName` of the pods it is for.
    pub name: String,
    /// Share of the nodes, in per cent, that have to fit before scoring starts; 0 adapts to the cluster's size.
    pub percentage_of_nodes_to_score: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { name: "default-scheduler".to_owned(), percentage_of_nodes_to_score: 0 }
    }
}

#[cfg(test)]
mod testing;
