//! Assigns pods to nodes.
//!
//! `state` is the cluster laid out for scanning, `plugins` filter and score nodes in a `framework`, `queue` keeps the pods
//! that wait, `preemption` makes room; `core` puts them together without any I/O. `run` feeds it from the informers and
//! carries out what it decides: bindings, events, conditions.

#![forbid(unsafe_code)]

mod bind;
mod config;
mod core;
mod events;
mod framework;
mod interner;
mod plugins;
mod pod;
mod preemption;
mod queue;
mod resources;
mod run;
mod selectors;
mod state;

use corten_client::{Client, Informers};
use corten_task::Tasks;

pub use config::{Config, ConfigError};
pub use core::{Core, Outcome, Profile};
pub use events::ClusterEvent;
pub use framework::Diagnosis;
pub use pod::PodInfo;
pub use queue::{Queue, Queued};
pub use state::State;

/// A running scheduler.
#[derive(Clone, Debug)]
pub struct Scheduler {
    _private: (),
}

impl Scheduler {
    /// Starts to place the pods that name one of the configured schedulers. Its tasks belong to `tasks`: nothing has to be
    /// done with the value.
    pub fn start(config: Config, client: Client, informers: &Informers, tasks: &Tasks) -> Self {
        run::start(config, client, informers, &tasks.child("scheduler"));
        Self { _private: () }
    }
}
