//! What a pod asks for as a whole: the sum of its containers, or the most that its init phase needs (KEP-753), and the
//! quality of service that follows.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::doc::Read;
use crate::quantity::Quantity;

/// Requests of all containers together.
pub(crate) fn requests(spec: &Value) -> BTreeMap<String, Quantity> {
    aggregate(spec, "requests")
}

/// Limits of all containers together.
pub(crate) fn limits(spec: &Value) -> BTreeMap<String, Quantity> {
    aggregate(spec, "limits")
}

/// Whether an init container runs beside the others until the pod ends (a sidecar).
pub(crate) fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn aggregate(spec: &Value, kind: &str) -> BTreeMap<String, Quantity> {
    let mut sum = BTreeMap::new();
    for container in spec.list("containers") {
        add(&mut sum, &own(container, kind));
    }
    // Sidecars stay; every other init container runs together with the sidecars started before it.
    let mut sidecars = BTreeMap::new();
    let mut peak = BTreeMap::new();
    for container in spec.list("initContainers") {
        let mut now = own(container, kind);
        if is_sidecar(container) {
            add(&mut sum, &now);
            add(&mut sidecars, &now);
            raise(&mut peak, &sidecars);
        } else {
            add(&mut now, &sidecars);
            raise(&mut peak, &now);
        }
    }
    raise(&mut sum, &peak);
    sum
}

fn own(container: &Value, kind: &str) -> BTreeMap<String, Quantity> {
    let list = container["resources"].map(kind);
    list.iter().filter_map(|(name, amount)| Some((name.clone(), Quantity::of(amount)?))).collect()
}

fn add(sum: &mut BTreeMap<String, Quantity>, other: &BTreeMap<String, Quantity>) {
    for (name, amount) in other {
        match sum.get_mut(name) {
            Some(total) => *total = total.plus(amount),
            None => drop(sum.insert(name.clone(), amount.clone())),
        }
    }
}

fn raise(most: &mut BTreeMap<String, Quantity>, other: &BTreeMap<String, Quantity>) {
    for (name, amount) in other {
        let beaten = most.get(name).is_none_or(|have| have.amount() < amount.amount());
        if beaten {
            most.insert(name.clone(), amount.clone());
        }
    }
}

/// The pod's quality of service class, from its own resources when it has them, else from its containers'.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let positive = |list: &Value, name: &str| Quantity::of(&list[name]).is_some_and(|amount| amount.is_positive());
    let mut any = false;
    let mut guaranteed = true;
    let own = &spec["resources"];
    let pod_level = !own.is_null();
    let containers = spec.list("containers").iter().chain(spec.list("initContainers")).map(|container| &container["resources"]);
    let holders: Vec<&Value> = if pod_level { vec![own] } else { containers.collect() };
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    for resources in holders {
        for name in ["cpu", "memory"] {
            let (request, limit) = (&resources["requests"], &resources["limits"]);
            any |= positive(request, name) || positive(limit, name);
            guaranteed &= positive(limit, name);
            for (list, total) in [(request, &mut requests), (limit, &mut limits)] {
                if let Some(amount) = Quantity::of(&list[name]).filter(|amount| amount.is_positive()) {
                    let sum = total.get(name).map_or_else(|| amount.clone(), |have| have.plus(&amount));
                    total.insert(name, sum);
                }
            }
        }
    }
    if !any {
        return "BestEffort";
    }
    let same = requests.iter().all(|(name, request)| limits.get(name).is_some_and(|limit| limit.amount() == request.amount()));
    if guaranteed && same && requests.len() == limits.len() { "Guaranteed" } else { "Burstable" }
}
