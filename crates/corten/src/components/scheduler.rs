//! `corten scheduler`: kube-scheduler's flags.

use corten_client::Informers;
use corten_scheduler::{Config, Scheduler};
use corten_task::Tasks;

use super::client;
use crate::flags::{Component, Flags};

/// The command line.
pub const COMPONENT: Component = Component {
    name: "scheduler",
    about: "Run the scheduler (kube-scheduler's flags)",
    known: include_str!("../flags/scheduler.txt"),
    effective: &[
        ("kubeconfig", "How to reach the API server"),
        ("leader-elect", "Act only while holding the lease kube-system/kube-scheduler [default: true]"),
        ("leader-elect-lease-duration", "Silence of a leader after which another may take the lease [default: 15s]"),
        ("leader-elect-renew-deadline", "How long a leader tries to renew the lease [default: 10s]"),
        ("leader-elect-retry-period", "Pause between attempts [default: 2s]"),
        ("v", "Verbosity of the log"),
    ],
    harmless: &[],
    refused: &[],
};

/// Starts scheduling, as soon as this process leads.
pub async fn start(flags: &Flags, tasks: &Tasks) -> anyhow::Result<()> {
    let client = client(flags).await?;
    let own = client.clone();
    let host = crate::host::node_name()?;
    let lead = move |leading: &Tasks| {
        let informers = Informers::new(own.clone(), leading);
        let config = Config { host: host.clone(), ..Config::default() };
        Scheduler::start(config, own.clone(), &informers, leading);
    };
    super::elected(flags, "kube-scheduler", client, tasks, lead)
}
