//! Lets claims, volumes and classes of volume attributes that are being deleted go, once nothing uses them (finalizers
//! `kubernetes.io/pvc-protection`, `pv-protection` and `vac-protection`), and puts the finalizer on those that lack it.

use std::sync::Arc;

use corten_client::{Change, Client, Informer, Key, Object, Queue, Requeue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine};
use crate::meta::{has_finalizer, is_deleting, name, namespace};
use crate::pods::{is_terminal, node_name};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";
/// The name of the index of pods by the claims they use.
const BY_CLAIM: &str = "claim";
/// The name of the indexes of claims and volumes by the classes of attributes they use.
const BY_CLASS: &str = "attributes-class";

struct Claims {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

struct Volumes {
    client: Client,
    volumes: Informer<PersistentVolume>,
}

struct Classes {
    client: Client,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

/// Starts the controller of claims.
pub(crate) fn start_claims(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Claims { client: ctx.client.clone(), claims: ctx.informers.of(), pods: ctx.informers.of() });
    controller.pods.index(BY_CLAIM, |pod| claims_of(pod).iter().map(ToString::to_string).collect());
    watch_own(&controller.claims, &queue);
    controller.pods.on_change({
        let queue = queue.clone();
        move |change: &Change<Pod>| {
            let pod = change.object();
            if change.is_deleted() || is_terminal(pod) {
                claims_of(pod).into_iter().for_each(|claim| queue.add(claim));
            }
        }
    });
    let synced = synced!(controller.claims, controller.pods);
    ctx.run("pvc-protection", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

/// Starts the controller of volumes.
pub(crate) fn start_volumes(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Volumes { client: ctx.client.clone(), volumes: ctx.informers.of() });
    watch_own(&controller.volumes, &queue);
    let synced = synced!(controller.volumes);
    ctx.run("pv-protection", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

/// Starts the controller of classes of volume attributes.
pub(crate) fn start_classes(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Classes {
        client: ctx.client.clone(),
        classes: ctx.informers.of(),
        claims: ctx.informers.of(),
        volumes: ctx.informers.of(),
    });
    watch_own(&controller.classes, &queue);
    watch_users(&controller.claims, &queue, classes_of_claim);
    watch_users(&controller.volumes, &queue, |volume| class_of_volume(volume).into_iter().collect());
    let synced = synced!(controller.classes, controller.claims, controller.volumes);
    ctx.run("vac-protection", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

/// Indexes the users of classes, and looks again at a class when one of them may have let it go.
fn watch_users<K: Object>(informer: &Informer<K>, queue: &Queue, classes: fn(&K) -> Vec<&str>) {
    informer.index(BY_CLASS, move |user| classes(user).into_iter().map(ToOwned::to_owned).collect());
    let queue = queue.clone();
    informer.on_change(move |change: &Change<K>| {
        let (old, new) = match change {
            Change::Applied { old: None, .. } => return,
            Change::Applied { old: Some(old), new } => (old, classes(new)),
            Change::Deleted(old) => (old, Vec::new()),
        };
        let left = classes(old).into_iter().filter(|class| !new.contains(class));
        left.for_each(|class| queue.add(Key::new("", class)));
    });
}

/// The classes that a claim asks for, has, or is on the way to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let asked = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let modify = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = modify.and_then(|modify| modify.target_volume_attributes_class_name.as_deref());
    asked.into_iter().chain(current).chain(target).collect()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

fn watch_own<K: Object>(informer: &Informer<K>, queue: &Queue) {
    let queue = queue.clone();
    informer.on_change(move |change: &Change<K>| {
        if !change.is_deleted() {
            queue.add(Key::of(&**change.object()));
        }
    });
}

/// The claims that a pod mounts, those of its ephemeral volumes included.
fn claims_of(pod: &Pod) -> Vec<Key> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let claim = named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", name(&pod.metadata), volume.name)))?;
        Some(Key::new(namespace(&pod.metadata), claim))
    };
    volumes.filter_map(claim).collect()
}

/// The finalizers that `meta` should have, or none when it has them.
fn plan(meta: &ObjectMeta, finalizer: &str, in_use: bool) -> Option<Vec<String>> {
    let has = has_finalizer(meta, finalizer);
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    match (is_deleting(meta), has) {
        (true, true) if !in_use => finalizers.retain(|known| known != finalizer),
        (false, false) => finalizers.push(finalizer.into()),
        _ => return None,
    }
    Some(finalizers)
}

impl Claims {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(claim) = self.claims.get(key) else { return Ok(Requeue::OnChange) };
        // A pod that is not bound yet uses nothing; one that has ended, no more.
        let uses = |pod: &Arc<Pod>| !is_terminal(pod) && !node_name(pod).is_empty();
        let in_use = self.pods.indexed(BY_CLAIM, &key.to_string()).iter().any(uses);
        if let Some(finalizers) = plan(&claim.metadata, CLAIM, in_use) {
            let mut next = PersistentVolumeClaim::clone(&claim);
            next.metadata.finalizers = Some(finalizers);
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
            gone_is_fine(api.replace(&key.name, &PostParams::default(), &next).await)
                .during("update the finalizers of claim", key)?;
        }
        Ok(Requeue::OnChange)
    }
}

impl Volumes {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Requeue::OnChange) };
        let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if let Some(finalizers) = plan(&volume.metadata, VOLUME, bound) {
            let mut next = PersistentVolume::clone(&volume);
            next.metadata.finalizers = Some(finalizers);
            let api: Api<PersistentVolume> = Api::all(self.client.clone());
            gone_is_fine(api.replace(&key.name, &PostParams::default(), &next).await)
                .during("update the finalizers of volume", key)?;
        }
        Ok(Requeue::OnChange)
    }
}

impl Classes {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(class) = self.classes.get(key) else { return Ok(Requeue::OnChange) };
        let in_use =
            !self.claims.indexed(BY_CLASS, &key.name).is_empty() || !self.volumes.indexed(BY_CLASS, &key.name).is_empty();
        if let Some(finalizers) = plan(&class.metadata, CLASS, in_use) {
            let mut next = VolumeAttributesClass::clone(&class);
            next.metadata.finalizers = Some(finalizers);
            let api: Api<VolumeAttributesClass> = Api::all(self.client.clone());
            gone_is_fine(api.replace(&key.name, &PostParams::default(), &next).await)
                .during("update the finalizers of class", key)?;
        }
        Ok(Requeue::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::World;

    #[tokio::test(start_paused = true)]
    async fn a_claim_in_use_waits_for_its_pod() {
        let (claims, pods) = ("/api/v1/namespaces/default/persistentvolumeclaims", "/api/v1/namespaces/default/pods");
        let world = World::new(&[start_claims]);
        world.api.create(
            claims,
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {}}),
        );
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
        world.api.create(
            pods,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db"},
            "spec": {"nodeName": "n1", "containers": [], "volumes": volumes}}),
        );
        world.settle().await;
        let data = format!("{claims}/data");
        assert_eq!(world.api.get(&data).unwrap()["metadata"]["finalizers"], json!([CLAIM]));
        world.api.delete(&data);
        world.settle().await;
        assert!(world.api.get(&data).is_some());
        world.api.edit(&format!("{pods}/db"), |pod| pod["status"]["phase"] = json!("Succeeded"));
        world.settle().await;
        assert!(world.api.get(&data).is_none());
        world.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_class_in_use_waits_for_its_claims() {
        let (classes, claims) =
            ("/apis/storage.k8s.io/v1/volumeattributesclasses", "/api/v1/namespaces/default/persistentvolumeclaims");
        let world = World::new(&[start_classes]);
        for name in ["gold", "unused"] {
            let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": name},
                "driverName": "d"});
            world.api.create(classes, class);
        }
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"volumeAttributesClassName": "gold"}});
        world.api.create(claims, claim);
        world.settle().await;
        let (gold, unused) = (format!("{classes}/gold"), format!("{classes}/unused"));
        assert_eq!(world.api.get(&gold).unwrap()["metadata"]["finalizers"], json!([CLASS]));
        world.api.delete(&gold);
        world.api.delete(&unused);
        world.settle().await;
        assert!(world.api.get(&unused).is_none());
        assert!(world.api.get(&gold).is_some());
        world.api.edit(&format!("{claims}/data"), |claim| {
            claim["spec"]["volumeAttributesClassName"] = json!("silver");
            claim["status"] = json!({"currentVolumeAttributesClassName": "gold"});
        });
        world.settle().await;
        assert!(world.api.get(&gold).is_some(), "the volume still has the attributes of the class");
        world.api.edit(&format!("{claims}/data"), |claim| claim["status"] = json!({}));
        world.settle().await;
        assert!(world.api.get(&gold).is_none());
        world.stop().await;
    }

    #[test]
    fn a_bound_volume_is_kept() {
        let meta = |deleting: bool, finalizers: &[&str]| -> ObjectMeta {
            serde_json::from_value(
                json!({"deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"), "finalizers": finalizers}),
            )
            .unwrap()
        };
        assert_eq!(plan(&meta(false, &[]), VOLUME, true), Some(vec![VOLUME.into()]));
        assert_eq!(plan(&meta(false, &[VOLUME]), VOLUME, false), None);
        assert_eq!(plan(&meta(true, &[VOLUME]), VOLUME, true), None);
        assert_eq!(plan(&meta(true, &[VOLUME, "other"]), VOLUME, false), Some(vec!["other".into()]));
        assert_eq!(plan(&meta(true, &[]), VOLUME, false), None);
    }
}
