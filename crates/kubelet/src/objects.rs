//! ConfigMaps and Secrets that pods of this node refer to. Each is watched by name while a pod needs it, and only then:
//! a node may read nothing else, and a change wakes exactly the pods that use it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use corten_client::Client;
use corten_task::Tasks;
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Wakes one pod's worker, and tells it whether what its volumes show may have changed.
#[derive(Debug, Default)]
pub struct Wake {
    notify: Notify,
    content: AtomicBool,
}

impl Wake {
    /// Something about the pod changed.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// The content of its volumes or its environment may have changed.
    pub fn content_changed(&self) {
        self.content.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether the content changed since the last call.
    pub fn take_content(&self) -> bool {
        self.content.swap(false, Ordering::SeqCst)
    }

    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// Why an object is not to be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    #[error("failed to get {kind} {namespace}/{name}: {why}")]
    Failed { kind: &'static str, namespace: String, name: String, why: String },
}

/// The kinds that can be looked up.
pub trait Named:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// The word for it in messages.
    const WORD: &'static str;
    fn is_immutable(&self) -> bool;
}

impl Named for ConfigMap {
    const WORD: &'static str = "configmap";
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Named for Secret {
    const WORD: &'static str = "secret";
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// The objects of one kind that are in use.
pub struct Objects<K> {
    client: Client,
    tasks: Tasks,
    entries: Mutex<HashMap<(String, String), Entry<K>>>,
}

type Value<K> = Option<Result<Arc<K>, ObjectError>>;
type Users = Arc<Mutex<Vec<Weak<Wake>>>>;

struct Entry<K> {
    value: watch::Receiver<Value<K>>,
    users: Users,
    /// Dropped with the entry: the watch ends.
    _watch: DropGuard,
}

impl<K: Named> Objects<K> {
    pub fn new(client: Client, tasks: Tasks) -> Self {
        Self { client, tasks, entries: Mutex::default() }
    }

    /// The object, as the API has it now. `user` is woken at every later change, and when the object appears.
    pub async fn get(&self, namespace: &str, name: &str, user: &Arc<Wake>) -> Result<Arc<K>, ObjectError> {
        let mut value = self.entry(namespace, name, user);
        let failed = |why: &str| ObjectError::Failed {
            kind: K::WORD,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            why: why.to_owned(),
        };
        let known = value.wait_for(Option::is_some).await.map_err(|_| failed("the kubelet is stopping"))?;
        known.clone().unwrap_or_else(|| Err(failed("no answer")))
    }

    /// Forgets that `user` needs anything; watches nobody needs any more end.
    pub fn release(&self, user: &Arc<Wake>) {
        self.entries.lock().retain(|_, entry| {
            let mut users = entry.users.lock();
            users.retain(|known| known.upgrade().is_some_and(|known| !Arc::ptr_eq(&known, user)));
            !users.is_empty()
        });
    }

    fn entry(&self, namespace: &str, name: &str, user: &Arc<Wake>) -> watch::Receiver<Value<K>> {
        let mut entries = self.entries.lock();
        let entry = entries.entry((namespace.to_owned(), name.to_owned())).or_insert_with(|| {
            let (sender, value) = watch::channel(None);
            let users = Users::default();
            let stop = CancellationToken::new();
            let follow = follow(self.client.clone(), namespace.to_owned(), name.to_owned(), sender, users.clone());
            let stopped = stop.clone();
            self.tasks.spawn("object watch", async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = follow => {}
                }
            });
            Entry { value, users, _watch: stop.drop_guard() }
        });
        let mut users = entry.users.lock();
        if !users.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(user))) {
            users.push(Arc::downgrade(user));
        }
        entry.value.clone()
    }
}

async fn follow<K: Named>(client: Client, namespace: String, name: String, value: watch::Sender<Value<K>>, users: Users) {
    let api: Api<K> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    while let Some(event) = events.next().await {
        let absent = || Err(ObjectError::NotFound { kind: K::WORD, name: name.clone() });
        let next = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = Some(object);
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take().map_or_else(absent, |object| Ok(Arc::new(object))),
            Ok(watcher::Event::Apply(object)) => Ok(Arc::new(object)),
            Ok(watcher::Event::Delete(_)) => absent(),
            // A watch that breaks is taken up again; only what was never read is an error for the pod.
            Err(_) if value.borrow().as_ref().is_some_and(Result::is_ok) => continue,
            Err(err) => Err(ObjectError::Failed {
                kind: K::WORD,
                namespace: namespace.clone(),
                name: name.clone(),
                why: crate::api_error_text(&err),
            }),
        };
        let immutable = next.as_ref().is_ok_and(|object| object.is_immutable());
        // Whoever asked first is waiting for the answer anyway.
        let first = value.borrow().is_none();
        let changed = !matches!((&*value.borrow(), &next), (Some(Ok(old)), Ok(new)) if old.meta().resource_version == new.meta().resource_version);
        value.send_replace(Some(next));
        if changed && !first {
            for user in users.lock().iter().filter_map(Weak::upgrade) {
                user.content_changed();
            }
        }
        if immutable {
            // It can only be deleted, which running pods do not notice. The value must outlive this task.
            std::future::pending::<()>().await;
        }
    }
}
