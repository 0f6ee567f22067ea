//! Turns the pods behind a Service into EndpointSlices.
//!
//! `membership` says which pods are endpoints and how; `packing` spreads endpoints over slices of at most a hundred with
//! as few writes as possible. One reconcile is one Service; its slices are of one address family each.

pub(crate) mod membership;
pub(crate) mod mirroring;
pub(crate) mod packing;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{Context, synced};
use crate::error::Result;
use crate::meta::{controller_reference, label, map, name, namespace, reference};
use crate::pods::node_name;
use crate::selector::has_all;
use write::{Tracker, Writer};

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The name of the index of slices by manager and service.
pub(crate) const BY_SERVICE: &str = "service";

struct Slices {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    tracker: Tracker,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Slices {
        client: ctx.client.clone(),
        services: ctx.informers.of(),
        pods: ctx.informers.of(),
        nodes: ctx.informers.of(),
        slices: ctx.informers.of(),
        tracker: Tracker::default(),
        recorder: ctx.recorder("endpoint-slice-controller"),
    });
    controller.slices.index(BY_SERVICE, by_service);
    controller.services.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Service>| {
            let key = Key::of(&**change.object());
            if change.is_deleted() {
                controller.tracker.forget(&key);
            }
            queue.add(key);
        }
    });
    membership::on_pod_change(&controller.pods, &controller.services, &queue);
    controller.nodes.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Node>| {
            let zone = |node: &Node| label(&node.metadata, ZONE).map(str::to_owned);
            if change.old().is_some_and(|old| zone(old) != zone(change.object())) {
                controller.services.keys().into_iter().for_each(|key| queue.add(key));
            }
        }
    });
    controller.slices.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<EndpointSlice>| {
            let slice = change.object();
            if label(&slice.metadata, MANAGED_BY) != Some(CONTROLLER) {
                return;
            }
            let Some(service) = label(&slice.metadata, SERVICE_NAME) else { return };
            let key = Key::new(namespace(&slice.metadata), service);
            if controller.tracker.observe(&key, slice, change.is_deleted()) {
                queue.add(key);
            }
        }
    });
    let synced = synced!(controller.services, controller.pods, controller.nodes, controller.slices);
    ctx.run("endpointslice", 5, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

/// Index terms of a slice: `manager namespace/service`.
pub(crate) fn by_service(slice: &EndpointSlice) -> Vec<String> {
    let meta = &slice.metadata;
    match (label(meta, MANAGED_BY), label(meta, SERVICE_NAME)) {
        (Some(manager), Some(service)) => vec![term(manager, &Key::new(namespace(meta), service))],
        _ => Vec::new(),
    }
}

pub(crate) fn term(manager: &str, service: &Key) -> String {
    format!("{manager} {service}")
}

impl Slices {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(service) = self.services.get(key) else {
            // Its slices go with it, by their owner reference.
            self.tracker.forget(key);
            return Ok(Requeue::OnChange);
        };
        let Some(spec) = &service.spec else { return Ok(Requeue::OnChange) };
        let Some(selector) = &spec.selector else { return Ok(Requeue::OnChange) };
        if spec.type_.as_deref() == Some("ExternalName") || service.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::OnChange);
        }
        let existing = self.slices.indexed(BY_SERVICE, &term(CONTROLLER, key));
        if self.tracker.is_stale(key, &existing) {
            return Ok(Requeue::OnChange); // The tracker queues it when the cache moves on.
        }
        let pods: Vec<Arc<Pod>> =
            self.pods.list_in(&key.namespace).into_iter().filter(|pod| has_all(selector, map(&pod.metadata.labels))).collect();
        let families: Vec<&str> = match &spec.ip_families {
            Some(families) if !families.is_empty() => families.iter().map(String::as_str).collect(),
            _ => vec!["IPv4"],
        };
        let mut plan = packing::Plan::default();
        // A family that the service no longer has.
        plan.delete.extend(existing.iter().filter(|slice| !families.contains(&&*slice.address_type)).cloned());
        for family in families {
            let of_family: Vec<_> = existing.iter().filter(|slice| slice.address_type == family).cloned().collect();
            let desired = self.desired(&service, &pods, family);
            let blank = blank_slice(&service, family);
            plan.merge(packing::plan(&of_family, desired, &blank, packing::MAX_ENDPOINTS));
        }
        let written = Writer { client: &self.client, tracker: &self.tracker, service: key }.carry_out(plan).await;
        if let Err(err) = &written {
            let text = format!("Error updating Endpoint Slices for Service {key}: {err}");
            self.recorder.event(&reference(&*service), EventType::Warning, "FailedToUpdateEndpointSlices", text);
        }
        written?;
        Ok(Requeue::OnChange)
    }

    /// The endpoints of one family, in groups of equal ports.
    fn desired(&self, service: &Service, pods: &[Arc<Pod>], family: &str) -> Vec<(Vec<EndpointPort>, Vec<Endpoint>)> {
        let mut groups: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
        for pod in pods {
            let zone =
                self.nodes.get(&Key::cluster(node_name(pod))).and_then(|node| label(&node.metadata, ZONE).map(str::to_owned));
            let Some(endpoint) = membership::endpoint(service, pod, family, zone) else { continue };
            let ports = membership::ports(service, pod);
            match groups.iter_mut().find(|(known, _)| *known == ports) {
                Some((_, endpoints)) => endpoints.push(endpoint),
                None => groups.push((ports, vec![endpoint])),
            }
        }
        let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
        for (_, endpoints) in &mut groups {
            membership::add_hints(distribution, endpoints);
        }
        groups
    }
}

/// A slice of `service` without endpoints.
fn blank_slice(service: &Service, family: &str) -> EndpointSlice {
    let mut labels: BTreeMap<String, String> = map(&service.metadata.labels).clone();
    labels.retain(|name, _| !matches!(&**name, SERVICE_NAME | MANAGED_BY | HEADLESS));
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), name(&service.metadata).into());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        endpoints: Some(Vec::new()),
        ports: None,
    }
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}
