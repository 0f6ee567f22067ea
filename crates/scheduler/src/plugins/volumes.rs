//! `VolumeBinding`, `VolumeZone`, `VolumeRestrictions` and `NodeVolumeLimits`: where a pod's volumes can be.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use corten_api::quantity::Quantity;
use corten_client::Key;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, VolumeNodeAffinity};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::events::ClusterEvent;
use crate::framework::{Check, Cycle, Filter, Plugin, Prefilter};
use crate::pod::PodInfo;
use crate::selectors::{NodeTerms, covers};
use crate::state::{NodeId, REGION, State, ZONE};

const BOUND: &str = "pv.kubernetes.io/bind-completed";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What has to be done for a claim before its pod can be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Bind this volume to it.
    Bind {
        /// The claim.
        claim: Key,
        /// The volume.
        volume: String,
    },
    /// Have a volume made for it, for the chosen node.
    Provision {
        /// The claim.
        claim: Key,
    },
}

/// Decides for each claim of the pod that is still unbound what to do about it on `node`.
#[must_use]
pub fn decide(pod: &PodInfo, node: NodeId, state: &State) -> Vec<Decision> {
    let Ok(claims) = Claims::read(pod, state) else { return Vec::new() };
    let mut taken = BTreeSet::new();
    let decision = |(key, claim): &(Key, Arc<PersistentVolumeClaim>)| match find(claim, key, node, state, &taken) {
        Some(volume) => {
            taken.insert(volume.clone());
            Decision::Bind { claim: key.clone(), volume }
        }
        None => Decision::Provision { claim: key.clone() },
    };
    claims.waiting.iter().map(decision).collect()
}

/// Whether a claim has its volume.
#[must_use]
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()).is_some_and(|name| !name.is_empty());
    named && claim.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(BOUND))
}

/// The names of the claims a pod uses, and whether they are made for it.
pub fn claim_names(pod: &PodInfo) -> Vec<(Key, bool)> {
    let volumes = pod.spec().volumes.iter().flatten();
    let name = |volume: &k8s_openapi::api::core::v1::Volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some((claim.claim_name.clone(), false));
        }
        volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pod.key.name, volume.name), true))
    };
    volumes.filter_map(name).map(|(name, own)| (Key::new(&pod.key.namespace, name), own)).collect()
}

/// The claims of a pod, sorted.
struct Claims {
    bound: Vec<Arc<PersistentVolume>>,
    waiting: Vec<(Key, Arc<PersistentVolumeClaim>)>,
}

impl Claims {
    /// Reads them; the error is why no node will do.
    fn read(pod: &PodInfo, state: &State) -> Result<Self, String> {
        let (mut bound, mut waiting) = (Vec::new(), Vec::new());
        for (key, own) in claim_names(pod) {
            let name = &key.name;
            let Some(claim) = state.claims.get(&key) else {
                return Err(if own {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                } else {
                    format!("persistentvolumeclaim \"{name}\" not found")
                });
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let spec = claim.spec.clone().unwrap_or_default();
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
                let volume = spec.volume_name.unwrap_or_default();
                return Err(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""));
            }
            if is_bound(claim) {
                // A volume that the cache has not seen yet says nothing about nodes.
                bound.extend(spec.volume_name.and_then(|volume| state.volumes.get(volume.as_str()).cloned()));
                continue;
            }
            let class = spec.storage_class_name.as_deref().and_then(|class| state.classes.get(class));
            let delayed = class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
            // A claim that names its volume is bound to that by the controller, at once.
            if !delayed || spec.volume_name.is_some_and(|name| !name.is_empty()) {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
            waiting.push((key, claim.clone()));
        }
        Ok(Self { bound, waiting })
    }
}

/// `VolumeBinding`.
pub struct Binding;

struct Bindable<'a> {
    state: &'a State,
    claims: Claims,
}

impl Plugin for Binding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        match Claims::read(cycle.pod, cycle.state) {
            Err(reason) => Prefilter::Reject { reason },
            Ok(claims) if claims.bound.is_empty() && claims.waiting.is_empty() => Prefilter::Skip,
            Ok(claims) => Prefilter::Filter(Box::new(Bindable { state: cycle.state, claims })),
        }
    }

    fn helped_by(&self, event: &ClusterEvent, _pod: &PodInfo, _state: &State) -> bool {
        matches!(event, ClusterEvent::Storage | ClusterEvent::Node(_))
    }
}

impl Bindable<'_> {
    fn conflict(&self, node: NodeId) -> bool {
        let mut affinities =
            self.claims.bound.iter().map(|volume| volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()));
        !affinities.all(|affinity| reachable(affinity, node, self.state))
    }

    fn unfindable(&self, node: NodeId) -> bool {
        let mut taken = BTreeSet::new();
        !self.claims.waiting.iter().all(|(key, claim)| match find(claim, key, node, self.state, &taken) {
            Some(volume) => {
                taken.insert(volume);
                true
            }
            None => provisionable(claim, node, self.state),
        })
    }
}

impl Filter for Bindable<'_> {
    fn check(&self, node: NodeId) -> Check {
        if self.conflict(node) || self.unfindable(node) { Check::Unresolvable } else { Check::Pass }
    }

    fn reasons(&self, node: NodeId) -> Vec<Cow<'static, str>> {
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        if self.conflict(node) {
            reasons.push("node(s) didn't match PersistentVolume's node affinity".into());
        }
        if self.unfindable(node) {
            reasons.push("node(s) didn't find available persistent volumes to bind".into());
        }
        reasons
    }
}

/// Whether a volume with this affinity can be used on `node`.
fn reachable(affinity: Option<&VolumeNodeAffinity>, node: NodeId, state: &State) -> bool {
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return true };
    let terms = NodeTerms::new(required, &state.interner);
    terms.matches(&state.nodes.labels[node], state.nodes.name_id[node], &state.interner)
}

/// The smallest existing volume that satisfies the claim on `node`.
fn find(claim: &PersistentVolumeClaim, key: &Key, node: NodeId, state: &State, taken: &BTreeSet<String>) -> Option<String> {
    let spec = claim.spec.as_ref()?;
    let wanted = amount(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let candidates = state.volumes.iter().filter_map(|(name, volume)| {
        let offered = volume.spec.as_ref()?;
        let free = match &offered.claim_ref {
            Some(holder) => holder.namespace.as_deref() == Some(&*key.namespace) && holder.name.as_deref() == Some(&*key.name),
            None => volume.status.as_ref().and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Available"),
        };
        let promised = state.promised.get(name).is_some_and(|claim| claim != key);
        let modes = |modes: &Option<Vec<String>>| modes.clone().unwrap_or_default();
        let enough = amount(offered.capacity.as_ref());
        let fits = free
            && !promised
            && !taken.contains(&**name)
            && offered.storage_class_name.as_deref().unwrap_or_default()
                == spec.storage_class_name.as_deref().unwrap_or_default()
            && mode(&offered.volume_mode) == mode(&spec.volume_mode)
            && modes(&spec.access_modes).iter().all(|mode| modes(&offered.access_modes).contains(mode))
            && spec.selector.as_ref().is_none_or(|selector| covers(Some(selector), volume.metadata.labels.as_ref()))
            && enough >= wanted
            && reachable(offered.node_affinity.as_ref(), node, state);
        fits.then(|| (enough, name.to_string()))
    });
    candidates.min().map(|(_, name)| name)
}

/// Whether a volume can be made for the claim on `node`.
fn provisionable(claim: &PersistentVolumeClaim, node: NodeId, state: &State) -> bool {
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    let Some(class) = class.and_then(|class| state.classes.get(class)) else { return false };
    let class: &StorageClass = class;
    if class.provisioner == NO_PROVISIONER {
        return false;
    }
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    topologies.is_empty()
        || topologies.iter().any(|term| {
            term.match_label_expressions.iter().flatten().all(|requirement| {
                let value = state.interner.lookup(&requirement.key).and_then(|key| state.label(node, key));
                value.is_some_and(|value| requirement.values.iter().any(|known| *known == *state.interner.text(value)))
            })
        })
}

fn amount(amounts: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>) -> i64 {
    let storage = amounts.and_then(|amounts| amounts.get("storage"));
    storage.and_then(|storage| Quantity::parse(&storage.0).ok()).map_or(0, |quantity| quantity.value())
}

/// `VolumeZone`: volumes whose labels name a zone or region.
pub struct Zone;

struct Zoned<'a> {
    state: &'a State,
    volumes: Vec<Arc<PersistentVolume>>,
}

impl Plugin for Zone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        let Ok(claims) = Claims::read(cycle.pod, cycle.state) else { return Prefilter::Skip };
        let labelled = |volume: &Arc<PersistentVolume>| {
            volume.metadata.labels.as_ref().is_some_and(|labels| [ZONE, REGION].iter().any(|key| labels.contains_key(*key)))
        };
        let volumes: Vec<_> = claims.bound.into_iter().filter(labelled).collect();
        if volumes.is_empty() { Prefilter::Skip } else { Prefilter::Filter(Box::new(Zoned { state: cycle.state, volumes })) }
    }

    fn helped_by(&self, event: &ClusterEvent, _pod: &PodInfo, _state: &State) -> bool {
        matches!(event, ClusterEvent::Storage | ClusterEvent::Node(_))
    }
}

impl Filter for Zoned<'_> {
    fn check(&self, node: NodeId) -> Check {
        let fits = |volume: &PersistentVolume| {
            [ZONE, REGION].iter().all(|key| {
                let Some(allowed) = volume.metadata.labels.as_ref().and_then(|labels| labels.get(*key)) else { return true };
                let own = self.state.interner.lookup(key).and_then(|key| self.state.label(node, key));
                // Several zones are joined by two underscores.
                own.is_some_and(|own| allowed.split("__").any(|zone| zone == self.state.interner.text(own)))
            })
        };
        if self.volumes.iter().all(|volume| fits(volume)) { Check::Pass } else { Check::Unresolvable }
    }

    fn reasons(&self, _node: NodeId) -> Vec<Cow<'static, str>> {
        vec!["node(s) had no available volume zone".into()]
    }
}

/// `VolumeRestrictions`: a claim that only one pod may use.
pub struct Restrictions;

struct Exclusive<'a> {
    state: &'a State,
    claims: Vec<Key>,
}

impl Plugin for Restrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        let exclusive = |key: &Key| {
            let modes = cycle.state.claims.get(key).and_then(|claim| claim.spec.as_ref()?.access_modes.as_ref());
            modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
        };
        let claims: Vec<Key> = claim_names(cycle.pod).into_iter().map(|(key, _)| key).filter(exclusive).collect();
        if claims.is_empty() { Prefilter::Skip } else { Prefilter::Filter(Box::new(Exclusive { state: cycle.state, claims })) }
    }

    fn helped_by(&self, event: &ClusterEvent, pod: &PodInfo, _state: &State) -> bool {
        let ClusterEvent::PodRemoved(gone, _) = event else { return false };
        let freed = claim_names(gone);
        claim_names(pod).iter().any(|claim| freed.iter().any(|(key, _)| *key == claim.0))
    }
}

impl Filter for Exclusive<'_> {
    fn check(&self, node: NodeId) -> Check {
        let uses = |other: &Arc<PodInfo>| claim_names(other).iter().any(|(key, _)| self.claims.contains(key));
        // Wherever it is: the claim is for one pod in the whole cluster. Only here preemption would help.
        if self.state.nodes.placed[node].iter().any(uses) {
            return Check::Unschedulable;
        }
        let elsewhere = self.state.known_order().iter().any(|node| self.state.nodes.placed[*node].iter().any(uses));
        if elsewhere { Check::Unresolvable } else { Check::Pass }
    }

    fn reasons(&self, _node: NodeId) -> Vec<Cow<'static, str>> {
        vec!["node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode".into()]
    }
}

/// `NodeVolumeLimits`: how many volumes of a CSI driver a node can take.
pub struct Limits;

struct Limited<'a> {
    state: &'a State,
    /// Driver and volume handle.
    wanted: BTreeSet<(String, String)>,
}

impl Plugin for Limits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> Prefilter<'a> {
        let wanted = handles(cycle.pod, cycle.state);
        if wanted.is_empty() { Prefilter::Skip } else { Prefilter::Filter(Box::new(Limited { state: cycle.state, wanted })) }
    }

    fn helped_by(&self, event: &ClusterEvent, _pod: &PodInfo, _state: &State) -> bool {
        matches!(event, ClusterEvent::Storage | ClusterEvent::PodRemoved(..) | ClusterEvent::Node(_))
    }
}

impl Filter for Limited<'_> {
    fn check(&self, node: NodeId) -> Check {
        let Some(drivers) = self.state.csi_nodes.get(&self.state.nodes.name[node]) else { return Check::Pass };
        for driver in &drivers.spec.drivers {
            let Some(limit) = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count) else { continue };
            let of_driver = |handle: &&(String, String)| handle.0 == driver.name;
            if !self.wanted.iter().any(|handle| of_driver(&handle)) {
                continue;
            }
            let mut used: BTreeSet<(String, String)> = self.wanted.iter().filter(of_driver).cloned().collect();
            for other in &self.state.nodes.placed[node] {
                used.extend(handles(other, self.state).iter().filter(of_driver).cloned());
            }
            if used.len() > usize::try_from(limit).unwrap_or(0) {
                return Check::Unschedulable;
            }
        }
        Check::Pass
    }

    fn reasons(&self, _node: NodeId) -> Vec<Cow<'static, str>> {
        vec!["node(s) exceed max volume count".into()]
    }
}

/// The CSI volumes a pod uses. One that has yet to be made counts under the name of its claim.
fn handles(pod: &PodInfo, state: &State) -> BTreeSet<(String, String)> {
    let handle = |(key, _): (Key, bool)| {
        let spec = state.claims.get(&key)?.spec.as_ref()?;
        let volume = spec.volume_name.as_deref().and_then(|name| state.volumes.get(name));
        if let Some(csi) = volume.and_then(|volume| volume.spec.as_ref()?.csi.as_ref()) {
            return Some((csi.driver.clone(), csi.volume_handle.clone()));
        }
        let class = state.classes.get(spec.storage_class_name.as_deref()?)?;
        volume.is_none().then(|| (class.provisioner.clone(), key.to_string()))
    };
    claim_names(pod).into_iter().filter_map(handle).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, pod};
    use super::*;

    fn cluster(class: serde_json::Value, claim: serde_json::Value, volumes: &[serde_json::Value]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, zone) in [("a", "x"), ("b", "y")] {
            cluster.node(name, serde_json::json!({"metadata": {"labels": {ZONE: zone}}}));
        }
        let state = &mut cluster.state;
        state.classes.insert("fast".into(), Arc::new(serde_json::from_value(class).unwrap()));
        state.claims.insert(Key::new("ns", "data"), Arc::new(serde_json::from_value(claim).unwrap()));
        for volume in volumes {
            let volume: PersistentVolume = serde_json::from_value(volume.clone()).unwrap();
            state.volumes.insert(volume.metadata.name.clone().unwrap().into(), Arc::new(volume));
        }
        cluster
    }

    fn class(mode: &str, provisioner: &str) -> serde_json::Value {
        serde_json::json!({"metadata": {"name": "fast"}, "provisioner": provisioner, "volumeBindingMode": mode})
    }

    fn claim(volume: Option<&str>) -> serde_json::Value {
        let mut claim = serde_json::json!({"metadata": {"namespace": "ns", "name": "data"}, "spec": {
            "storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }});
        if let Some(volume) = volume {
            claim["spec"]["volumeName"] = volume.into();
            claim["metadata"]["annotations"] = serde_json::json!({BOUND: "yes"});
        }
        claim
    }

    fn volume(name: &str, size: &str, node: &str) -> serde_json::Value {
        serde_json::json!({"metadata": {"name": name}, "spec": {
            "storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]},
            ]}},
        }})
    }

    fn using() -> PodInfo {
        pod("p", serde_json::json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}))
    }

    const WAIT: &str = "WaitForFirstConsumer";

    #[test]
    #[rustfmt::skip]
    fn claims_decide_where_a_pod_can_go() {
        let conflict = "b: node(s) didn't match PersistentVolume's node affinity";
        let none = |node: &str| format!("{node}: node(s) didn't find available persistent volumes to bind");
        let local = volume("pv", "2Gi", "a");
        //    class                          claim              volumes                        expected
        check(class(WAIT, NO_PROVISIONER),   claim(Some("pv")), std::slice::from_ref(&local),  &[conflict.into()]);
        check(class("Immediate", "x"),       claim(None),       std::slice::from_ref(&local),  &["*: pod has unbound immediate PersistentVolumeClaims".into()]);
        check(class(WAIT, NO_PROVISIONER),   claim(None),       std::slice::from_ref(&local),  &[none("b")]);
        check(class(WAIT, NO_PROVISIONER),   claim(None),       &[volume("pv", "1Mi", "a")],   &[none("a"), none("b")]);
        check(class(WAIT, "example.com/x"),  claim(None),       &[],                           &[]);
        #[track_caller]
        fn check(class: serde_json::Value, claim: serde_json::Value, volumes: &[serde_json::Value], expected: &[String]) {
            let rejected = cluster(class, claim, volumes).filtered(&Binding, &using());
            let rejected: Vec<String> = rejected.into_iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
            assert_eq!(rejected, expected);
        }
    }

    #[test]
    fn a_missing_claim_is_named() {
        let mut cluster = cluster(class(WAIT, "x"), claim(None), &[]);
        cluster.state.claims.clear();
        assert_eq!(cluster.filtered(&Binding, &using())[0].1, "persistentvolumeclaim \"data\" not found");
    }

    #[test]
    fn the_smallest_volume_that_fits_is_taken() {
        let volumes = [volume("large", "9Gi", "a"), volume("small", "2Gi", "a"), volume("tiny", "1Mi", "a")];
        let cluster = cluster(class(WAIT, "x"), claim(None), &volumes);
        let on = |name| decide(&using(), cluster.state.node(name).unwrap(), &cluster.state);
        assert_eq!(on("a"), [Decision::Bind { claim: Key::new("ns", "data"), volume: "small".into() }]);
        assert_eq!(on("b"), [Decision::Provision { claim: Key::new("ns", "data") }]);
    }

    #[test]
    fn a_volumes_zone_is_the_pods() {
        let mut zoned = volume("pv", "2Gi", "a");
        zoned["spec"]["nodeAffinity"] = serde_json::Value::Null;
        zoned["metadata"]["labels"] = serde_json::json!({ZONE: "y__z"});
        let cluster = cluster(class(WAIT, "x"), claim(Some("pv")), &[zoned]);
        assert_eq!(cluster.filtered(&Zone, &using()), [("a".into(), "node(s) had no available volume zone".into())]);
    }

    #[test]
    fn a_claim_for_one_pod_is_for_one_pod() {
        let mut exclusive = claim(Some("pv"));
        exclusive["spec"]["accessModes"] = serde_json::json!(["ReadWriteOncePod"]);
        let mut cluster = cluster(class(WAIT, "x"), exclusive, &[]);
        assert!(cluster.filtered(&Restrictions, &using()).is_empty());
        let spec = serde_json::json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
        cluster.place(pod("other", spec), "a");
        assert_eq!(cluster.check(&Restrictions, &using(), "a"), Check::Unschedulable);
        assert_eq!(cluster.check(&Restrictions, &using(), "b"), Check::Unresolvable);
    }

    #[test]
    fn a_node_takes_only_so_many_volumes() {
        let mut volume = volume("pv", "2Gi", "a");
        volume["spec"]["csi"] = serde_json::json!({"driver": "d", "volumeHandle": "1"});
        let mut cluster = cluster(class(WAIT, "x"), claim(Some("pv")), &[volume]);
        let limits = |count: i32| serde_json::json!({"metadata": {"name": "a"}, "spec": {"drivers": [{"name": "d", "nodeID": "a", "allocatable": {"count": count}}]}});
        cluster.state.csi_nodes.insert("a".into(), Arc::new(serde_json::from_value(limits(0)).unwrap()));
        assert_eq!(cluster.filtered(&Limits, &using()), [("a".into(), "node(s) exceed max volume count".into())]);
        cluster.state.csi_nodes.insert("a".into(), Arc::new(serde_json::from_value(limits(1)).unwrap()));
        assert!(cluster.filtered(&Limits, &using()).is_empty());
    }
}
