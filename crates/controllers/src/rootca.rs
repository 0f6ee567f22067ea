//! Publishes the CA of the API server in every namespace, as ConfigMap `kube-root-ca.crt`, for pods to verify the server with.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_client::{Change, Client, Informer, Informers, Key, Queue, Requeue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use crate::context::{Context, synced};
use crate::error::{During, Result, exists_is_fine, is_namespace_terminating};
use crate::serviceaccount::is_active;

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal \
    service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

struct Controller {
    client: Client,
    ca: String,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

/// Starts the controller, if there is a CA to publish.
pub(crate) fn start(ctx: &Context) {
    if ctx.config.root_ca.is_empty() {
        return;
    }
    let queue: Queue = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        ca: ctx.config.root_ca.clone(),
        namespaces: ctx.informers.of(),
        maps: own_maps(&ctx.informers),
    });
    controller.namespaces.on_change({
        let queue = queue.clone();
        move |change: &Change<Namespace>| queue.add(Key::of(&**change.object()))
    });
    controller.maps.on_change({
        let queue = queue.clone();
        move |change: &Change<ConfigMap>| {
            let key = Key::of(&**change.object());
            // What it should say is settled by the namespaces at the start; later only a change of it matters.
            if change.is_deleted() || change.old().is_some() {
                queue.add(Key::cluster(key.namespace));
            }
        }
    });
    let synced = synced!(controller.namespaces, controller.maps);
    ctx.run("root-ca-publisher", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

/// Other ConfigMaps may be large, and nobody here reads them.
fn own_maps(informers: &Informers) -> Informer<ConfigMap> {
    informers.select(format!("metadata.name={NAME}"))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        if !self.namespaces.get(key).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Requeue::OnChange);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let written = match self.maps.get(&Key::new(&key.name, NAME)) {
            None => exists_is_fine(api.create(&PostParams::default(), &self.wanted(ObjectMeta::default(), &key.name)).await),
            Some(current) => {
                let wanted = self.wanted(current.metadata.clone(), &key.name);
                if wanted == *current {
                    return Ok(Requeue::OnChange);
                }
                api.replace(NAME, &PostParams::default(), &wanted).await.map(Some)
            }
        };
        match written {
            Err(err) if !is_namespace_terminating(&err) => Err(err).during("publish the root CA in", key),
            _ => Ok(Requeue::OnChange),
        }
    }

    fn wanted(&self, mut metadata: ObjectMeta, namespace: &str) -> ConfigMap {
        metadata.name = Some(NAME.into());
        metadata.namespace = Some(namespace.into());
        metadata.annotations.get_or_insert_default().insert(DESCRIPTION.into(), TEXT.into());
        ConfigMap { metadata, data: Some(BTreeMap::from([(FILE.into(), self.ca.clone())])), ..ConfigMap::default() }
    }
}
