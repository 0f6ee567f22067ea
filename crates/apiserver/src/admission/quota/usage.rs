//! How much of each quota resource an object uses. Pure functions.

use std::collections::BTreeMap;

use serde_json::Value;

use corten_api::quantity::{Format, Quantity};

use super::super::AdmissionRequest;
use super::super::tools::{items, members, text};

/// Amounts by the name of the quota resource.
pub(super) type Usage = BTreeMap<String, Quantity>;

/// What an object uses.
pub(super) fn of(request: &AdmissionRequest, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let one = || Quantity::new(1, Format::DecimalSi);
    let qualified = corten_api::status::qualified(&request.group, &request.resource);
    usage.insert(format!("count/{qualified}"), one());
    if !request.group.is_empty() {
        return usage;
    }
    match request.resource.as_str() {
        "pods" => pod(object, &mut usage),
        "services" => service(object, &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
            usage.insert(request.resource.clone(), one());
        }
        _ => {}
    }
    usage
}

fn pod(pod: &Value, usage: &mut Usage) {
    // A pod that has ended uses nothing but its place in the store.
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return;
    }
    usage.insert("pods".into(), Quantity::new(1, Format::DecimalSi));
    for (what, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        for (name, amount) in total(pod, what) {
            if what == "requests" && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                usage.insert(name.clone(), amount.clone());
            }
            usage.insert(format!("{prefix}{name}"), amount);
        }
    }
}

/// What a pod asks for: the sum over its containers and sidecars, or the largest init container, whichever is more; instead of
/// those what the pod says as a whole (KEP-2837); and its overhead.
pub(in super::super) fn total(pod: &Value, what: &str) -> Usage {
    let amounts = |holder: &Value| -> Usage {
        members(&holder["resources"][what])
            .filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?)))
            .collect()
    };
    let add = |sums: &mut Usage, more: Usage| {
        for (name, amount) in more {
            match sums.get_mut(&name) {
                Some(sum) => sum.add(&amount),
                None => drop(sums.insert(name, amount)),
            }
        }
    };
    let raise = |sums: &mut Usage, peak: Usage| {
        for (name, amount) in peak {
            match sums.get_mut(&name) {
                Some(sum) if *sum >= amount => {}
                _ => drop(sums.insert(name, amount)),
            }
        }
    };
    let mut sums = Usage::new();
    for container in items(&pod["spec"]["containers"]) {
        add(&mut sums, amounts(container));
    }
    let (mut sidecars, mut peak) = (Usage::new(), Usage::new());
    for container in items(&pod["spec"]["initContainers"]) {
        if container["restartPolicy"] == "Always" {
            add(&mut sums, amounts(container));
            add(&mut sidecars, amounts(container));
            raise(&mut peak, sidecars.clone());
        } else {
            let mut own = amounts(container);
            add(&mut own, sidecars.clone());
            raise(&mut peak, own);
        }
    }
    raise(&mut sums, peak);
    for (name, amount) in amounts(&pod["spec"]) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            sums.insert(name, amount);
        }
    }
    for (name, value) in members(&pod["spec"]["overhead"]) {
        // Overhead counts on top of limits only where there are some.
        if let Some(amount) = value.as_str().and_then(|value| Quantity::parse(value).ok())
            && (what == "requests" || sums.contains_key(name))
        {
            add(&mut sums, Usage::from([(name.clone(), amount)]));
        }
    }
    sums
}

fn service(service: &Value, usage: &mut Usage) {
    let count = |n: usize| Quantity::new(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi);
    let ports = items(&service["spec"]["ports"]).count();
    let kind = text(service, "/spec/type");
    let allocates = service["spec"]["allocateLoadBalancerNodePorts"] != false;
    usage.insert("services".into(), count(1));
    usage.insert("services.loadbalancers".into(), count(usize::from(kind == "LoadBalancer")));
    let node_ports = match kind {
        "NodePort" => ports,
        "LoadBalancer" if allocates => ports,
        "LoadBalancer" => items(&service["spec"]["ports"]).filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count(),
        _ => 0,
    };
    usage.insert("services.nodeports".into(), count(node_ports));
}

fn claim(claim: &Value, usage: &mut Usage) {
    let one = Quantity::new(1, Format::DecimalSi);
    let class = match text(claim, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class") {
        "" => text(claim, "/spec/storageClassName"),
        annotated => annotated,
    };
    usage.insert("persistentvolumeclaims".into(), one.clone());
    let prefix = format!("{class}.storageclass.storage.k8s.io/");
    if !class.is_empty() {
        usage.insert(format!("{prefix}persistentvolumeclaims"), one);
    }
    if let Ok(storage) = Quantity::parse(text(claim, "/spec/resources/requests/storage")) {
        if !class.is_empty() {
            usage.insert(format!("{prefix}requests.storage"), storage.clone());
        }
        usage.insert("requests.storage".into(), storage);
    }
}

/// What a pod has to say because a quota counts it: `requests.cpu for: a,b`.
pub(super) fn required(request: &AdmissionRequest, object: &Value, hard: &Usage) -> Vec<String> {
    if !request.is("", "pods") {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for resource in hard.keys() {
        let (what, name) = match resource.as_str() {
            "cpu" | "memory" => ("requests", resource.as_str()),
            other => match other.split_once('.') {
                Some((what @ ("requests" | "limits"), name @ ("cpu" | "memory"))) => (what, name),
                _ => continue,
            },
        };
        let containers = items(&object["spec"]["containers"]).chain(items(&object["spec"]["initContainers"]));
        let open = containers.filter(|container| container["resources"][what].get(name).is_none());
        let mut open: Vec<_> = open.map(|container| text(container, "/name")).collect();
        open.sort_unstable();
        if !open.is_empty() {
            missing.push(format!("{resource} for: {}", open.join(",")));
        }
    }
    missing
}

/// Whether a quota's scopes take in the object.
pub(super) fn in_scope(spec: &Value, request: &AdmissionRequest, object: &Value) -> bool {
    let simple = items(&spec["scopes"]).filter_map(Value::as_str);
    simple.into_iter().all(|scope| matches(scope, "Exists", &Value::Null, request, object))
        && items(&spec["scopeSelector"]["matchExpressions"]).all(|expression| {
            matches(text(expression, "/scopeName"), text(expression, "/operator"), &expression["values"], request, object)
        })
}

fn matches(scope: &str, operator: &str, values: &Value, request: &AdmissionRequest, object: &Value) -> bool {
    let pods = request.group.is_empty() && request.resource == "pods";
    let one_of = |value: &str| {
        let listed = items(values).any(|listed| listed == value);
        match operator {
            "In" => listed,
            "NotIn" => !listed,
            "DoesNotExist" => value.is_empty(),
            _ => !value.is_empty(),
        }
    };
    match scope {
        "VolumeAttributesClass" => {
            request.resource == "persistentvolumeclaims" && one_of(text(object, "/spec/volumeAttributesClassName"))
        }
        _ if !pods => false,
        "Terminating" => object["spec"]["activeDeadlineSeconds"].is_number(),
        "NotTerminating" => !object["spec"]["activeDeadlineSeconds"].is_number(),
        "BestEffort" => is_best_effort(object),
        "NotBestEffort" => !is_best_effort(object),
        "PriorityClass" => one_of(text(object, "/spec/priorityClassName")),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    let containers = items(&pod["spec"]["containers"]).chain(items(&pod["spec"]["initContainers"]));
    containers.into_iter().all(|container| {
        ["requests", "limits"]
            .iter()
            .all(|what| members(&container["resources"][what]).all(|(name, _)| name != "cpu" && name != "memory"))
    })
}

fn crosses_namespaces(pod: &Value) -> bool {
    let affinity = &pod["spec"]["affinity"];
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = items(&affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred =
            items(&affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"]).map(|term| &term["podAffinityTerm"]);
        required.chain(preferred).any(|term| items(&term["namespaces"]).next().is_some() || term["namespaceSelector"].is_object())
    })
}
