//! The informers of one process: one watch per kind, whatever the number of its users.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use corten_task::Tasks;
use kube::api::ApiResource;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::informer::follow::{Follow, follow};
use crate::informer::{Informer, Object};

/// What a [`Informers::metadata`] informer keeps: the metadata of an object without labels, annotations and managed
/// fields.
pub type Metadata = PartialObjectMeta<kube::api::DynamicObject>;

/// Which objects of a kind an informer follows. `"spec.nodeName=n1".into()` is a field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// A field selector; empty for none.
    pub fields: String,
    /// A label selector; empty for none.
    pub labels: String,
}

impl From<&str> for Selection {
    fn from(fields: &str) -> Self {
        Self { fields: fields.into(), ..Self::default() }
    }
}

impl From<String> for Selection {
    fn from(fields: String) -> Self {
        Self { fields, ..Self::default() }
    }
}

impl Selection {
    fn config(&self) -> watcher::Config {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        watcher::Config { label_selector: some(&self.labels), field_selector: some(&self.fields), ..watcher::Config::default() }
    }
}

/// Kind, namespace (empty for all) and selection.
type Slot = (TypeId, String, Selection);

/// The informers of one process. Clones share them.
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    tasks: Tasks,
    started: Mutex<HashMap<Slot, Box<dyn Any + Send + Sync>>>,
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informers").field("started", &self.inner.started.lock().len()).finish_non_exhaustive()
    }
}

impl Informers {
    /// No informer yet; those to come watch through `client` in `tasks`.
    #[must_use]
    pub fn new(client: Client, tasks: &Tasks) -> Self {
        let tasks = tasks.child("informers");
        Self { inner: Arc::new(Inner { client, tasks, started: Mutex::default() }) }
    }

    /// The client the informers watch through.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The informer of all objects of kind `K`. The first call starts it.
    #[must_use]
    pub fn of<K>(&self) -> Informer<K>
    where
        K: Object<DynamicType = ()>,
    {
        self.select(Selection::default())
    }

    /// The informer of the objects of kind `K` that `selection` covers. The first call starts it.
    #[must_use]
    pub fn select<K>(&self, selection: impl Into<Selection>) -> Informer<K>
    where
        K: Object<DynamicType = ()>,
    {
        self.shared(Api::all(self.inner.client.clone()), "", selection.into())
    }

    /// The informer of the objects of kind `K` in `namespace` that `selection` covers. The first call starts it.
    #[must_use]
    pub fn select_in<K>(&self, namespace: &str, selection: impl Into<Selection>) -> Informer<K>
    where
        K: Object<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.shared(Api::namespaced(self.inner.client.clone(), namespace), namespace, selection.into())
    }

    fn shared<K: Object<DynamicType = ()>>(&self, api: Api<K>, namespace: &str, selection: Selection) -> Informer<K> {
        let config = selection.config();
        let mut started = self.inner.started.lock();
        let slot = started.entry((TypeId::of::<K>(), namespace.into(), selection)).or_insert_with(|| {
            let informer = Informer::<K>::new();
            let following = Follow { api, config, trim: drop_managed_fields::<K>, what: K::plural(&()).into_owned() };
            self.inner.tasks.spawn("informer", follow(following, informer.clone()));
            Box::new(informer)
        });
        slot.downcast_ref::<Informer<K>>().expect("the slot of a type holds an informer of that type").clone()
    }

    /// A metadata informer of any resource, built-in or custom. It is not shared; it runs until `tasks` stops, so that
    /// it can end when the resource is no longer served.
    #[must_use]
    pub fn metadata(&self, resource: &ApiResource, tasks: &Tasks) -> Informer<Metadata> {
        let informer = Informer::<Metadata>::new();
        let following = Follow {
            api: Api::all_with(self.inner.client.clone(), resource),
            config: watcher::Config::default(),
            trim: keep_bare_metadata,
            what: format!("{} (metadata of {})", resource.plural, resource.api_version),
        };
        tasks.spawn("metadata informer", follow(following, informer.clone()));
        informer
    }
}

fn drop_managed_fields<K: kube::Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn keep_bare_metadata(object: &mut Metadata) {
    object.metadata.managed_fields = None;
    object.metadata.labels = None;
    object.metadata.annotations = None;
    object.types = None;
}
