//! The garbage collector: deletes objects whose owners are all gone, and carries out foreground deletion and orphaning.
//!
//! `graph` is fed by one metadata informer per resource that can be listed, watched and deleted; `sweep` looks at
//! single objects and always asks the server before it deletes. Resources come and go: a change of a CustomResourceDefinition or
//! an APIService leads to a new discovery, there is no polling.

pub(crate) mod graph;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, Controller, Informer, Informers, Metadata, Queue, Requeue};
use corten_task::Tasks;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tracing::warn;

use crate::context::Context;
use crate::discovery::{Served, discover};
use crate::error::Result;
use crate::meta::uid;
use graph::{Graph, Item};

/// Objects looked at, at a time (`--concurrent-gc-syncs`).
const WORKERS: usize = 20;
/// Changes of CRDs come in bunches; their resources are served a moment later.
const SETTLE: Duration = Duration::from_secs(1);
/// When a part of discovery failed.
const RETRY: Duration = Duration::from_secs(30);

pub(crate) struct Collector {
    client: Client,
    informers: Informers,
    graph: Mutex<Graph>,
    queue: Queue<Item>,
    /// The resource of each kind that is followed, by apiVersion and kind.
    resources: RwLock<HashMap<(String, String), Followed>>,
    rediscover: Notify,
}

struct Followed {
    served: Served,
    informer: Informer<Metadata>,
    tasks: Tasks,
}

/// Starts the collector.
pub(crate) fn start(ctx: &Context) {
    let collector = Arc::new(Collector {
        client: ctx.client.clone(),
        informers: ctx.informers.clone(),
        graph: Mutex::default(),
        queue: Queue::new(),
        resources: RwLock::default(),
        rediscover: Notify::new(),
    });
    let tasks = ctx.tasks.child("garbage collector");
    ctx.tasks.spawn("garbage collector", collector.run(tasks));
}

impl Collector {
    async fn run(self: Arc<Self>, tasks: Tasks) {
        let mut complete = self.follow(&tasks).await;
        // Nothing is decided on half a graph.
        self.synced().await;
        let collector = self.clone();
        tasks.spawn("garbage collector workers", async move {
            let queue = collector.queue.clone();
            let sweep = move |item: Item| {
                let collector = collector.clone();
                async move { collector.sweep(&item).await }
            };
            Controller::run("garbagecollector", queue, WORKERS, sweep).await;
        });
        loop {
            if complete {
                self.rediscover.notified().await;
                tokio::time::sleep(SETTLE).await;
            } else {
                tokio::time::sleep(RETRY).await;
            }
            complete = self.follow(&tasks).await;
        }
    }

    /// Starts and stops informers so that they fit what is served. Returns whether everything is known.
    async fn follow(self: &Arc<Self>, tasks: &Tasks) -> bool {
        let discovered = match discover(&self.client).await {
            Ok(discovered) => discovered,
            Err(err) => {
                warn!(error = %err, "the garbage collector cannot discover resources, will retry");
                return false;
            }
        };
        let collectable =
            |served: &&Served| ["list", "watch", "delete"].iter().all(|verb| served.can(verb)) && !is_ignored(served);
        let wanted: HashMap<(String, String), &Served> =
            discovered.served.iter().filter(collectable).map(|served| (kind_of(served), served)).collect();
        let gone: Vec<Followed> = {
            let mut resources = self.resources.write();
            let is_known_gone = |key: &(String, String)| !wanted.contains_key(key) && !discovered.failed.contains(&key.0);
            let gone: Vec<_> = resources.keys().filter(|key| is_known_gone(key)).cloned().collect();
            gone.iter().filter_map(|key| resources.remove(key)).collect()
        };
        for followed in gone {
            followed.tasks.stop().await;
            let resource = &followed.served.resource;
            let mut graph = self.graph.lock();
            let objects = graph.of_kind(&resource.api_version, &resource.kind);
            let items: Vec<Item> = objects.iter().flat_map(|uid| graph.remove(uid)).collect();
            drop(graph);
            items.into_iter().for_each(|item| self.queue.add(item));
        }
        for (key, served) in wanted {
            if self.resources.read().contains_key(&key) {
                continue;
            }
            let tasks = tasks.child("garbage collector informer");
            let informer = self.informers.metadata(&served.resource, &tasks);
            self.feed(&informer, served);
            self.resources.write().insert(key, Followed { served: served.clone(), informer, tasks });
        }
        discovered.failed.is_empty()
    }

    fn feed(self: &Arc<Self>, informer: &Informer<Metadata>, served: &Served) {
        let (api_version, kind): (Arc<str>, Arc<str>) =
            (served.resource.api_version.as_str().into(), served.resource.kind.as_str().into());
        let announces_resources = matches!(&*kind, "CustomResourceDefinition" | "APIService");
        let collector = Arc::downgrade(self);
        informer.on_change(move |change: &Change<Metadata>| {
            let Some(collector) = collector.upgrade() else { return };
            let meta = &change.object().metadata;
            let items = if change.is_deleted() {
                collector.graph.lock().remove(uid(meta))
            } else {
                collector.graph.lock().apply(&api_version, &kind, meta)
            };
            items.into_iter().for_each(|item| collector.queue.add(item));
            if announces_resources {
                collector.rediscover.notify_one();
            }
        });
    }

    async fn synced(&self) {
        let informers: Vec<_> = self.resources.read().values().map(|followed| followed.informer.clone()).collect();
        for informer in informers {
            informer.synced().await;
        }
    }

    /// The resource of a kind. The version asked for may be another one than is followed.
    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Served> {
        let resources = self.resources.read();
        if let Some(followed) = resources.get(&(api_version.to_owned(), kind.to_owned())) {
            return Some(followed.served.clone());
        }
        let group = |api_version: &str| api_version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        let wanted = group(api_version);
        let same =
            resources.values().find(|followed| followed.served.resource.kind == kind && followed.served.resource.group == wanted);
        same.map(|followed| followed.served.clone())
    }

    async fn sweep(&self, item: &Item) -> Result<Requeue> {
        match item {
            Item::Delete(uid) => self.look_at(uid).await?,
            Item::Orphan(uid) => self.orphan(uid).await?,
        }
        Ok(Requeue::OnChange)
    }
}

fn kind_of(served: &Served) -> (String, String) {
    (served.resource.api_version.clone(), served.resource.kind.clone())
}

/// Events are many, short-lived, and never owned.
fn is_ignored(served: &Served) -> bool {
    served.resource.plural == "events" && matches!(&*served.resource.group, "" | "events.k8s.io")
}
