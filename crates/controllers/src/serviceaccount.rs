//! Every namespace has a ServiceAccount `default`, for pods that name none.

use std::sync::Arc;

use corten_client::{Change, Client, Informer, Key, Queue, Requeue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use crate::context::{Context, synced};
use crate::error::{During, Result, exists_is_fine, is_namespace_terminating};

const DEFAULT: &str = "default";

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller =
        Arc::new(Controller { client: ctx.client.clone(), namespaces: ctx.informers.of(), accounts: ctx.informers.of() });
    controller.namespaces.on_change({
        let queue = queue.clone();
        move |change: &Change<Namespace>| queue.add(Key::of(&**change.object()))
    });
    controller.accounts.on_change({
        let queue = queue.clone();
        move |change: &Change<ServiceAccount>| {
            let key = Key::of(&**change.object());
            if change.is_deleted() && &*key.name == DEFAULT {
                queue.add(Key::cluster(key.namespace));
            }
        }
    });
    let synced = synced!(controller.namespaces, controller.accounts);
    ctx.run("serviceaccount", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(namespace) = self.namespaces.get(key).filter(|namespace| is_active(namespace)) else {
            return Ok(Requeue::OnChange);
        };
        drop(namespace);
        if self.accounts.get(&Key::new(&key.name, DEFAULT)).is_some() {
            return Ok(Requeue::OnChange);
        }
        let metadata = ObjectMeta { name: Some(DEFAULT.into()), namespace: Some(key.name.to_string()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match exists_is_fine(api.create(&PostParams::default(), &account).await) {
            Err(err) if !is_namespace_terminating(&err) => Err(err).during("create the default service account of", key),
            _ => Ok(Requeue::OnChange),
        }
    }
}

/// Whether things may be created in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}
