//! The pod network of a node that does not know its range yet: it opens when the Node object has one.

use std::path::Path;
use std::sync::Arc;

use corten_kubelet::Kubelet;
use corten_network::{Answer, Attachment, Bridge, HostPort, NetworkError, PodNetwork};
use corten_task::Tasks;
use ipnet::IpNet;
use tokio::sync::watch;

use super::open_network;
use crate::paths::Paths;
use crate::running::Running;

/// A network that may still be opening. Attaching waits for it: a pod that is placed early starts late, but starts.
pub struct Network {
    bridge: watch::Sender<Option<Bridge>>,
}

/// The ranges of the whole cluster.
#[derive(Clone, Copy)]
pub struct Ranges {
    /// Addresses of all pods.
    pub pods: IpNet,
    /// Addresses of Services.
    pub services: IpNet,
}

impl Network {
    /// A network that is not open yet.
    pub fn pending() -> Arc<Self> {
        Arc::new(Self { bridge: watch::Sender::new(None) })
    }

    /// Opens it as soon as the control plane has given the node its range; until then the node is not Ready.
    pub fn open_for(self: Arc<Self>, kubelet: Arc<Kubelet>, paths: Paths, cluster: Ranges, tasks: &Tasks) {
        kubelet.set_ready(Err("container runtime network not ready: the node has no pod range yet".to_owned()));
        let owner = tasks.clone();
        tasks.spawn("pod network", async move {
            let given = kubelet.pod_cidrs().await;
            let opened = async {
                let ranges = given.iter().map(|text| text.parse()).collect::<Result<Vec<IpNet>, _>>()?;
                let bridge = open_network(&paths, ranges.clone(), cluster, &owner).await?;
                Running::note_ranges(&paths, ranges)?;
                anyhow::Ok(bridge)
            };
            match opened.await {
                Ok(bridge) => {
                    self.bridge.send_replace(Some(bridge));
                    kubelet.set_ready(Ok(()));
                }
                Err(err) => {
                    tracing::error!("the pod network cannot be opened: {err:#}");
                    kubelet.set_ready(Err(format!("container runtime network not ready: {err:#}")));
                }
            }
        });
    }

    async fn opened(&self) -> Result<Bridge, NetworkError> {
        let mut bridge = self.bridge.subscribe();
        let opened = bridge.wait_for(Option::is_some).await.map(|bridge| bridge.clone());
        opened.ok().flatten().ok_or_else(|| NetworkError::System {
            doing: "attach to the pod network".to_owned(),
            source: "the pod network is closed".into(),
        })
    }
}

impl PodNetwork for Network {
    fn attach<'a>(&'a self, sandbox: &'a str, netns: &'a Path, ports: &'a [HostPort]) -> Answer<'a, Attachment> {
        Box::pin(async move { self.opened().await?.attach(sandbox, netns, ports).await })
    }

    fn detach<'a>(&'a self, sandbox: &'a str, netns: Option<&'a Path>) -> Answer<'a, ()> {
        Box::pin(async move { self.opened().await?.detach(sandbox, netns).await })
    }

    fn reconcile<'a>(&'a self, live: &'a [String]) -> Answer<'a, ()> {
        Box::pin(async move { self.opened().await?.reconcile(live).await })
    }
}
