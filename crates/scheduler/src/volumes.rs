//! `VolumeBinding`, `VolumeZone` and `VolumeRestrictions` in what this cluster can decide: claims have to exist and be
//! bound (or wait for a consumer), and bound volumes have to be reachable from the node.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::node::NodeView;
use crate::plugins::Rejection;
use crate::pod::PodView;
use crate::selector::node_matches;

/// The caches that know volumes.
#[derive(Clone, Debug)]
pub struct Volumes {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
}

/// What one pod's volumes demand of a node.
#[derive(Debug, Default)]
pub struct VolumeFilter {
    before: Option<Rejection>,
    /// For each bound volume the terms of which one has to match.
    affinities: Vec<Vec<NodeSelectorTerm>>,
}

impl Volumes {
    /// Caches shared with the process's other components.
    pub fn new(informers: &Informers) -> Self {
        Self { claims: informers.of(), volumes: informers.of(), classes: informers.of() }
    }

    /// Resolves when all three are filled.
    pub async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
    }

    /// Calls `changed` whenever a claim, volume or class changes.
    pub fn on_change(&self, changed: impl Fn() + Clone + Send + Sync + 'static) {
        let (one, two, three) = (changed.clone(), changed.clone(), changed);
        self.claims.on_change(move |_| one());
        self.volumes.on_change(move |_| two());
        self.classes.on_change(move |_| three());
    }

    /// What the pod's claims demand.
    pub fn filter_of(&self, pod: &PodView) -> VolumeFilter {
        let mut filter = VolumeFilter::default();
        for volume in pod.spec().and_then(|s| s.volumes.as_ref()).into_iter().flatten() {
            let ephemeral = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.key.name, volume.name));
            let Some(name) = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone()).or(ephemeral) else {
                continue;
            };
            let key = Key { namespace: pod.key.namespace.clone(), name: name.as_str().into() };
            match self.claims.get(&key) {
                None => return VolumeFilter::never(format!("persistentvolumeclaim \"{name}\" not found")),
                Some(claim) if claim.metadata.deletion_timestamp.is_some() => {
                    return VolumeFilter::never(format!("persistentvolumeclaim \"{name}\" is being deleted"));
                }
                Some(claim) => match self.judge(&claim) {
                    Ok(terms) => filter.affinities.extend(terms),
                    Err(why) => return VolumeFilter::never(why.to_owned()),
                },
            }
        }
        filter
    }

    /// The node terms of the volume behind a claim; `None` when it may be anywhere.
    fn judge(&self, claim: &Arc<PersistentVolumeClaim>) -> Result<Option<Vec<NodeSelectorTerm>>, &'static str> {
        let spec = claim.spec.as_ref();
        match spec.and_then(|s| s.volume_name.as_deref()).filter(|name| !name.is_empty()) {
            Some(volume) => {
                let volume = self.volumes.get(&Key::cluster(volume));
                let affinity = volume.as_ref().and_then(|v| v.spec.as_ref()).and_then(|s| s.node_affinity.as_ref());
                Ok(affinity.and_then(|a| a.required.as_ref()).map(|r| r.node_selector_terms.clone()))
            }
            None => {
                let class = spec.and_then(|s| s.storage_class_name.as_deref()).unwrap_or_default();
                let class = self.classes.get(&Key::cluster(class));
                let waits = class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
                // No provisioner runs here that a consumer could wait for: the claim stays unbound either way.
                Err(if waits {
                    "node(s) didn't find available persistent volumes to bind"
                } else {
                    "pod has unbound immediate PersistentVolumeClaims"
                })
            }
        }
    }
}

impl VolumeFilter {
    fn never(why: String) -> Self {
        Self { before: Some(Rejection::final_("VolumeBinding", why)), affinities: Vec::new() }
    }

    /// The reason that holds for every node.
    pub fn before(&self) -> Option<Rejection> {
        self.before.clone()
    }

    /// Refuses nodes from which a bound volume cannot be reached.
    pub fn filter(&self, node: &NodeView) -> Option<Rejection> {
        let labels: &BTreeMap<String, String> = node.labels();
        let reached = |terms: &Vec<NodeSelectorTerm>| terms.iter().any(|term| node_matches(term, &node.name, labels));
        let refused = !self.affinities.iter().all(reached);
        refused.then(|| Rejection::final_("VolumeBinding", "node(s) didn't match PersistentVolume's node affinity"))
    }
}
