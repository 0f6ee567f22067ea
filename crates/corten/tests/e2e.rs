//! End-to-end tests: the real binary, the real `kubectl`, real containers, in namespaces of their own.
//!
//! The tests share one cluster, each in a Kubernetes namespace of its own; tests that stop or kill the cluster start their
//! own. `harness = false`, because a shared cluster has to be taken down when the last test has ended, also when one failed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "e2e/authority.rs"]
mod authority;
#[path = "e2e/churn.rs"]
mod churn;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/components.rs"]
mod components;
#[path = "e2e/containers.rs"]
mod containers;
#[path = "e2e/crash.rs"]
mod crash;
#[path = "e2e/endpoint.rs"]
mod endpoint;
#[path = "e2e/faults.rs"]
mod faults;
#[path = "e2e/kubectl.rs"]
mod kubectl;
#[path = "e2e/registry.rs"]
mod registry;
#[path = "e2e/workloads.rs"]
mod workloads;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use cluster::{Cluster, Shared};

/// A test against the shared cluster; it gets a Kubernetes namespace of its own.
type Test = fn(&Cluster, &str);

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let shared = Arc::new(Shared::default());
    let trials = [
        workloads::TESTS,
        containers::TESTS,
        endpoint::TESTS,
        registry::TESTS,
        faults::TESTS,
        components::TESTS,
        crash::TESTS,
        churn::TESTS,
    ]
    .concat()
    .into_iter()
    .map(|(name, test)| {
        let shared = shared.clone();
        Trial::test(name, move || {
            let cluster = shared.cluster()?;
            let namespace = cluster.namespace(name);
            test(&cluster, &namespace);
            cluster.delete_namespace(&namespace);
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&args, trials.collect());
    match shared.stop() {
        Ok(()) => conclusion.exit_code(),
        Err(err) => {
            eprintln!("the cluster did not stop cleanly: {err}");
            ExitCode::FAILURE
        }
    }
}
