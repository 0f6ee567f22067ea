//! HorizontalPodAutoscalers, in the form of autoscaling/v2.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::quantity::Quantity;
use crate::{Column, Context, Strategy, check, columns, names, table};

pub(crate) struct HorizontalPodAutoscalers;

impl Strategy for HorizontalPodAutoscalers {
    fn default(&self, object: &mut Value) {
        drop_round_trip(object);
        let spec = object.object("spec");
        if !spec.has("minReplicas") {
            spec.put("minReplicas", 1);
        }
        if spec.list("metrics").is_empty() {
            spec.put(
                "metrics",
                json!([{ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } } }]),
            );
        }
        if let Some(behavior) = spec.child("behavior") {
            let up = [
                json!({ "type": "Pods", "value": 4, "periodSeconds": 15 }),
                json!({ "type": "Percent", "value": 100, "periodSeconds": 15 }),
            ];
            let down = [json!({ "type": "Percent", "value": 100, "periodSeconds": 15 })];
            rules(behavior.object("scaleUp"), &up, Some(0));
            rules(behavior.object("scaleDown"), &down, None);
        }
        let status = object.object("status");
        if !status.has("desiredReplicas") {
            status.put("desiredReplicas", 0);
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({ "desiredReplicas": 0, "currentMetrics": null }));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, &object["spec"], None);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, &object["spec"], Some(&old["spec"]));
        faults
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("status");
        for key in ["currentReplicas", "desiredReplicas"] {
            check::field_not_negative(&mut faults, &path, &object["status"], key);
        }
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::HORIZONTALPODAUTOSCALERS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        let least = spec.opt_int("minReplicas").map_or("<unset>".to_owned(), |n| n.to_string());
        vec![
            table::name(object),
            format!("{}/{}", target.text("kind"), target.text("name")).into(),
            metrics_shown(spec.list("metrics"), status.list("currentMetrics")).into(),
            least.into(),
            table::number(spec, "maxReplicas"),
            table::number(status, "currentReplicas"),
            table::age(object, now),
        ]
    }
}

/// Drops the annotations in which autoscaling/v1 carries what it has no fields for: v2 has fields for all of it.
fn drop_round_trip(object: &mut Value) {
    const NAMES: [&str; 6] =
        ["metrics", "behavior", "scale-down-tolerance", "scale-up-tolerance", "current-metrics", "conditions"];
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    let is_one = |name: &str| name.strip_prefix("autoscaling.alpha.kubernetes.io/").is_some_and(|name| NAMES.contains(&name));
    let before = annotations.len();
    annotations.retain(|name, _| !is_one(name));
    if annotations.is_empty() && before > 0 {
        object["metadata"].drop_key("annotations");
    }
}

fn rules(rules: &mut Value, policies: &[Value], window: Option<i64>) {
    if !rules.has("selectPolicy") {
        rules.put("selectPolicy", "Max");
    }
    if let Some(window) = window
        && !rules.has("stabilizationWindowSeconds")
    {
        rules.put("stabilizationWindowSeconds", window);
    }
    if !rules.has("policies") {
        rules.put("policies", policies.to_vec());
    }
}

fn source_key(kind: &str) -> &'static str {
    match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        _ => "external",
    }
}

/// `cpu: 20%/60%`, the first two metrics and how many more there are.
fn metrics_shown(specs: &[Value], currents: &[Value]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let one = |(i, metric): (usize, &Value)| -> String {
        let kind = metric.text("type");
        let key = source_key(kind);
        let (source, current) = (&metric[key], currents.get(i).and_then(|c| c.opt(key)).map(|c| &c["current"]));
        let target = &source["target"];
        let now =
            |field: &str| current.and_then(|c| c.opt(field)).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        let average = target.opt_text("averageValue");
        // Go writes a quantity that is not there; whether it looks first depends on the metric.
        let known = if current.is_some() { "<nil>" } else { "<unknown>" };
        match kind {
            "Resource" | "ContainerResource" => {
                let name = source.text("name");
                match average {
                    Some(wanted) => format!("{name}: {}/{wanted}", now("averageValue").unwrap_or(known.into())),
                    None => {
                        let have = now("averageUtilization").map_or("<unknown>".to_owned(), |n| format!("{n}%"));
                        let wanted = target.opt_int("averageUtilization").map_or("<auto>".to_owned(), |n| format!("{n}%"));
                        format!("{name}: {have}/{wanted}")
                    }
                }
            }
            _ => match average {
                Some(wanted) => {
                    let (avg, absent) = if kind == "Pods" { ("", known) } else { (" (avg)", "<unknown>") };
                    format!("{}/{wanted}{avg}", now("averageValue").unwrap_or(absent.into()))
                }
                None => format!("{}/{}", now("value").unwrap_or(known.into()), target.text("value")),
            },
        }
    };
    let shown: Vec<String> = specs.iter().enumerate().take(2).map(one).collect();
    let more = specs.len().saturating_sub(2);
    let listed = shown.join(", ");
    if more > 0 { format!("{listed} + {more} more...") } else { listed }
}

fn spec(faults: &mut Faults, spec: &Value, old: Option<&Value>) {
    let path = Path::new("spec");
    let (least, most) = (spec.opt_int("minReplicas"), spec.int("maxReplicas"));
    // Scaling to zero is off by default; what scaled to zero once may go on.
    let bound = i64::from(old.is_none_or(|old| old.opt_int("minReplicas") != Some(0)));
    if let Some(least) = least.filter(|n| *n < bound) {
        faults.invalid_int(&path.child("minReplicas"), least, &format!("must be greater than or equal to {bound}"));
    }
    match most {
        0 => faults.required(&path.child("maxReplicas"), "must be set and greater than 0"),
        ..0 => faults.invalid_int(&path.child("maxReplicas"), most, "must be greater than or equal to 1"),
        _ => {}
    }
    if least.is_some_and(|least| most < least) {
        faults.invalid_int(&path.child("maxReplicas"), most, "must be greater than or equal to `minReplicas`");
    }
    let target = &spec["scaleTargetRef"];
    let same_target = old.is_some_and(|old| {
        let before = &old["scaleTargetRef"];
        before.text("apiVersion") == target.text("apiVersion") && before.text("kind") == target.text("kind")
    });
    let version = match (same_target, target.text("kind")) {
        (true, _) => Version::Any,
        (false, "ReplicationController") => Version::AnyGroup,
        (false, _) => Version::Grouped,
    };
    reference(faults, &path.child("scaleTargetRef"), target, version);
    let was_wrong = old.is_some_and(|old| {
        old.list("metrics").iter().any(|metric| {
            let described = &metric["object"]["describedObject"];
            metric.text("type") == "Object"
                && metric.has("object")
                && version_fault(described.text("apiVersion"), Version::AnyGroup).is_some()
        })
    });
    let version = if was_wrong { Version::Any } else { Version::AnyGroup };
    let metrics = path.child("metrics");
    let mut outside = false;
    for (i, item) in spec.list("metrics").iter().enumerate() {
        metric(faults, &metrics.index(i), item, version);
        outside |= matches!(item.text("type"), "Object" | "External");
    }
    if least == Some(0) && !outside {
        faults.forbidden(&metrics, "must specify at least one Object or External metric to support scaling to zero replicas");
    }
    let behavior = path.child("behavior");
    for key in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec["behavior"].opt(key) {
            scaling_rules(faults, &behavior.child(key), rules);
        }
    }
}

/// What an `apiVersion` in a reference must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Anything: what is stored already stays usable.
    Any,
    /// Readable as a group and a version; the core group has no name.
    AnyGroup,
    /// With the name of a group.
    Grouped,
}

fn version_fault(text: &str, wanted: Version) -> Option<String> {
    if wanted == Version::Any {
        return None;
    }
    let group = match text.matches('/').count() {
        0 => "",
        1 => text.split('/').next().unwrap_or_default(),
        _ => return Some(format!("unexpected GroupVersion string: {text}")),
    };
    (wanted == Version::Grouped && group.is_empty()).then(|| "apiVersion must specify API group".to_owned())
}

fn reference(faults: &mut Faults, path: &Path<'_>, reference: &Value, version: Version) {
    for key in ["kind", "name"] {
        let value = reference.text(key);
        if value.is_empty() {
            faults.required(&path.child(key), "");
        } else {
            check::invalid_each(faults, &path.child(key), value, names::name_is_path_segment(value, false));
        }
    }
    let text = reference.text("apiVersion");
    if let Some(fault) = version_fault(text, version) {
        faults.invalid_str(&path.child("apiVersion"), text, &fault);
    }
}

fn scaling_rules(faults: &mut Faults, path: &Path<'_>, rules: &Value) {
    if let Some(window) = rules.opt_int("stabilizationWindowSeconds") {
        let at = path.child("stabilizationWindowSeconds");
        if window < 0 {
            faults.invalid_int(&at, window, "must be greater than or equal to zero");
        }
        if window > 3600 {
            faults.invalid_int(&at, window, "must be less than or equal to 3600");
        }
    }
    check::optional_one_of(faults, path, rules, "selectPolicy", &["Disabled", "Max", "Min"]);
    let at = path.child("policies");
    if rules.list("policies").is_empty() {
        faults.required(&at, "must specify at least one Policy");
    }
    for (i, policy) in rules.list("policies").iter().enumerate() {
        let here = at.index(i);
        check::one_of(faults, &here.child("type"), policy.text("type"), &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            if policy.int(key) <= 0 {
                faults.invalid_int(&here.child(key), policy.int(key), "must be greater than zero");
            }
        }
        if policy.int("periodSeconds") > 1800 {
            faults.invalid_int(&here.child("periodSeconds"), policy.int("periodSeconds"), "must be less than or equal to 1800");
        }
    }
    if let Some(tolerance) = Quantity::of(&rules["tolerance"]).filter(Quantity::is_negative) {
        faults.invalid_str(&path.child("tolerance"), &tolerance.to_string(), check::NEGATIVE);
    }
}

fn metric(faults: &mut Faults, path: &Path<'_>, metric: &Value, version: Version) {
    const KINDS: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.text("type");
    if kind.is_empty() {
        faults.required(&path.child("type"), "must specify a metric source type");
    }
    check::one_of(faults, &path.child("type"), kind, KINDS);
    let mut filled = Vec::new();
    for key in ["object", "external", "pods", "resource", "containerResource"] {
        let Some(source) = metric.opt(key) else { continue };
        let at = path.child(key);
        if filled.is_empty() {
            metric_source(faults, &at, key, source, version);
        }
        filled.push(key);
    }
    let expected = match kind {
        "Resource" | "ContainerResource" | "Pods" | "Object" | "External" => Some(source_key(kind)),
        _ => None,
    };
    match expected {
        None => faults.not_supported(&path.child("type"), kind, KINDS),
        Some(expected) if !filled.contains(&expected) => {
            faults.required(&path.child(expected), "must populate information for the given metric source");
        }
        Some(_) => {}
    }
    // A single source, though not the one named, is not forbidden as well.
    if filled.len() > 1 {
        for key in filled.iter().filter(|key| Some(**key) != expected) {
            faults.forbidden(&path.child(key), "must populate the given metric source only");
        }
    }
}

fn metric_source(faults: &mut Faults, path: &Path<'_>, key: &str, source: &Value, version: Version) {
    let target = &source["target"];
    let at = path.child("target");
    let (value, average, utilization) = (target.has("value"), target.has("averageValue"), target.has("averageUtilization"));
    if matches!(key, "resource" | "containerResource") {
        let name = source.text("name");
        if name.is_empty() {
            faults.required(&path.child("name"), "must specify a resource name");
        }
        if key == "containerResource" {
            if !name.is_empty() {
                crate::resources::check_container_name(faults, &path.child("name"), name);
            }
            match source.text("container") {
                "" => faults.required(&path.child("container"), "must specify a container"),
                container => check::dns_label(faults, &path.child("container"), container),
            }
        }
        metric_target(faults, &at, target);
        if !utilization && !average {
            faults.required(&at.child("averageUtilization"), "must set either a target raw value or a target utilization");
        }
        if utilization && average {
            faults.forbidden(&at.child("averageValue"), "may not set both a target raw value and a target utilization");
        }
        return;
    }
    if key == "object" {
        reference(faults, &path.child("describedObject"), &source["describedObject"], version);
    }
    let identifier = path.child("metric");
    let name = source["metric"].text("name");
    if name.is_empty() {
        faults.required(&identifier.child("name"), "must specify a metric name");
    } else {
        check::invalid_each(faults, &identifier.child("name"), name, names::name_is_path_segment(name, false));
    }
    metric_target(faults, &at, target);
    match key {
        "pods" => {
            if !average {
                faults.required(&at.child("averageValue"), "must specify a positive target averageValue");
            }
        }
        _ => {
            if !value && !average {
                let detail = if key == "object" {
                    "must set either a target value or averageValue"
                } else {
                    "must set either a target value for metric or a per-pod target"
                };
                faults.required(&at.child("averageValue"), detail);
            }
            if value && average && key == "external" {
                faults.forbidden(&at.child("value"), "may not set both a target value for metric and a per-pod target");
            }
        }
    }
}

fn metric_target(faults: &mut Faults, path: &Path<'_>, target: &Value) {
    let kind = target.text("type");
    if kind.is_empty() {
        faults.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        faults.invalid_str(&path.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    if let Some(value) = Quantity::of(&target["value"]).filter(|value| !value.is_positive()) {
        faults.invalid_str(&path.child("value"), &value.to_string(), "must be positive");
    }
    if let Some(value) = Quantity::of(&target["averageValue"]).filter(|value| !value.is_positive()) {
        faults.invalid_str(&path.child("averageValue"), &value.to_string(), "must be positive");
    }
    if let Some(percent) = target.opt_int("averageUtilization").filter(|percent| *percent < 1) {
        faults.invalid_int(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn values_that_are_not_there_are_unknown_or_nil() {
        //    type        target                                    current                             shown
        check("Resource", json!({"averageValue": "5"}),             Some(json!({"averageValue": "1"})), "m: 1/5");
        check("Resource", json!({"averageValue": "5"}),             Some(json!({})),                    "m: <nil>/5");
        check("Resource", json!({"averageValue": "5"}),             None,                               "m: <unknown>/5");
        check("Resource", json!({"averageUtilization": 5}),         Some(json!({})),                    "m: <unknown>/5%");
        check("Pods",     json!({"averageValue": "5"}),             Some(json!({})),                    "<nil>/5");
        check("Object",   json!({"averageValue": "5"}),             Some(json!({})),                    "<unknown>/5 (avg)");
        check("External", json!({"value": "5"}),                    Some(json!({"averageValue": "1"})), "<nil>/5");
        check("External", json!({"value": "5"}),                    None,                               "<unknown>/5");
        #[track_caller]
        fn check(kind: &str, target: Value, current: Option<Value>, shown: &str) {
            let key = source_key(kind);
            let spec = json!({"type": kind, key: {"name": "m", "metric": {"name": "m"}, "target": target}});
            let status: Vec<Value> = current.map(|current| json!({"type": kind, key: {"current": current}})).into_iter().collect();
            assert_eq!(metrics_shown(&[spec], &status), shown);
        }
    }
}
