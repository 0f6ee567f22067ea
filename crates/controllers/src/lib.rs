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
mod history;
mod meta;
mod pods;
mod selector;

mod clusterrole;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod gc;
mod job;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod protection;
mod replicaset;
mod rootca;
mod serviceaccount;
mod statefulset;
mod tainteviction;
mod ttlafterfinished;

#[cfg(test)]
mod testing;

use corten_client::{Client, Informers};
use corten_task::Tasks;

pub use config::Config;
pub use nodeipam::{Cidr, InvalidCidr};

use context::Context;

type Start = fn(&Context);

/// All controllers: upstream's name (that of `--controllers`), the service account in kube-system that it acts as, its entrance.
const CONTROLLERS: &[(&str, &str, Start)] = &[
    ("node-ipam-controller", "node-controller", nodeipam::start),
    ("serviceaccount-controller", "service-account-controller", serviceaccount::start),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", rootca::start),
    ("replicaset-controller", "replicaset-controller", replicaset::start),
    ("deployment-controller", "deployment-controller", deployment::start),
    ("endpointslice-controller", "endpointslice-controller", endpointslice::start),
    ("endpoints-controller", "endpoint-controller", endpoints::start),
    ("endpointslice-mirroring-controller", "endpointslicemirroring-controller", endpointslice::mirroring::start),
    ("namespace-controller", "namespace-controller", namespace::start),
    ("garbage-collector-controller", "generic-garbage-collector", gc::start),
    ("node-lifecycle-controller", "node-controller", nodelifecycle::start),
    ("taint-eviction-controller", "node-controller", tainteviction::start),
    ("pod-garbage-collector-controller", "pod-garbage-collector", podgc::start),
    ("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", clusterrole::start),
    ("daemonset-controller", "daemon-set-controller", daemonset::start),
    ("statefulset-controller", "statefulset-controller", statefulset::start),
    ("disruption-controller", "disruption-controller", disruption::start),
    ("persistentvolumeclaim-protection-controller", "pvc-protection-controller", protection::start_claims),
    ("persistentvolume-protection-controller", "pv-protection-controller", protection::start_volumes),
    ("volumeattributesclass-protection-controller", "volumeattributesclass-protection-controller", protection::start_classes),
    ("cronjob-controller", "cronjob-controller", cronjob::start),
    ("job-controller", "job-controller", job::start),
    ("ttl-after-finished-controller", "ttl-after-finished-controller", ttlafterfinished::start),
    ("replicationcontroller-controller", "replication-controller", replicaset::start_replication_controllers),
];

/// Starts the controllers that `config` asks for, in `tasks`, on the informers of this process. They wait for their
/// caches themselves; nothing here blocks.
///
/// `acting_as` gives the client of a service account in kube-system (such as `deployment-controller`): each controller has
/// its own rights and no more (`--use-service-account-credentials`).
pub fn start(config: Config, acting_as: impl Fn(&str) -> Client, informers: &Informers, tasks: &Tasks) {
    let tasks = tasks.child("controllers");
    for (name, account, start) in CONTROLLERS {
        if config.is_enabled(name) {
            let (config, informers, tasks) = (config.clone(), informers.clone(), tasks.clone());
            start(&Context { config, client: acting_as(account), informers, tasks });
        }
    }
}
