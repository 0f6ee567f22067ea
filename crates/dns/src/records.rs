//! The cluster's records, read from the informers' caches.

use std::net::IpAddr;
use std::sync::Arc;

use corten_client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::answer::Records;

const BY_IP: &str = "dns-by-ip";
const BY_SERVICE: &str = "dns-by-service";

/// The caches and their indexes.
pub struct Cached {
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Cached {
    pub fn new(informers: &Informers) -> Self {
        let this = Self { namespaces: informers.of(), services: informers.of(), slices: informers.of() };
        this.services.index(BY_IP, |service| {
            let spec = service.spec.as_ref();
            let ips = spec.and_then(|spec| spec.cluster_ips.clone().or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip])));
            ips.into_iter().flatten().filter_map(|ip| canonical(&ip)).collect()
        });
        this.slices.index(BY_IP, |slice| {
            let endpoints = slice.endpoints.iter().flatten();
            endpoints.flat_map(|endpoint| &endpoint.addresses).filter_map(|ip| canonical(ip)).collect()
        });
        this.slices.index(BY_SERVICE, |slice| {
            let labels = slice.metadata.labels.as_ref();
            let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            service.map(|service| format!("{namespace}/{service}")).into_iter().collect()
        });
        this
    }

    /// Whether the caches are complete. Before that, nothing can be said not to exist.
    pub fn complete(&self) -> bool {
        self.namespaces.is_synced() && self.services.is_synced() && self.slices.is_synced()
    }
}

impl Records for Cached {
    fn namespace(&self, name: &str) -> bool {
        self.namespaces.get(&Key::cluster(name)).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&Key::new(namespace, name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.indexed(BY_SERVICE, &format!("{namespace}/{service}"))
    }

    fn service_at(&self, ip: IpAddr) -> Option<Arc<Service>> {
        self.services.indexed(BY_IP, &ip.to_string()).into_iter().next()
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.indexed(BY_IP, &ip.to_string())
    }
}

/// One spelling for each address; nothing for what is none, like `None`.
fn canonical(ip: &str) -> Option<String> {
    ip.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}
