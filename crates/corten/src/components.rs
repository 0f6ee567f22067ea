//! The single components, with upstream's flags.

mod apiserver;
mod controller_manager;
mod kubelet;
mod proxy;
mod scheduler;

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;

use anyhow::Context;
use corten_apiserver::ApiServer;
use corten_client::{Client, LeaderConfig, LeaderElector};
use corten_task::Tasks;
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::{Component, Flags};
use crate::logging;

/// All of them, for the help.
pub const ALL: [&Component; 5] =
    [&apiserver::COMPONENT, &controller_manager::COMPONENT, &scheduler::COMPONENT, &kubelet::COMPONENT, &proxy::COMPONENT];

/// The component of a name, if it is one.
pub fn named(name: &str) -> Option<&'static Component> {
    ALL.into_iter().find(|component| component.name == name)
}

/// Runs one until a signal asks it to stop.
pub fn run(component: &'static Component, args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let flags = component.parse(args).unwrap_or_else(|err| err.exit());
    logging::start(flags.parsed("v")?.unwrap_or(0));
    component.refuse(&flags)?;
    for name in component.without_effect(&flags) {
        tracing::warn!("--{name} has no effect yet");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")?;
    runtime.block_on(async {
        let tasks = Tasks::root(component.name);
        match component.name {
            "apiserver" => {
                let start = apiserver::start(&flags, &tasks);
                until_stopped_by(&tasks, start, async |api: &ApiServer| api.leave().await).await
            }
            "controller-manager" => until_stopped(&tasks, controller_manager::start(&flags, &tasks)).await,
            "scheduler" => until_stopped(&tasks, scheduler::start(&flags, &tasks)).await,
            "kubelet" => until_stopped(&tasks, kubelet::start(&flags, &tasks)).await,
            _ => until_stopped(&tasks, proxy::start(&flags, &tasks)).await,
        }
    })
}

/// Starts, waits for a signal, and stops in order. `start` gives what has to live until then.
async fn until_stopped<T>(tasks: &Tasks, start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<()> {
    until_stopped_by(tasks, start, async |_: &T| ()).await
}

/// [`until_stopped`], with something to be done between the signal and the stop. A second signal cuts it short.
async fn until_stopped_by<T>(
    tasks: &Tasks,
    start: impl Future<Output = anyhow::Result<T>>,
    leave: impl AsyncFnOnce(&T),
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outcome = start.await;
    let outcome = match outcome {
        Ok(running) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tokio::select! {
                () = leave(&running) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            drop(running);
            Ok(())
        }
        Err(err) => Err(err),
    };
    tasks.stop().await;
    outcome
}

/// The client of `--kubeconfig`.
async fn client(flags: &Flags) -> anyhow::Result<Client> {
    let path = flags.required("kubeconfig")?;
    Ok(corten_client::remote(Path::new(path)).await?)
}

/// Calls `lead` while this process holds the lease of `component`, or at once with `--leader-elect=false`.
fn elected(
    flags: &Flags,
    component: &str,
    client: Client,
    tasks: &Tasks,
    lead: impl Fn(&Tasks) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    if !flags.enabled("leader-elect", true)? {
        lead(tasks);
        return Ok(());
    }
    // Unique for each process of each machine.
    let identity = format!("{}_{}", crate::host::node_name()?, uuid::Uuid::new_v4());
    let mut config = LeaderConfig::new("kube-system", component, identity);
    for (name, value) in [
        ("leader-elect-lease-duration", &mut config.lease_duration),
        ("leader-elect-renew-deadline", &mut config.renew_deadline),
        ("leader-elect-retry-period", &mut config.retry_period),
    ] {
        if let Some(given) = flags.duration(name)? {
            *value = given;
        }
    }
    anyhow::ensure!(config.lease_duration > config.renew_deadline, "leaseDuration must be greater than renewDeadline");
    anyhow::ensure!(
        config.renew_deadline > config.retry_period.mul_f64(1.2),
        "renewDeadline must be greater than retryPeriod*JitterFactor"
    );
    let candidate = LeaderElector::new(client, config);
    let owner = tasks.clone();
    tasks.spawn_graceful("leader election", async move { candidate.run(&owner, lead).await });
    Ok(())
}
