//! `corten proxy`: kube-proxy's flags.

use anyhow::Context;
use corten_client::Informers;
use corten_proxy::{Config, Proxy};
use corten_task::Tasks;

use super::client;
use crate::flags::{Component, Flags};
use crate::host;

/// The command line.
pub const COMPONENT: Component = Component {
    name: "proxy",
    about: "Run the service proxy (kube-proxy's flags)",
    known: include_str!("../flags/proxy.txt"),
    effective: &[
        ("kubeconfig", "How to reach the API server"),
        ("hostname-override", "Name of this node [default: the host name]"),
        ("cluster-cidr", "Addresses of pods"),
        ("healthz-bind-address", "Where health is told [default: 0.0.0.0:10256]"),
        ("cleanup", "Remove every rule and end"),
        ("v", "Verbosity of the log"),
    ],
    harmless: &[],
    refused: &[],
};

/// Starts the proxy; with `--cleanup` there is nothing to run.
pub async fn start(flags: &Flags, tasks: &Tasks) -> anyhow::Result<Option<Proxy>> {
    host::require_root("proxy")?;
    if flags.enabled("cleanup", false)? {
        corten_proxy::cleanup().await?;
        return Ok(None);
    }
    let client = client(flags).await?;
    let informers = Informers::new(client.clone(), tasks);
    let ranges = flags.list("cluster-cidr");
    let parse = |text: &String| text.parse().with_context(|| format!("invalid value {text:?} for --cluster-cidr"));
    let mut config = Config {
        node_name: flags.text("hostname-override").map_or_else(host::node_name, |name| Ok(name.to_owned()))?,
        cluster_ranges: ranges.iter().map(parse).collect::<Result<_, _>>()?,
        ..Config::default()
    };
    if let Some(address) = flags.parsed("healthz-bind-address")? {
        config.healthz = Some(address);
    }
    Ok(Some(Proxy::start(config, client, &informers, tasks)))
}
