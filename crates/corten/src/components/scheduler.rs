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
    effective: &[("kubeconfig", "How to reach the API server"), ("v", "Verbosity of the log")],
};

/// Starts scheduling.
pub async fn start(flags: &Flags, tasks: &Tasks) -> anyhow::Result<Scheduler> {
    let client = client(flags).await?;
    let informers = Informers::new(client.clone(), tasks);
    Ok(Scheduler::start(Config::default(), client, &informers, tasks))
}
