//! The controllers of kube-controller-manager. Each is one file (or a file and its folder) with two halves: pure functions that decide,
//! and a thin `reconcile` that reads caches and carries the decision out.
//!
//! Invariant: controllers know the API through `corten_client` only. They never poll: a timer exists only where an object
//! gives a time.

#![forbid(unsafe_code)]

mod batch;
mod claim;
mod clock;
mod config;
mod context;
mod discovery;
mod error;
mod hash;
mod meta;
mod pods;
mod selector;

mod deployment;
mod endpoints;
mod endpointslice;
mod gc;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod replicaset;
mod rootca;
mod serviceaccount;
mod tainteviction;

#[cfg(test)]
mod testing;

use corten_client::{Client, Informers};
use corten_task::Tasks;

pub use config::Config;
pub use nodeipam::{Cidr, InvalidCidr};

use context::Context;

type Start = fn(&Context);

/// All controllers, by upstream's names (those of `--controllers`).
const CONTROLLERS: &[(&str, Start)] = &[
    ("node-ipam-controller", nodeipam::start),
    ("serviceaccount-controller", serviceaccount::start),
    ("root-ca-certificate-publisher-controller", rootca::start),
    ("replicaset-controller", replicaset::start),
    ("deployment-controller", deployment::start),
    ("endpointslice-controller", endpointslice::start),
    ("endpoints-controller", endpoints::start),
    ("endpointslice-mirroring-controller", endpointslice::mirroring::start),
    ("namespace-controller", namespace::start),
    ("garbage-collector-controller", gc::start),
    ("node-lifecycle-controller", nodelifecycle::start),
    ("taint-eviction-controller", tainteviction::start),
    ("pod-garbage-collector-controller", podgc::start),
    ("replicationcontroller-controller", replicaset::start_replication_controllers),
];

/// Starts the controllers that `config` asks for, in `tasks`, on the informers of this process. They wait for their
/// caches themselves; nothing here blocks.
pub fn start(config: Config, client: Client, informers: &Informers, tasks: &Tasks) {
    let ctx = Context { config, client, informers: informers.clone(), tasks: tasks.child("controllers") };
    for (name, start) in CONTROLLERS {
        if ctx.config.is_enabled(name) {
            start(&ctx);
        }
    }
}
