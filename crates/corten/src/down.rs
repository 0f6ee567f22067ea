//! `corten down`: stops the cluster and its containers, and removes what they held of the machine. The data stays.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use corten_network::LocalAddress;
use corten_runtime::Runtime;
use corten_task::Tasks;
use futures::future::join_all;

use crate::cli::DownArgs;
use crate::node::Ranges;
use crate::paths::Paths;
use crate::running::Running;
use crate::{host, logging, node};

/// How long a container may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Stops everything. Harmless when nothing runs.
pub fn run(args: &DownArgs) -> anyhow::Result<()> {
    logging::start(0);
    host::require_root("down")?;
    let paths = Paths::new(&args.data.data_dir);
    if let Some(running) = Running::read(&paths) {
        running.stop()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the async runtime")?;
        runtime.block_on(clean(&paths, &running))?;
        fs::remove_dir_all(&paths.run).with_context(|| format!("remove {}", paths.run.display()))?;
    }
    if args.purge && paths.data.exists() {
        fs::remove_dir_all(&paths.data).with_context(|| format!("remove {}", paths.data.display()))?;
    }
    Ok(())
}

async fn clean(paths: &Paths, running: &Running) -> anyhow::Result<()> {
    let tasks = Tasks::root("down");
    let runtime = node::open_runtime(paths, &running.cgroup_root, &tasks)?;
    let cluster = Ranges { pods: running.pod_cidr.parse()?, services: running.service_cidr.parse()? };
    let ranges = running.node_ranges.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    let containers = runtime.list_containers().await?;
    let stopped = join_all(containers.iter().map(|container| runtime.stop_container(&container.id, GRACE))).await;
    for (container, outcome) in containers.iter().zip(stopped) {
        if let Err(err) = outcome {
            tracing::warn!(container = %container.id, %err, "a container did not stop in order");
        }
    }
    for sandbox in runtime.list_sandboxes().await? {
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
    Ok(())
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
