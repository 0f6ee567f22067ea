//! Mirrors Endpoints that a user or another program writes into EndpointSlices, for Services without a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_client::{Change, Client, Informer, Key, Queue, Requeue};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::membership::is_of_family;
use super::packing::{self, Plan};
use super::write::{Tracker, Writer};
use super::{BY_SERVICE, MANAGED_BY, SERVICE_NAME, by_service, term};
use crate::context::{Context, synced};
use crate::error::Result;
use crate::meta::{annotation, controller_reference, is_deleting, label, map, name, namespace};

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of one subset that are mirrored at most (`--mirroring-max-endpoints-per-subset`).
const MAX_PER_SUBSET: usize = 1000;

struct Mirroring {
    client: Client,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    tracker: Tracker,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Mirroring {
        client: ctx.client.clone(),
        services: ctx.informers.of(),
        endpoints: ctx.informers.of(),
        slices: ctx.informers.of(),
        tracker: Tracker::default(),
    });
    controller.slices.index(BY_SERVICE, by_service);
    controller.services.on_change({
        let queue = queue.clone();
        move |change: &Change<Service>| queue.add(Key::of(&**change.object()))
    });
    controller.endpoints.on_change({
        let queue = queue.clone();
        move |change: &Change<Endpoints>| queue.add(Key::of(&**change.object()))
    });
    controller.slices.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<EndpointSlice>| {
            let slice = change.object();
            let (Some(CONTROLLER), Some(service)) = (label(&slice.metadata, MANAGED_BY), label(&slice.metadata, SERVICE_NAME))
            else {
                return;
            };
            let key = Key::new(namespace(&slice.metadata), service);
            if controller.tracker.observe(&key, slice, change.is_deleted()) {
                queue.add(key);
            }
        }
    });
    let synced = synced!(controller.services, controller.endpoints, controller.slices);
    ctx.run(
        "endpointslicemirroring",
        5,
        queue,
        synced,
        controller,
        |controller, key| async move { controller.reconcile(&key).await },
    );
}

impl Mirroring {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let existing = self.slices.indexed(BY_SERVICE, &term(CONTROLLER, key));
        if self.tracker.is_stale(key, &existing) {
            return Ok(Requeue::OnChange); // The tracker queues it when the cache moves on.
        }
        let endpoints = self.endpoints.get(key).filter(|endpoints| is_mirrored(endpoints));
        let service = self.services.get(key).filter(|service| has_no_selector(service));
        let plan = match (endpoints, service) {
            (Some(endpoints), Some(_)) => plan(&endpoints, &existing),
            _ => Plan { delete: existing, ..Plan::default() },
        };
        Writer { client: &self.client, tracker: &self.tracker, service: key }.carry_out(plan).await?;
        Ok(Requeue::OnChange)
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    label(meta, "endpointslice.kubernetes.io/skip-mirror") != Some("true")
        && annotation(meta, "control-plane.alpha.kubernetes.io/leader").is_none()
        && !is_deleting(meta)
}

fn has_no_selector(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty))
        && !is_deleting(&service.metadata)
}

fn plan(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    for family in ["IPv4", "IPv6"] {
        let of_family: Vec<_> = existing.iter().filter(|slice| slice.address_type == family).cloned().collect();
        let desired: Vec<_> = endpoints
            .subsets
            .iter()
            .flatten()
            .map(|subset| mirrored(subset, family))
            .filter(|(_, endpoints)| !endpoints.is_empty())
            .collect();
        if desired.is_empty() {
            // Unlike a selected service, one without endpoints of a family has no slice of it.
            plan.delete.extend(of_family);
        } else {
            plan.merge(packing::plan(&of_family, desired, &blank(endpoints, family), packing::MAX_ENDPOINTS));
        }
    }
    plan
}

fn mirrored(subset: &EndpointSubset, family: &str) -> (Vec<EndpointPort>, Vec<Endpoint>) {
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    };
    let endpoint = |address: &EndpointAddress, ready: bool| Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    let ready = subset.addresses.iter().flatten().map(|address| endpoint(address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| endpoint(address, false));
    let endpoints = ready
        .chain(not_ready)
        .take(MAX_PER_SUBSET)
        .filter(|endpoint| endpoint.addresses.iter().all(|ip| is_of_family(ip, family)));
    (subset.ports.iter().flatten().map(port).collect(), endpoints.collect())
}

fn blank(endpoints: &Endpoints, family: &str) -> EndpointSlice {
    let mut labels = map(&endpoints.metadata.labels).clone();
    labels.insert(SERVICE_NAME.into(), name(&endpoints.metadata).into());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    let mut annotations = map(&endpoints.metadata.annotations).clone();
    annotations.retain(|name, _| {
        !matches!(
            &**name,
            "kubectl.kubernetes.io/last-applied-configuration" | "endpoints.kubernetes.io/last-change-trigger-time"
        )
    });
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&endpoints.metadata))),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        endpoints: Some(Vec::new()),
        ports: None,
    }
}
