//! The loop that keeps the kernel's rules equal to the plan.
//!
//! A change marks its service as dirty and wakes the loop; the loop takes all that is dirty, plans it and applies one
//! transaction. While nft runs, further changes gather and make the next transaction. So a single change is applied at
//! once and a burst in few steps, without any timer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Informer, Informers, Key};
use corten_network::conntrack;
use corten_network::nft::{self, NftError};
use corten_task::Tasks;
use k8s_openapi::api::core::v1::{Node as ApiNode, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::Config;
use crate::health::Servers;
use crate::plan::{Fragment, Node, plan};
use crate::script::{Applied, frame};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
const BY_SERVICE: &str = "proxy-by-service";
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What has to be looked at again.
#[derive(Default)]
struct Dirty {
    services: Mutex<BTreeSet<Key>>,
    wake: Notify,
}

impl Dirty {
    fn add(&self, service: Key) {
        self.services.lock().insert(service);
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeSet<Key> {
        std::mem::take(&mut self.services.lock())
    }
}

struct Loop {
    config: Config,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<ApiNode>,
    dirty: Arc<Dirty>,
    servers: Servers,
}

pub fn start(config: Config, informers: &Informers, tasks: &Tasks, synced: watch::Sender<bool>) {
    let tasks = tasks.child("proxy");
    let this = Loop {
        services: informers.of::<Service>(),
        slices: informers.of::<EndpointSlice>(),
        nodes: informers.select::<ApiNode>(format!("metadata.name={}", config.node_name)),
        dirty: Arc::default(),
        servers: Servers::new(&tasks),
        config,
    };
    this.slices.index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    this.services.on_change({
        let dirty = this.dirty.clone();
        move |change| dirty.add(Key::of(&**change.object()))
    });
    this.slices.on_change({
        let dirty = this.dirty.clone();
        move |change: &Change<EndpointSlice>| {
            // The label can change, though nobody does that: then two services are meant.
            for slice in change.old().into_iter().chain([change.object()]) {
                service_of(slice).into_iter().for_each(|service| dirty.add(service));
            }
        }
    });
    this.nodes.on_change({
        let dirty = this.dirty.clone();
        move |change: &Change<ApiNode>| {
            let zone_of = |node: &Arc<ApiNode>| node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE).cloned());
            if change.old().map(zone_of) != Some(zone_of(change.object())) {
                dirty.wake.notify_one();
            }
        }
    });
    tasks.spawn("proxy", this.run(synced));
}

impl Loop {
    async fn run(self, synced: watch::Sender<bool>) {
        self.services.synced().await;
        self.slices.synced().await;
        let mut node = self.node();
        let mut applied: Option<Applied> = None;
        let mut retry = FIRST_RETRY;
        if let Some(address) = self.config.healthz {
            self.servers.healthz(address).await;
        }
        loop {
            let mut dirty = self.dirty.take();
            let now = self.node();
            if now != node {
                node = now;
                dirty.extend(self.services.keys());
            }
            let outcome = match applied.take() {
                Some(mut state) => self.update(&mut state, dirty, &node).await.map(|()| state),
                None => self.replace(&node).await,
            };
            match outcome {
                Ok(state) => {
                    self.servers.serve(state.iter()).await;
                    applied = Some(state);
                    retry = FIRST_RETRY;
                    synced.send_replace(true);
                }
                Err(error) => {
                    // The kernel may hold anything now, for instance nothing after `nft flush ruleset`: start over.
                    tracing::warn!(%error, "the rules for Services could not be applied; writing all of them anew");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    continue;
                }
            }
            self.dirty.wake.notified().await;
        }
    }

    /// Writes everything in one transaction.
    async fn replace(&self, node: &Node) -> Result<Applied, NftError> {
        let mut state = Applied::new(&self.config.families);
        let mut script = frame(&self.config.families, self.config.localhost_node_ports);
        let all = self.services.keys().into_iter().map(|key| self.planned(key, node)).collect();
        script.push_str(&state.change(all));
        nft::apply(&script).await?;
        let fragments: Vec<_> = state.iter().map(|(_, fragment)| fragment.clone()).collect();
        forget_flows(fragments).await;
        Ok(state)
    }

    async fn update(&self, state: &mut Applied, dirty: BTreeSet<Key>, node: &Node) -> Result<(), NftError> {
        let mut changes = Vec::new();
        let mut flows = Vec::new();
        for key in dirty {
            let (key, new) = self.planned(key, node);
            let old = state.get(&key);
            if old.map(|old| &**old) == new.as_ref() {
                continue;
            }
            if let Some(old) = old
                && old.udp != new.as_ref().map(|new| new.udp.clone()).unwrap_or_default()
            {
                flows.push(Arc::new(gone(old, new.as_ref())));
            }
            flows.extend(new.as_ref().filter(|new| !new.udp.is_empty()).map(|new| Arc::new(udp_only(new))));
            changes.push((key, new));
        }
        let script = state.change(changes);
        if !script.is_empty() {
            nft::apply(&script).await?;
            forget_flows(flows).await;
        }
        Ok(())
    }

    fn planned(&self, key: Key, node: &Node) -> (Key, Option<Fragment>) {
        let fragment = self.services.get(&key).map(|service| {
            let slices = self.slices.indexed(BY_SERVICE, &key.to_string());
            plan(&service, &slices, node)
        });
        let fragment = fragment.filter(|fragment| *fragment != Fragment::default());
        (key, fragment)
    }

    fn node(&self) -> Node {
        let node = self.nodes.get(&Key::cluster(&self.config.node_name));
        Node {
            name: self.config.node_name.clone(),
            zone: node.and_then(|node| node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE).cloned())),
            cluster_ranges: self.config.cluster_ranges.clone(),
        }
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.as_deref()?, name))
}

/// The UDP entries that `old` had and `new` has not: flows through them lead nowhere any more.
fn gone(old: &Fragment, new: Option<&Fragment>) -> Fragment {
    let stays = |ip, port| new.is_some_and(|new| new.udp.iter().any(|known| (known.ip, known.port) == (ip, port)));
    let mut udp: Vec<_> = old.udp.iter().filter(|known| !stays(known.ip, known.port)).cloned().collect();
    udp.iter_mut().for_each(|entry| entry.endpoints.clear());
    Fragment { udp, ..Fragment::default() }
}

fn udp_only(fragment: &Fragment) -> Fragment {
    Fragment { udp: fragment.udp.clone(), ..Fragment::default() }
}

/// A UDP flow keeps its old translation as long as it is busy: one to an endpoint that is gone, or one from before the
/// service had any, would never end. TCP connections end by themselves.
async fn forget_flows(fragments: Vec<Arc<Fragment>>) {
    if fragments.iter().all(|fragment| fragment.udp.is_empty()) {
        return;
    }
    let stale = move |flow: &conntrack::Flow| {
        let frontends = fragments.iter().flat_map(|fragment| &fragment.udp);
        let mut matching = frontends.filter(|entry| match entry.ip {
            Some(ip) => flow.destination == (ip, entry.port),
            None => flow.destination.1 == entry.port && flow.destination != flow.replier,
        });
        matching.any(|entry| !entry.endpoints.contains(&flow.replier))
    };
    match corten_network::netns::on_thread(move || conntrack::forget_udp(stale)).await {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "forgot UDP flows to endpoints that are gone"),
        Err(error) => tracing::warn!(%error, "stale UDP flows could not be forgotten"),
    }
}
