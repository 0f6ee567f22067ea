//! The legacy Endpoints object of a Service: one object with all addresses, cut off at a thousand.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::context::{Context, synced};
use crate::endpointslice::{HEADLESS, is_headless, membership};
use crate::error::{During, Result, gone_is_fine, is_namespace_terminating, message};
use crate::meta::{annotation, is_deleting, map, reference};
use crate::pods::{is_ready, is_terminal, node_name};
use crate::selector::has_all;

/// Addresses in one object at most.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        services: ctx.informers.of(),
        pods: ctx.informers.of(),
        endpoints: ctx.informers.of(),
        recorder: ctx.recorder("endpoint-controller"),
    });
    controller.services.on_change({
        let queue = queue.clone();
        move |change: &Change<Service>| queue.add(Key::of(&**change.object()))
    });
    membership::on_pod_change(&controller.pods, &controller.services, &queue);
    controller.endpoints.on_change({
        let queue = queue.clone();
        // Somebody else's deletion is undone; leftovers of services deleted while we were away are found at the start.
        move |change: &Change<Endpoints>| {
            if change.is_deleted() || change.old().is_none() {
                queue.add(Key::of(&**change.object()));
            }
        }
    });
    let synced = synced!(controller.services, controller.pods, controller.endpoints);
    ctx.run("endpoints", 5, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let current = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            let ours = |endpoints: &Arc<Endpoints>| {
                let marks = map(&endpoints.metadata.labels).contains_key(MANAGED_BY);
                marks && annotation(&endpoints.metadata, "control-plane.alpha.kubernetes.io/leader").is_none()
            };
            if current.as_ref().is_some_and(ours) {
                gone_is_fine(api.delete(&key.name, &DeleteParams::default()).await).during("delete endpoints", key)?;
            }
            return Ok(Requeue::OnChange);
        };
        let Some(spec) = &service.spec else { return Ok(Requeue::OnChange) };
        let Some(selector) = &spec.selector else { return Ok(Requeue::OnChange) };
        if spec.type_.as_deref() == Some("ExternalName") || is_deleting(&service.metadata) {
            return Ok(Requeue::OnChange);
        }
        let pods: Vec<Arc<Pod>> =
            self.pods.list_in(&key.namespace).into_iter().filter(|pod| has_all(selector, map(&pod.metadata.labels))).collect();
        let desired = plan(&service, &pods, current.as_deref());
        let unchanged = |current: &Arc<Endpoints>| {
            current.subsets.as_deref().unwrap_or_default() == desired.subsets.as_deref().unwrap_or_default()
                && current.metadata.labels == desired.metadata.labels
                && annotation(&current.metadata, OVER_CAPACITY) == annotation(&desired.metadata, OVER_CAPACITY)
        };
        let written = match &current {
            Some(current) if unchanged(current) => return Ok(Requeue::OnChange),
            Some(_) => api.replace(&key.name, &PostParams::default(), &desired).await,
            None => api.create(&PostParams::default(), &desired).await,
        };
        match written {
            Ok(_) => Ok(Requeue::OnChange),
            Err(err) if is_namespace_terminating(&err) => Ok(Requeue::OnChange),
            // Made a moment ago, and our copy does not show it yet: no failure to tell anybody of.
            Err(kube::Error::Api(status)) if current.is_none() && status.is_already_exists() => {
                Ok(Requeue::After(std::time::Duration::from_secs(1)))
            }
            Err(err) => {
                let (reason, what) = match current {
                    Some(_) => ("FailedToUpdateEndpoint", "update endpoint"),
                    None => ("FailedToCreateEndpoint", "create endpoint for service"),
                };
                let text = format!("Failed to {what} {key}: {}", message(&err));
                self.recorder.event(&reference(&desired), EventType::Warning, reason, text);
                Err(err).during("write endpoints", key)
            }
        }
    }
}

/// The object as it should be; it keeps what others wrote on `current`.
fn plan(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Endpoints {
    let family = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref()).and_then(|families| families.first());
    let family = family.map_or("IPv4", String::as_str);
    let publish = membership::publishes_not_ready(service);
    // Grouped by ports, then by readiness; the maps put everything in one order, so equal contents are equal objects.
    let mut groups: BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in pods {
        if is_terminal(pod) || (is_deleting(&pod.metadata) && !publish) {
            continue;
        }
        let Some(address) = address(service, pod, family) else { continue };
        let ports = ports(service, pod);
        let has_ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_some_and(|ports| !ports.is_empty());
        if ports.is_empty() && (has_ports || !is_headless(service)) {
            continue;
        }
        let (ready, not_ready) = groups.entry(ports).or_default();
        if publish || is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    let truncated = truncate(&mut groups);
    let subsets: Vec<EndpointSubset> = groups.into_iter().map(subset).collect();
    let mut metadata = current.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |current| current.metadata.clone(),
    );
    let mut labels = map(&service.metadata.labels).clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
    metadata.labels = Some(labels);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    annotations.remove(TRIGGER_TIME);
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) }
}

type PortKey = (String, i32, String, Option<String>);

fn ports(service: &Service, pod: &Pod) -> Vec<PortKey> {
    let port = |port: k8s_openapi::api::discovery::v1::EndpointPort| {
        (port.name.unwrap_or_default(), port.port.unwrap_or(0), port.protocol.unwrap_or_default(), port.app_protocol)
    };
    let mut ports: Vec<PortKey> = membership::ports(service, pod).into_iter().map(port).collect();
    ports.sort();
    ports
}

fn address(service: &Service, pod: &Pod, family: &str) -> Option<EndpointAddress> {
    let ip = membership::addresses(pod).find(|address| membership::is_of_family(address, family))?;
    Some(EndpointAddress {
        ip: ip.to_owned(),
        hostname: membership::hostname(service, pod),
        node_name: Some(node_name(pod)).filter(|node| !node.is_empty()).map(str::to_owned),
        target_ref: Some(membership::pod_reference(pod)),
    })
}

fn subset((ports, (mut ready, mut not_ready)): (Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>))) -> EndpointSubset {
    let some = |list: &mut Vec<EndpointAddress>| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!list.is_empty()).then(|| std::mem::take(list))
    };
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: (!name.is_empty()).then_some(name),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: some(&mut ready),
        not_ready_addresses: some(&mut not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

/// Cuts to the capacity, ready addresses kept first. Returns whether it had to.
fn truncate(groups: &mut BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)>) -> bool {
    let total: usize = groups.values().map(|(ready, not_ready)| ready.len() + not_ready.len()).sum();
    let mut left = CAPACITY;
    for (ready, _) in groups.values_mut() {
        ready.truncate(left);
        left -= ready.len();
    }
    for (_, not_ready) in groups.values_mut() {
        not_ready.truncate(left);
        left -= not_ready.len();
    }
    groups.retain(|_, (ready, not_ready)| !ready.is_empty() || !not_ready.is_empty());
    total > CAPACITY
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;
    use crate::pods::tests::{merge, pod};

    fn service(patch: Value) -> Service {
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.43.0.7", "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]}});
        merge(&mut service, &patch);
        from_value(service).unwrap()
    }

    fn at_ip(name: &str, ip: &str, patch: Value) -> Arc<Pod> {
        let mut full = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        merge(&mut full, &patch);
        Arc::new(pod(name, full))
    }

    #[test]
    fn ready_and_not_ready_pods_share_a_subset() {
        let not_ready = json!({"status": {"conditions": []}});
        let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let pods = [
            at_ip("b", "10.0.0.2", json!({})),
            at_ip("a", "10.0.0.1", json!({})),
            at_ip("c", "10.0.0.3", not_ready),
            at_ip("d", "10.0.0.4", deleting),
            at_ip("e", "10.0.0.5", json!({"status": {"phase": "Succeeded"}})),
        ];
        let ips = |list: &Value| {
            list.as_array().unwrap().iter().map(|address| address["ip"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let subsets = to_value(plan(&service(json!({})), &pods, None)).unwrap()["subsets"].clone();
        assert_eq!(ips(&subsets[0]["addresses"]), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subsets[0]["notReadyAddresses"]), ["10.0.0.3"]);
        assert_eq!(subsets[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        let all = service(json!({"spec": {"publishNotReadyAddresses": true}}));
        let subsets = to_value(plan(&all, &pods, None)).unwrap()["subsets"].clone();
        assert_eq!(ips(&subsets[0]["addresses"]), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    }

    #[test]
    fn too_many_addresses_are_cut_off_and_marked() {
        let pods: Vec<_> =
            (0..1005).map(|n| at_ip(&format!("p{n}"), &format!("10.0.{}.{}", n / 250, n % 250), json!({}))).collect();
        let endpoints = plan(&service(json!({})), &pods, None);
        assert_eq!(annotation(&endpoints.metadata, OVER_CAPACITY), Some("truncated"));
        assert_eq!(endpoints.subsets.unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
    }

    #[test]
    fn a_headless_service_is_marked_and_needs_no_ports() {
        let headless = service(json!({"spec": {"clusterIP": "None", "ports": null}}));
        let endpoints = plan(&headless, &[at_ip("a", "10.0.0.1", json!({}))], None);
        assert!(map(&endpoints.metadata.labels).contains_key(HEADLESS));
        assert_eq!(endpoints.subsets.unwrap().len(), 1);
    }
}
