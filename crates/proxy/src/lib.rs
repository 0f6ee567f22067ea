//! The service proxy: Services and EndpointSlices become nftables rules, so that the kernel sends a connection to a
//! Service's address to one of its endpoints.
//!
//! `endpoints` decides which endpoints a port has here, `plan` what the rules of one service are, `script` what has to
//! change in the kernel; all three are pure. `run` listens to the informers and applies.

#![forbid(unsafe_code)]

mod endpoints;
mod health;
mod plan;
mod run;
mod script;

use std::net::SocketAddr;

use corten_client::{Client, Informers};
use corten_network::nft::{self, NftError};
use corten_task::Tasks;
use ipnet::IpNet;

pub use endpoints::{Choice, Endpoint, choose, collect};
pub use plan::{Fragment, Health, Map, Node, Part, UdpFrontend, plan};
pub use script::{Applied, Family, frame};

/// What the proxy is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node.
    pub node_name: String,
    /// The pod ranges of the cluster. Who calls a cluster IP from elsewhere has its source address replaced.
    pub cluster_ranges: Vec<IpNet>,
    /// The families to serve.
    pub families: Vec<Family>,
    /// Whether node ports answer on 127.0.0.1 too. The pod network has to allow it (`route_localnet`).
    pub localhost_node_ports: bool,
    /// Where `/healthz` and `/livez` answer; upstream's default is `0.0.0.0:10256`.
    pub healthz: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            cluster_ranges: Vec::new(),
            families: vec![Family::V4],
            localhost_node_ports: true,
            healthz: None,
        }
    }
}

/// A running proxy. When its tasks stop, the rules stay in the kernel: connections go on while it restarts.
#[derive(Clone, Debug)]
pub struct Proxy {
    synced: tokio::sync::watch::Receiver<bool>,
}

impl Proxy {
    /// Starts to follow Services, EndpointSlices and the own Node.
    #[must_use]
    pub fn start(config: Config, _client: Client, informers: &Informers, tasks: &Tasks) -> Self {
        let (sender, synced) = tokio::sync::watch::channel(false);
        run::start(config, informers, tasks, sender);
        Self { synced }
    }

    /// Resolves when the rules of all Services known at the start are in the kernel.
    pub async fn synced(&self) {
        // The sender lives as long as the task; when that has stopped, nobody has to wait any more.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }
}

/// Removes everything the proxy ever put into the kernel of this node.
///
/// # Errors
/// When nft is missing or refuses.
pub async fn cleanup() -> Result<(), NftError> {
    nft::apply(&script::removal(&[Family::V4, Family::V6])).await
}
