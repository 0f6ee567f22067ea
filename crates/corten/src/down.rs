//! `corten down`: stops the cluster and its containers, and removes what they held of the machine. The data stays.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use corten_network::LocalAddress;
use corten_runtime::{ContainerState, Runtime};
use corten_task::Tasks;
use futures::future::join_all;

use crate::cli::DownArgs;
use crate::node::Ranges;
use crate::paths::Paths;
use crate::running::Running;
use crate::{host, logging, node};

/// How long a container may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Stops everything, and says in one line what was done. Harmless when nothing runs.
pub fn run(args: &DownArgs) -> anyhow::Result<()> {
    logging::start(0);
    host::require_root("down")?;
    let paths = Paths::new(&args.data.data_dir);
    let mut stopped = None;
    if let Some(running) = Running::read(&paths) {
        running.stop()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the async runtime")?;
        stopped = Some(runtime.block_on(clean(&paths, &running))?);
        fs::remove_dir_all(&paths.run).with_context(|| format!("remove {}", paths.run.display()))?;
    }
    let purged = args.purge && paths.data.exists();
    if purged {
        fs::remove_dir_all(&paths.data).with_context(|| format!("remove {}", paths.data.display()))?;
    }
    println!("{}", summary(stopped, purged, &paths.data));
    Ok(())
}

/// What was stopped.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    pods: usize,
    /// Those that ran.
    containers: usize,
}

/// What was done, in one line.
fn summary(stopped: Option<Stopped>, purged: bool, data: &Path) -> String {
    let count = |count: usize, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    let data = data.display();
    match (stopped, purged) {
        (None, false) => format!("no cluster is running on {data}: nothing to do"),
        (None, true) => format!("no cluster is running on {data}; its data is removed"),
        (Some(Stopped { pods, containers }), purged) => {
            let ended =
                format!("stopped the cluster on {data}: {} of {} ended", count(containers, "container"), count(pods, "pod"));
            if purged { format!("{ended}, the data is removed") } else { format!("{ended}, the data stays") }
        }
    }
}

async fn clean(paths: &Paths, running: &Running) -> anyhow::Result<Stopped> {
    let tasks = Tasks::root("down");
    let runtime = node::open_runtime(paths, &running.cgroup_root, &tasks)?;
    let cluster = Ranges { pods: running.pod_cidr.parse()?, services: running.service_cidr.parse()? };
    let ranges = running.node_ranges.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    let containers = runtime.list_containers().await?;
    let ran = containers.iter().filter(|container| container.state == ContainerState::Running).count();
    let stopped = join_all(containers.iter().map(|container| runtime.stop_container(&container.id, GRACE))).await;
    for (container, outcome) in containers.iter().zip(stopped) {
        if let Err(err) = outcome {
            tracing::warn!(container = %container.id, %err, "a container did not stop in order");
        }
    }
    let sandboxes = runtime.list_sandboxes().await?;
    for sandbox in &sandboxes {
        runtime.remove_sandbox(&sandbox.id).await?;
    }
    // The interfaces of pods went with their namespaces; teardown releases the addresses. Without ranges it never opened.
    if !ranges.is_empty() {
        node::open_network(paths, ranges, cluster, &tasks).await?.teardown().await?;
    }
    corten_proxy::cleanup().await?;
    LocalAddress::add(running.dns_ip).and_then(LocalAddress::remove).context("take the DNS address away")?;
    unmount_below(&paths.kubelet())?;
    node::remove_cgroups(Path::new("/sys/fs/cgroup"), &running.cgroup_root);
    tasks.stop().await;
    Ok(Stopped { pods: sandboxes.len(), containers: ran })
}

/// Unmounts every volume of pods, the deepest first.
fn unmount_below(directory: &Path) -> anyhow::Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").context("read the mount table")?;
    let mut below: Vec<&str> =
        table.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| Path::new(p).starts_with(directory)).collect();
    below.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in below {
        nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).with_context(|| format!("unmount {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn one_line_says_what_was_done() {
        let stopped = |pods, containers| Some(Stopped { pods, containers });
        check(None,          false, "no cluster is running on /d: nothing to do");
        check(None,          true,  "no cluster is running on /d; its data is removed");
        check(stopped(1, 1), false, "stopped the cluster on /d: 1 container of 1 pod ended, the data stays");
        check(stopped(3, 4), true,  "stopped the cluster on /d: 4 containers of 3 pods ended, the data is removed");
        #[track_caller]
        fn check(stopped: Option<Stopped>, purged: bool, expected: &str) {
            assert_eq!(summary(stopped, purged, Path::new("/d")), expected);
        }
    }
}
