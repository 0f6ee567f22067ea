//! Amounts of resources as integers, computed once per pod and node, so that comparing costs nothing.

use std::collections::BTreeMap;

use corten_api::quantity::Quantity as Parsed;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What scoring assumes of a container that requests no CPU (upstream's `DefaultMilliCPURequest`).
const DEFAULT_CPU_MILLI: i64 = 100;
/// What scoring assumes of a container that requests no memory (upstream's `DefaultMemoryRequest`, 200 MB in MiB).
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral: i64,
    /// Extended resources and huge pages.
    pub scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a `ResourceList`. A quantity that does not parse counts as nothing: the API server lets none through.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut sum = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let Ok(parsed) = Parsed::parse(&quantity.0) else { continue };
            match name.as_str() {
                "cpu" => sum.cpu = parsed.milli_value(),
                "memory" => sum.memory = parsed.value(),
                "ephemeral-storage" => sum.ephemeral = parsed.value(),
                "pods" => {}
                other => {
                    sum.scalars.insert(other.to_owned(), parsed.value());
                }
            }
        }
        sum
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.ephemeral += other.ephemeral;
        for (name, amount) in &other.scalars {
            *self.scalars.entry(name.clone()).or_default() += amount;
        }
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu -= other.cpu;
        self.memory -= other.memory;
        self.ephemeral -= other.ephemeral;
        for (name, amount) in &other.scalars {
            if let Some(own) = self.scalars.get_mut(name) {
                *own -= amount;
            }
        }
    }

    /// Raises each amount to that of `other` where that is larger.
    fn raise(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral = self.ephemeral.max(other.ephemeral);
        for (name, amount) in &other.scalars {
            let own = self.scalars.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
    }
}

/// What a pod requests in all: the larger of its containers together and any moment of its initialization, sidecars
/// (KEP-753), pod-level requests (KEP-2837) and overhead included.
pub fn pod_requests(spec: &PodSpec) -> Resources {
    aggregate(spec, |container| Resources::of(requests(container.resources.as_ref())))
}

/// What scoring takes a pod to use: like its requests, with a default for containers that request nothing.
pub fn pod_nonzero_requests(spec: &PodSpec) -> (i64, i64) {
    let sum = aggregate(spec, |container| {
        let list = requests(container.resources.as_ref());
        let mut amount = Resources::of(list);
        let named = |name: &str| list.is_some_and(|l| l.contains_key(name));
        if !named("cpu") {
            amount.cpu = DEFAULT_CPU_MILLI;
        }
        if !named("memory") {
            amount.memory = DEFAULT_MEMORY;
        }
        amount
    });
    (sum.cpu, sum.memory)
}

fn requests(resources: Option<&ResourceRequirements>) -> Option<&BTreeMap<String, Quantity>> {
    resources.and_then(|r| r.requests.as_ref())
}

fn aggregate(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut initializing = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            initializing.raise(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add(&own);
            initializing.raise(&moment);
        }
    }
    running.add(&sidecars);
    running.raise(&initializing);
    if let Some(list) = requests(spec.resources.as_ref()) {
        let pod = Resources::of(Some(list));
        if list.contains_key("cpu") {
            running.cpu = pod.cpu;
        }
        if list.contains_key("memory") {
            running.memory = pod.memory;
        }
        running.scalars.extend(pod.scalars);
    }
    running.add(&Resources::of(spec.overhead.as_ref()));
    running
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn requests_follow_the_moments_of_a_pods_life() {
        // containers                    init containers (cpu, sidecar)        overhead  expected
        check(&["100m", "200m"],         &[],                                  "0",      300);
        check(&["100m"],                 &[("500m", false)],                   "0",      500); // the init container alone is larger
        check(&["100m"],                 &[("50m", true)],                     "0",      150); // a sidecar runs along
        check(&["100m"],                 &[("50m", true), ("500m", false)],    "0",      550); // and is there while a later one initializes
        check(&["100m"],                 &[("500m", false), ("50m", true)],    "0",      500);
        check(&["1"],                    &[],                                  "250m",  1250);
        #[track_caller]
        fn check(containers: &[&str], init: &[(&str, bool)], overhead: &str, expected: i64) {
            let cpu = |n: &str| json!({"requests": {"cpu": n}});
            let spec: PodSpec = serde_json::from_value(json!({
                "containers": containers.iter().map(|n| json!({"name": "c", "resources": cpu(n)})).collect::<Vec<_>>(),
                "initContainers": init.iter().map(|(n, sidecar)| {
                    let mut c = json!({"name": "i", "resources": cpu(n)});
                    if *sidecar { c["restartPolicy"] = "Always".into(); }
                    c
                }).collect::<Vec<_>>(),
                "overhead": {"cpu": overhead},
            })).unwrap();
            assert_eq!(pod_requests(&spec).cpu, expected);
        }
    }
}
