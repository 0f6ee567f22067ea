//! Amounts of resources, and what a pod asks for.

use std::collections::BTreeMap;

use corten_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Requested by a container that asks for none, for scoring only: so that a node does not look empty.
pub const DEFAULT_CPU: i64 = 100;
/// The same for memory.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type Amounts = BTreeMap<String, ApiQuantity>;

/// CPU in thousandths, everything else in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub storage: i64,
    /// Number of pods; only nodes have it.
    pub pods: i64,
    /// Extended resources and huge pages, by name.
    pub scalar: Vec<(String, i64)>,
}

impl Resources {
    /// Reads a list of amounts; what cannot be parsed was rejected by the API long ago.
    #[must_use]
    pub fn read(amounts: &Amounts) -> Self {
        let mut this = Self::default();
        for (name, quantity) in amounts {
            let Ok(quantity) = Quantity::parse(&quantity.0) else { continue };
            match name.as_str() {
                "cpu" => this.cpu = quantity.milli_value(),
                "memory" => this.memory = quantity.value(),
                "ephemeral-storage" => this.storage = quantity.value(),
                "pods" => this.pods = quantity.value(),
                name if is_scalar(name) => this.scalar.push((name.to_owned(), quantity.value())),
                _ => {}
            }
        }
        this
    }

    /// The amount of a scalar resource.
    #[must_use]
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar.iter().find(|(known, _)| known == name).map_or(0, |(_, amount)| *amount)
    }

    fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.storage += other.storage;
        for (name, amount) in &other.scalar {
            match self.scalar.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known += amount,
                None => self.scalar.push((name.clone(), *amount)),
            }
        }
    }

    fn max(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.storage = self.storage.max(other.storage);
        for (name, amount) in &other.scalar {
            match self.scalar.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = (*known).max(*amount),
                None => self.scalar.push((name.clone(), *amount)),
            }
        }
    }
}

/// What a pod asks for: the sum of its containers and sidecars, or what its init containers need at their highest,
/// whichever is more (KEP-753), or what the pod as a whole says (KEP-2837); and the overhead of its runtime class.
#[must_use]
pub fn requests(pod: &Pod) -> Resources {
    total(pod, of_container)
}

/// The same for scoring: containers that ask for no CPU or memory count with the defaults.
#[must_use]
pub fn non_zero(pod: &Pod) -> (i64, i64) {
    let all = total(pod, |container, pod| {
        let mut requests = of_container(container, pod);
        let asks = |name| container.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key(name));
        if !asks("cpu") {
            requests.cpu = DEFAULT_CPU;
        }
        if !asks("memory") {
            requests.memory = DEFAULT_MEMORY;
        }
        requests
    });
    (all.cpu, all.memory)
}

fn total(pod: &Pod, of: impl Fn(&Container, &Pod) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container, pod));
    }
    let (mut sidecars, mut highest) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container, pod);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        highest.max(&needed);
    }
    running.max(&highest);
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let whole_amounts = Resources::read(whole);
        if whole.contains_key("cpu") {
            running.cpu = whole_amounts.cpu;
        }
        if whole.contains_key("memory") {
            running.memory = whole_amounts.memory;
        }
        for (name, amount) in whole_amounts.scalar {
            running.scalar.retain(|(known, _)| *known != name);
            running.scalar.push((name, amount));
        }
    }
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::read(overhead));
    }
    running
}

/// A container counts with what it asks for or, while a resize is under way, with what it has, if that is more.
fn of_container(container: &Container, pod: &Pod) -> Resources {
    let read = |resources: &ResourceRequirements| resources.requests.as_ref().map(Resources::read).unwrap_or_default();
    let mut amounts = container.resources.as_ref().map(read).unwrap_or_default();
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    if let Some(status) = statuses.into_iter().flatten().find(|status| status.name == container.name) {
        if let Some(resources) = &status.resources {
            amounts.max(&read(resources));
        }
        if let Some(allocated) = &status.allocated_resources {
            amounts.max(&Resources::read(allocated));
        }
    }
    amounts
}

/// Extended resources, huge pages and attachable volumes; other names without a domain mean nothing to us.
fn is_scalar(name: &str) -> bool {
    name.contains('/') || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_requests_are_those_of_its_hungriest_moment() {
        let container = |name: &str, cpu: &str, always: bool| {
            let mut container =
                serde_json::json!({"name": name, "resources": {"requests": {"cpu": cpu, "example.com/gpu": "1"}}});
            if always {
                container["restartPolicy"] = "Always".into();
            }
            container
        };
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {
            "initContainers": [container("big", "1500m", false), container("sidecar", "200m", true), container("later", "1400m", false)],
            "containers": [container("a", "500m", false), container("b", "600m", false)],
            "overhead": {"cpu": "50m", "memory": "10Mi"},
        }}))
        .unwrap();
        let requests = requests(&pod);
        // The init container behind the sidecar runs beside it: 1400 + 200, more than 500 + 600 + 200.
        assert_eq!((requests.cpu, requests.memory), (1650, 10 << 20));
        assert_eq!(requests.scalar("example.com/gpu"), 3);
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {
            "resources": {"requests": {"cpu": "2"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}],
        }}))
        .unwrap();
        let requests = requests(&pod);
        assert_eq!((requests.cpu, requests.memory), (2000, 1 << 30));
    }

    #[test]
    fn a_container_without_requests_counts_for_scoring_only() {
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"containers": [{"name": "a"}]}})).unwrap();
        assert_eq!(requests(&pod), Resources::default());
        assert_eq!(non_zero(&pod), (DEFAULT_CPU, DEFAULT_MEMORY));
    }
}
