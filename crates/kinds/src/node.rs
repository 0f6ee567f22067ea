//! Nodes: taints, pod CIDRs, capacity.

use std::cmp::Ordering;
use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::pod::{defaults, scheduling};
use crate::{Column, Context, Strategy, addresses, check, columns, internal, names, table};

pub(crate) struct Nodes;

impl Strategy for Nodes {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        let status = object.object("status");
        defaults::round_up(status, "capacity");
        if !status.has("allocatable") && status.has("capacity") {
            let capacity = status["capacity"].clone();
            status.put("allocatable", capacity);
        }
        defaults::round_up(status, "allocatable");
        status.object("daemonEndpoints").object("kubeletEndpoint").default_int("Port", 0);
        // `podCIDR` is the first of `podCIDRs`. Where they differ it is the older field that counts: whoever wrote it may not
        // know the newer one.
        let spec = object.object("spec");
        let single = spec.text("podCIDR").to_owned();
        if !single.is_empty() && spec.texts("podCIDRs").next() != Some(&single) {
            spec.put("podCIDRs", json!([single]));
        }
        if let Some(first) = spec.list("podCIDRs").first().cloned() {
            spec.put("podCIDR", first);
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.object("spec").drop_key("configSource");
        object.object("status").drop_key("config");
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let metadata = Path::new("metadata");
        taints(&mut faults, &metadata.child("taints"), object["spec"].list("taints"));
        amounts(&mut faults, object);
        if let Some(capacity) = object["status"]["nodeInfo"]["swap"].opt_int("capacity").filter(|capacity| *capacity <= 0) {
            faults.invalid_int(&metadata.child("nodeSwapStatus").child("capacity"), capacity, check::NOT_POSITIVE);
        }
        declared_features(&mut faults, &object["status"]);
        pod_cidrs(&mut faults, &object["spec"]);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        if !old["spec"].has("configSource") {
            object.object("spec").drop_key("configSource");
        }
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "spec");
        if !old["status"].has("config") {
            object.object("status").drop_key("config");
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        // The reference server checks the new node as a whole and then as a change, so some faults come twice.
        let mut faults = self.validate(object, ctx);
        faults.0.extend(self.validate_status(object, old, ctx).0);
        faults
    }

    fn validate_status(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let metadata = Path::new("metadata");
        amounts(&mut faults, object);
        declared_features(&mut faults, &object["status"]);
        let status = Path::new("status");
        let addresses = status.child("addresses");
        let mut seen = HashSet::new();
        for (i, address) in object["status"].list("addresses").iter().enumerate() {
            if !seen.insert((address.text("type"), address.text("address"))) {
                let shown = internal::shown("NodeAddress", address);
                check::duplicate_shown(&mut faults, &addresses.index(i), &shown, "");
            }
        }
        let spec = Path::new("spec");
        let (new_spec, old_spec) = (&object["spec"], &old["spec"]);
        let (now, before) = (new_spec.list("podCIDRs"), old_spec.list("podCIDRs"));
        if !before.is_empty() {
            let changes = if now.len() == before.len() { now.iter().zip(before).filter(|(a, b)| a != b).count() } else { 1 };
            for _ in 0..changes {
                let detail = "node updates may not change podCIDR except from \"\" to valid";
                faults.forbidden(&spec.child("podCIDRs"), detail);
            }
        }
        let provider = old_spec.text("providerID");
        if !provider.is_empty() && provider != new_spec.text("providerID") {
            let detail = "node updates may not change providerID except from \"\" to valid";
            faults.forbidden(&spec.child("providerID"), detail);
        }
        taints(&mut faults, &metadata.child("taints"), new_spec.list("taints"));
        if new_spec.text("externalID") != old_spec.text("externalID") {
            faults.forbidden(&spec.child("externalID"), "may not be updated");
        }
        faults
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if object["spec"].has("configSource") {
            warnings.push("spec.configSource: the feature is removed".into());
        }
        if !object["spec"].text("externalID").is_empty() {
            warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        warnings.extend(addresses::cidr_list_warnings("spec.podCIDRs", object["spec"].texts("podCIDRs")));
        warnings
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", object["spec"].flag("unschedulable").to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::NODES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let info = &status["nodeInfo"];
        let ready = status.list("conditions").iter().rev().find(|condition| condition.text("type") == "Ready");
        let mut state = match ready.map(|condition| condition.text("status")) {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        }
        .to_owned();
        if spec.flag("unschedulable") {
            state.push_str(",SchedulingDisabled");
        }
        let address = |kind: &str| {
            let found = status.list("addresses").iter().find(|address| address.text("type") == kind);
            found.map_or("<none>", |address| address.text("address")).to_owned()
        };
        let known = |key: &str| table::or(info.text(key), "<unknown>").to_owned();
        let mut kernel = known("kernelVersion");
        if info.has("kernelVersion") && !info.text("architecture").is_empty() {
            kernel = format!("{kernel} ({})", info.text("architecture"));
        }
        vec![
            table::name(object),
            state.into(),
            roles(object).into(),
            table::age(object, now),
            info.text("kubeletVersion").into(),
            address("InternalIP").into(),
            address("ExternalIP").into(),
            known("osImage").into(),
            kernel.into(),
            known("containerRuntimeVersion").into(),
        ]
    }
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = node["metadata"]
        .map("labels")
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn taints(faults: &mut Faults, path: &Path<'_>, taints: &[Value]) {
    let mut seen = HashSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        let (key, effect) = (taint.text("key"), taint.text("effect"));
        check::qualified_name(faults, &at.child("key"), key);
        check::label_value_joined(faults, &at.child("value"), taint.text("value"));
        check::required_one_of(faults, &at.child("effect"), effect, scheduling::TAINT_EFFECTS);
        if !seen.insert((key, effect)) {
            let shown = internal::shown("Taint", taint);
            check::duplicate_shown(faults, &at, &shown, "taints must be unique by key and effect pair");
        }
    }
}

fn amounts(faults: &mut Faults, node: &Value) {
    let status = Path::new("status");
    for list in ["capacity", "allocatable"] {
        let at = status.child(list);
        for (name, amount) in node["status"].map(list) {
            check::resource_quantity(faults, &at.child(name), name, amount);
        }
    }
}

/// Features that a node says it has are names in camel case, sorted and each once (KEP-5328).
fn declared_features(faults: &mut Faults, status: &Value) {
    const LONGEST: usize = 253;
    let root = Path::new("status");
    let path = root.child("declaredFeatures");
    let names: Vec<&str> = status.texts("declaredFeatures").collect();
    for (i, name) in names.iter().enumerate() {
        let shown = corten_api::field::quoted(name);
        let wrong = if name.len() > LONGEST {
            Some(format!("must be no more than {LONGEST} characters"))
        } else if is_feature_name(name) {
            None
        } else {
            let rule = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or \
                        MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";
            Some(rule.to_owned())
        };
        if let Some(rule) = wrong {
            faults.invalid_str(&path.index(i), name, &format!("invalid feature name {shown}: {rule}"));
        }
        if let Some(next) = names.get(i + 1) {
            match name.cmp(next) {
                Ordering::Less => {}
                Ordering::Equal => check::duplicate(faults, &path.index(i + 1), next),
                Ordering::Greater => faults.invalid_str(&path.index(i + 1), next, "list must be sorted alphabetically"),
            }
        }
    }
}

fn is_feature_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .split('/')
            .all(|part| part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn pod_cidrs(faults: &mut Faults, spec: &Value) {
    let root = Path::new("spec");
    let path = root.child("podCIDRs");
    let all: Vec<&str> = spec.texts("podCIDRs").collect();
    for (i, value) in all.iter().enumerate() {
        check::cidr(faults, &path.index(i), value);
    }
    if all.len() < 2 {
        return;
    }
    let families: Option<Vec<bool>> = all.iter().map(|cidr| names::parse_cidr(cidr).map(|(ip, _)| ip.is_ipv6())).collect();
    if families.is_none() {
        let bad = all.iter().position(|cidr| names::parse_cidr(cidr).is_none()).unwrap_or_default();
        let detail = format!(
            "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{bad}]: <nil> (invalid CIDR address: {})",
            all[bad]
        );
        faults.internal(&path, &detail);
    }
    if !families.is_some_and(|families| check::is_dual_stack(&families)) || all.len() > 2 {
        faults.invalid(&path, &spec["podCIDRs"], "may specify no more than one CIDR for each IP family");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, shown};

    #[test]
    fn writes_of_the_status_tell_its_faults_once() {
        let old = json!({ "spec": {}, "status": {} });
        let new = json!({ "spec": {}, "status": { "capacity": { "cpu": "-1" } } });
        let fault = "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0";
        assert_eq!(shown(&Nodes.validate_status(&new, &old, &context("status"))), [fault]);
        assert_eq!(shown(&Nodes.validate_update(&new, &old, &context(""))), [fault, fault]);
    }

    #[test]
    fn the_older_field_of_the_pod_cidr_counts() {
        for (single, list, expected) in [
            ("10.1.0.0/24", json!(["10.2.0.0/24", "fd00::/64"]), json!(["10.1.0.0/24"])),
            ("10.1.0.0/24", json!(["10.1.0.0/24", "fd00::/64"]), json!(["10.1.0.0/24", "fd00::/64"])),
            ("", json!(["10.2.0.0/24"]), json!(["10.2.0.0/24"])),
            ("10.1.0.0/24", json!([]), json!(["10.1.0.0/24"])),
        ] {
            let mut node = json!({ "spec": { "podCIDR": single, "podCIDRs": list } });
            Nodes.default(&mut node);
            assert_eq!((&node["spec"]["podCIDRs"], &node["spec"]["podCIDR"]), (&expected, &expected[0]));
        }
    }

    #[test]
    fn declared_features_are_sorted_names() {
        let check =
            |features: Value| shown(&Nodes.validate(&json!({ "status": { "declaredFeatures": features } }), &context("")));
        assert!(check(json!(["A", "A/b1", "B"])).is_empty());
        let sorted = "status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically";
        assert_eq!(check(json!(["B", "A"])), [sorted]);
        assert_eq!(check(json!(["B", "B"])), ["status.declaredFeatures[1]: Duplicate value: \"B\""]);
        assert_eq!(check(json!(["a", "A//b"])).len(), 3);
    }

    #[test]
    fn fields_of_the_past_are_warned_of() {
        let node = json!({ "spec": { "externalID": "x" } });
        let warning = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
        assert_eq!(Nodes.warnings(&node, None, &context("")), [warning]);
        assert!(Nodes.status_warnings(&node).is_empty());
    }
}
