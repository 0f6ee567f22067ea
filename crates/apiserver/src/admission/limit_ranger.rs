//! LimitRanger: the defaults and bounds that LimitRanges set for what containers, pods and claims may ask for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use corten_api::quantity::{Format, Quantity};
use corten_api::status::Status;

use super::tools::{aggregate, done, items, map_mut, members, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::reader::Reader;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger {
    pub(super) reader: Reader,
}

impl LimitRanger {
    fn ranges(&self, request: &AdmissionRequest) -> Vec<Value> {
        self.reader.list("", "limitranges", &request.namespace).iter().map(|entry| entry.decode()).collect()
    }

    fn change(&self, request: &mut AdmissionRequest) {
        if request.resource != "pods" {
            return;
        }
        let ranges = self.ranges(request);
        if let Some(pod) = &mut request.object {
            for range in &ranges {
                fill_in(pod, range);
            }
        }
    }

    fn check(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let Some(object) = &request.object else { return Ok(()) };
        for range in self.ranges(request) {
            let mut faults = Vec::new();
            for limit in items(&range["spec"]["limits"]) {
                match request.resource.as_str() {
                    "pods" => check_pod(object, limit, &mut faults),
                    _ => check_claim(object, limit, &mut faults),
                }
            }
            if !faults.is_empty() {
                return Err(request.forbidden(&aggregate(&faults)));
            }
        }
        Ok(())
    }
}

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let covered = match (request.operation, request.subresource.as_str()) {
            (Operation::Create, "") => request.is("", "pods") || request.is("", "persistentvolumeclaims"),
            // What a pod's containers ask for is changed through this alone, not by an update of the pod.
            (Operation::Update, "resize") => request.group.is_empty() && request.resource == "pods",
            (Operation::Update, "") => request.is("", "persistentvolumeclaims"),
            _ => false,
        };
        let is_going = || request.old.as_ref().is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null());
        covered && !is_going()
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        self.change(request);
        done(Ok(()))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        done(self.check(request))
    }
}

/// Gives containers what they do not ask for, and notes that in an annotation.
fn fill_in(pod: &mut Value, range: &Value) {
    let (mut limits, mut requests) = (Map::new(), Map::new());
    for limit in items(&range["spec"]["limits"]).filter(|limit| limit["type"] == "Container") {
        limits.extend(members(&limit["default"]).map(|(name, value)| (name.clone(), value.clone())));
        requests.extend(members(&limit["defaultRequest"]).map(|(name, value)| (name.clone(), value.clone())));
    }
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = text(container, "/name").to_owned();
            let mut set = |what: &str, defaults: &Map<String, Value>| -> Vec<String> {
                let held = map_mut(map_value(container, "resources"), what);
                let missing: Vec<_> = defaults.iter().filter(|(name, _)| !held.contains_key(*name)).collect();
                let names = missing.iter().map(|(name, _)| (*name).clone()).collect();
                held.extend(missing.into_iter().map(|(name, value)| (name.clone(), value.clone())));
                names
            };
            let (limited, requested) = (set("limits", &limits), set("requests", &requests));
            for (names, what) in [(requested, "request"), (limited, "limit")] {
                if !names.is_empty() {
                    notes.push(format!("{} {what} for {kind} {name}", names.join(", ")));
                }
            }
            for what in ["limits", "requests"] {
                if container.pointer(&format!("/resources/{what}")).and_then(Value::as_object).is_some_and(Map::is_empty) {
                    map_mut(container, "resources").remove(what);
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        map_mut(map_value(pod, "metadata"), "annotations").insert(ANNOTATION.into(), note.into());
    }
}

fn map_value<'v>(object: &'v mut Value, field: &str) -> &'v mut Value {
    map_mut(object, field);
    &mut object[field]
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(value: &Value) -> Amounts {
    let parsed = members(value).filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?)));
    parsed.collect()
}

fn check_pod(pod: &Value, limit: &Value, faults: &mut Vec<String>) {
    let containers = || items(&pod["spec"]["containers"]).chain(items(&pod["spec"]["initContainers"]));
    match text(limit, "/type") {
        "Container" => {
            for container in containers() {
                let (requests, limits) =
                    (amounts(&container["resources"]["requests"]), amounts(&container["resources"]["limits"]));
                check("Container", limit, &requests, &limits, faults);
            }
        }
        "Pod" => {
            let total = |what: &str| total(pod, what);
            check("Pod", limit, &total("requests"), &total("limits"), faults);
        }
        _ => {}
    }
}

/// What a pod asks for: the sum over its containers, or the largest init container where that is more. What one container
/// leaves open is open for the pod.
fn total(pod: &Value, what: &str) -> Amounts {
    let of = |list: &str| items(&pod["spec"][list]).map(|container| amounts(&container["resources"][what])).collect::<Vec<_>>();
    let (main, init) = (of("containers"), of("initContainers"));
    let mut sums = main.first().cloned().unwrap_or_default();
    sums.retain(|name, _| main.iter().all(|amounts| amounts.contains_key(name)));
    for amounts in main.iter().skip(1) {
        for (name, sum) in &mut sums {
            sum.add(&amounts[name]);
        }
    }
    for amounts in init {
        for (name, amount) in amounts {
            if let Some(sum) = sums.get_mut(&name)
                && *sum < amount
            {
                *sum = amount;
            }
        }
    }
    // Upstream sums in thousandths of a core and in whole units of all else.
    let plain = |(name, sum): (String, Quantity)| {
        let sum = match name.as_str() {
            "cpu" => Quantity::from_milli(sum.milli_value(), Format::DecimalSi),
            _ => Quantity::new(sum.value(), Format::DecimalSi),
        };
        (name, sum)
    };
    sums.into_iter().map(plain).collect()
}

fn check(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    for (name, bound) in amounts(&limit["min"]) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        let head = format!("minimum {name} usage per {kind} is {bound}");
        match (request, limit) {
            (None, _) => faults.push(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < bound => faults.push(format!("{head}, but request is {request}")),
            (_, Some(limit)) if *limit < bound => faults.push(format!("{head}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(&limit["max"]) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        let head = format!("maximum {name} usage per {kind} is {bound}");
        match (request, limit) {
            (_, None) => faults.push(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => faults.push(format!("{head}, but limit is {limit}")),
            (Some(request), _) if *request > bound => faults.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(&limit["maxLimitRequestRatio"]) {
        let head = format!("{name} max limit to request ratio per {kind} is {bound}");
        let set = |amounts: &Amounts| amounts.get(&name).filter(|amount| !amount.is_zero()).map(Quantity::to_f64);
        match (set(requests), set(limits)) {
            (None, _) => faults.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => faults.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit / request > bound.to_f64() => {
                faults.push(format!("{head}, but provided ratio is {:.6}", limit / request));
            }
            _ => {}
        }
    }
}

fn check_claim(claim: &Value, limit: &Value, faults: &mut Vec<String>) {
    if limit["type"] != "PersistentVolumeClaim" {
        return;
    }
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    for (name, bound) in amounts(&limit["min"]) {
        let head = format!("minimum {name} usage per PersistentVolumeClaim is {bound}");
        match requests.get(&name) {
            None => faults.push(format!("{head}.  No request is specified")),
            Some(request) if *request < bound => faults.push(format!("{head}, but request is {request}")),
            Some(_) => {}
        }
    }
    for (name, bound) in amounts(&limit["max"]) {
        let head = format!("maximum {name} usage per PersistentVolumeClaim is {bound}");
        match requests.get(&name) {
            None => faults.push(format!("{head}.  No request is specified")),
            Some(request) if *request > bound => faults.push(format!("{head}, but request is {request}")),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: &[Value]) -> Value {
        let containers: Vec<_> = resources.iter().map(|resources| json!({"name": "c", "resources": resources})).collect();
        json!({"metadata": {}, "spec": {"containers": containers}})
    }

    #[test]
    fn defaults_are_filled_in_and_noted() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "200m", "memory": "64Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "64Mi"}}]}});
        let mut pod = pod(&[json!({"requests": {"cpu": "1m"}})]);
        fill_in(&mut pod, &range);
        let expected = json!({"requests": {"cpu": "1m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
        assert_eq!(pod["spec"]["containers"][0]["resources"], expected);
        let note = "LimitRanger plugin set: memory request for container c; cpu, memory limit for container c";
        assert_eq!(pod["metadata"]["annotations"][ANNOTATION], note);
    }

    #[test]
    #[rustfmt::skip]
    fn bounds_are_told_in_upstreams_words() {
        let cpu = |limit: &str| json!({"limits": {"cpu": limit}, "requests": {"cpu": limit}});
        judge(&[cpu("1")], json!({"type": "Container", "max": {"cpu": "500m"}}), "maximum cpu usage per Container is 500m, but limit is 1");
        judge(&[json!({})], json!({"type": "Container", "min": {"cpu": "1"}}), "minimum cpu usage per Container is 1.  No request is specified");
        judge(&[cpu("600m"), cpu("600m")], json!({"type": "Pod", "max": {"cpu": "1"}}), "maximum cpu usage per Pod is 1, but limit is 1200m");
        judge(&[cpu("400m"), cpu("400m")], json!({"type": "Pod", "max": {"cpu": "1"}}), "");
        judge(&[json!({"limits": {"cpu": "3"}, "requests": {"cpu": "1"}})], json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000");
        #[track_caller]
        fn judge(resources: &[Value], limit: Value, expected: &str) {
            let mut faults = Vec::new();
            check_pod(&pod(resources), &limit, &mut faults);
            assert_eq!(faults.join("|"), expected);
        }
    }
}
