//! Runs the pods of one node, on any [`corten_runtime::Runtime`] and [`corten_network::PodNetwork`], and answers for
//! them at the node's HTTPS endpoint. Which runtime runs the containers is unknown here.
//!
//! [`Kubelet::start`] is the entrance. Below it: `pods` follows the pods of the node and gives each a worker
//! (`worker`), which asks the pure `plan` what to do and `status` what to report. Nothing polls: watches, the
//! runtime's events and deadlines drive everything, and an idle kubelet renews its lease.

#![forbid(unsafe_code)]

mod config;
mod eviction;
mod kubelet;

mod admission;
mod backoff;
mod cache;
mod cgroups;
mod clock;
mod context;
mod credentials;
mod env;
mod events;
mod fields;
mod handlers;
mod housekeeping;
mod http;
mod images;
mod inotify;
mod logs;
mod machine;
mod mirror;
mod names;
mod node;
mod objects;
mod plan;
mod pod;
mod pods;
mod preemption;
mod probes;
mod quantity;
mod security;
mod server;
mod services;
mod static_pods;
mod stats;
mod status;
mod termination;
mod tokens;
mod volumes;
mod worker;

#[cfg(test)]
mod test;

pub use config::{Config, Host, Reserved, Server};
pub use eviction::{Amount, FlagError, HARD as HARD_THRESHOLDS, Pressure, Threshold, parse as parse_thresholds, thresholds};
pub use kubelet::{Kubelet, StartError};

/// An error with all its causes, as one line.
fn chain(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(source) = cause {
        let words = source.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = source.source();
    }
    text
}

/// What the API server said, without the client library's wrapping.
fn api_error_text(err: &(dyn std::error::Error + 'static)) -> String {
    let mut at = Some(err);
    while let Some(err) = at {
        if let Some(kube::Error::Api(status)) = err.downcast_ref::<kube::Error>() {
            return status.message.clone();
        }
        at = err.source();
    }
    chain(err)
}
