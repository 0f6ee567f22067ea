//! Conversion between the versions in which a kind is served. Only two built-in kinds have more than one by default:
//! HorizontalPodAutoscaler (autoscaling/v1 and v2) and Event (core/v1 and events.k8s.io/v1).

use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::internal;

/// Converts a document of `resource` in place, and sets its `apiVersion`. Versions are given as `apiVersion` has them: `v1`,
/// `events.k8s.io/v1`, `autoscaling/v2`; for horizontalpodautoscalers the bare `v1` and `v2` are taken too. `group` is the
/// group of the request. Nothing happens when the versions are equal or the kind has but one.
pub fn convert(group: &str, resource: &str, from: &str, to: &str, object: &mut Value) {
    let _ = group;
    if from == to {
        return;
    }
    match resource {
        "events" => match to {
            "events.k8s.io/v1" => event(object, "events.k8s.io/v1", false),
            "v1" => event(object, "v1", true),
            _ => {}
        },
        "horizontalpodautoscalers" => match to.rsplit('/').next() {
            Some("v2") => autoscaler_to_v2(object),
            Some("v1") => autoscaler_to_v1(object),
            _ => {}
        },
        _ => {}
    }
}

/// Core name and `events.k8s.io` name of the fields that differ, and whether the core one is always written.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn event(object: &mut Value, version: &str, to_core: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for (core, grouped) in EVENT_FIELDS {
        let (from, to) = if to_core { (grouped, core) } else { (core, grouped) };
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
    map.insert("apiVersion".into(), version.into());
    // What Go writes even when it is unset differs between the two types.
    if to_core {
        for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            map.entry(key).or_insert(Value::Null);
        }
        for key in ["involvedObject", "source"] {
            map.entry(key).or_insert_with(|| json!({}));
        }
        for key in ["reportingComponent", "reportingInstance"] {
            map.entry(key).or_insert_with(|| "".into());
        }
        map.entry("metadata").or_insert_with(|| json!({}));
    } else {
        for key in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"] {
            map.entry(key).or_insert(Value::Null);
        }
        for key in ["regarding", "deprecatedSource"] {
            map.entry(key).or_insert_with(|| json!({}));
        }
        for key in ["reportingController", "reportingInstance"] {
            if map.get(key).is_some_and(|value| value == "") {
                map.remove(key);
            }
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu_utilization(metric: &Value) -> bool {
    metric.text("type") == "Resource"
        && metric["resource"].text("name") == "cpu"
        && metric["resource"]["target"].has("averageUtilization")
}

/// v1 has one metric, cpu utilization; everything else of v2 goes into annotations, in the form of v1's own types.
fn autoscaler_to_v1(object: &mut Value) {
    object.put("apiVersion", "autoscaling/v1");
    let spec = object.object("spec");
    let metrics = spec["metrics"].clone();
    let behavior = spec["behavior"].clone();
    spec.drop_key("metrics");
    spec.drop_key("behavior");
    let all = metrics.as_array().cloned().unwrap_or_default();
    // The last metric on cpu is the one that v1 shows.
    let cpu = all.iter().rposition(is_cpu_utilization);
    if let Some(at) = cpu {
        spec.put("targetCPUUtilizationPercentage", all[at]["resource"]["target"]["averageUtilization"].clone());
    }
    let others: Vec<Value> = all.iter().filter(|metric| !is_cpu_utilization(metric)).map(metric_to_v1).collect();
    let status = object.object("status");
    let current = status["currentMetrics"].as_array().cloned().unwrap_or_default();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    status.drop_key("currentMetrics");
    status.drop_key("conditions");
    let current_cpu = |metric: &Value| {
        metric.text("type") == "Resource"
            && metric["resource"].text("name") == "cpu"
            && metric["resource"]["current"].has("averageUtilization")
    };
    if let Some(at) = current.iter().rposition(current_cpu) {
        status.put("currentCPUUtilizationPercentage", current[at]["resource"]["current"]["averageUtilization"].clone());
    }
    for key in ["currentReplicas", "desiredReplicas"] {
        if !status.has(key) {
            status.put(key, 0);
        }
    }
    let annotate = |object: &mut Value, key: &str, value: Value| {
        object.object("metadata").object("annotations").put(key, ordered(&value));
    };
    if !others.is_empty() {
        annotate(object, METRICS, json!(others));
    }
    if !current.is_empty() {
        annotate(object, CURRENT_METRICS, current.iter().map(current_to_v1).collect());
    }
    if !conditions.is_empty() {
        annotate(object, CONDITIONS, json!(conditions));
    }
    if !behavior.is_null() {
        let shown = internal::shown("HorizontalPodAutoscalerBehavior", &behavior);
        object.object("metadata").object("annotations").put(BEHAVIOR, shown);
    }
}

fn autoscaler_to_v2(object: &mut Value) {
    object.put("apiVersion", "autoscaling/v2");
    let mut take = |key: &str| -> Value {
        let metadata = object.object("metadata");
        let Some(annotations) = metadata.child("annotations") else { return Value::Null };
        let text = annotations.text(key).to_owned();
        annotations.drop_key(key);
        if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
            metadata.drop_key("annotations");
        }
        serde_json::from_str(&text).unwrap_or_default()
    };
    let (metrics, current, conditions, behavior) = (take(METRICS), take(CURRENT_METRICS), take(CONDITIONS), take(BEHAVIOR));
    let spec = object.object("spec");
    let mut all: Vec<Value> = metrics.as_array().into_iter().flatten().map(metric_to_v2).collect();
    let cpu = spec["targetCPUUtilizationPercentage"].clone();
    spec.drop_key("targetCPUUtilizationPercentage");
    if !cpu.is_null() {
        all.push(json!({
            "type": "Resource",
            "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": cpu } },
        }));
    }
    if !all.is_empty() {
        spec.put("metrics", all);
    }
    if behavior.is_object() {
        spec.put("behavior", lower(&behavior));
    }
    let status = object.object("status");
    let cpu = status["currentCPUUtilizationPercentage"].clone();
    status.drop_key("currentCPUUtilizationPercentage");
    let mut found: Vec<Value> = current.as_array().into_iter().flatten().map(current_to_v2).collect();
    if found.is_empty() && !cpu.is_null() {
        found.push(json!({
            "type": "Resource",
            "resource": { "name": "cpu", "current": { "averageUtilization": cpu } },
        }));
    }
    if let Some(map) = status.as_object_mut() {
        map.insert("currentMetrics".into(), if found.is_empty() { Value::Null } else { json!(found) });
        if conditions.is_array() {
            map.insert("conditions".into(), conditions);
        }
        if map.get("currentReplicas").is_some_and(|n| n == 0) {
            map.remove("currentReplicas");
        }
    }
}

/// A metric with each of its sources in another form, whether or not it is the one that `type` names.
fn with_sources(metric: &Value, convert: impl Fn(&str, &Value) -> Value) -> Value {
    let mut out = json!({ "type": metric.text("type") });
    for key in ["object", "pods", "resource", "containerResource", "external"] {
        if let Some(source) = metric.opt(key) {
            out.put(key, convert(key, source));
        }
    }
    out
}

/// The parts of a metric that v1 spells differently: `target` and `current` are flat there.
fn metric_to_v1(metric: &Value) -> Value {
    with_sources(metric, |key, source| {
        let target = &source["target"];
        let mut flat = named(key, source);
        match key {
            "resource" | "containerResource" => {
                flat.put("targetAverageUtilization", target["averageUtilization"].clone());
                flat.put("targetAverageValue", target["averageValue"].clone());
            }
            "pods" => flat.put("targetAverageValue", target["averageValue"].clone()),
            "object" => {
                flat.put("targetValue", target.opt("value").cloned().unwrap_or(json!("0")));
                flat.put("averageValue", target["averageValue"].clone());
            }
            _ => {
                flat.put("targetValue", target["value"].clone());
                flat.put("targetAverageValue", target["averageValue"].clone());
            }
        }
        flat
    })
}

fn current_to_v1(metric: &Value) -> Value {
    with_sources(metric, |key, source| {
        let current = &source["current"];
        let or_zero = |key: &str| current.opt(key).cloned().unwrap_or(json!("0"));
        let mut flat = named(key, source);
        match key {
            "resource" | "containerResource" => {
                flat.put("currentAverageUtilization", current["averageUtilization"].clone());
                flat.put("currentAverageValue", or_zero("averageValue"));
            }
            "pods" => flat.put("currentAverageValue", or_zero("averageValue")),
            "object" => {
                flat.put("currentValue", or_zero("value"));
                flat.put("averageValue", current["averageValue"].clone());
            }
            _ => {
                flat.put("currentValue", or_zero("value"));
                flat.put("currentAverageValue", current["averageValue"].clone());
            }
        }
        flat
    })
}

/// What a source of v2 is of, as v1 writes it.
fn named(key: &str, source: &Value) -> Value {
    let mut flat = json!({});
    match key {
        "resource" | "containerResource" => {
            flat.put("name", source["name"].clone());
            flat.put("container", source["container"].clone());
        }
        _ => {
            flat.put("target", source["describedObject"].clone());
            flat.put("metricName", source["metric"]["name"].clone());
            flat.put(selector_key(key), source["metric"]["selector"].clone());
        }
    }
    flat
}

/// The opposite of [`named`].
fn identified(key: &str, flat: &Value) -> Value {
    let mut source = json!({});
    match key {
        "resource" | "containerResource" => {
            source.put("name", flat["name"].clone());
            source.put("container", flat["container"].clone());
        }
        _ => {
            source.put("describedObject", flat["target"].clone());
            let mut identifier = json!({ "name": flat["metricName"] });
            identifier.put("selector", flat[selector_key(key)].clone());
            source.put("metric", identifier);
        }
    }
    source
}

fn selector_key(key: &str) -> &'static str {
    if key == "external" { "metricSelector" } else { "selector" }
}

fn metric_to_v2(metric: &Value) -> Value {
    with_sources(metric, |key, flat| {
        let mut target = json!({});
        match key {
            "resource" | "containerResource" => {
                target.put("averageUtilization", flat["targetAverageUtilization"].clone());
                target.put("averageValue", flat["targetAverageValue"].clone());
            }
            "pods" => target.put("averageValue", flat["targetAverageValue"].clone()),
            "object" if flat.has("averageValue") => target.put("averageValue", flat["averageValue"].clone()),
            "object" => target.put("value", flat["targetValue"].clone()),
            _ => {
                target.put("value", flat["targetValue"].clone());
                target.put("averageValue", flat["targetAverageValue"].clone());
            }
        }
        let target_kind = if target.has("averageUtilization") {
            "Utilization"
        } else if target.has("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        target.put("type", target_kind);
        let mut source = identified(key, flat);
        source.put("target", target);
        source
    })
}

fn current_to_v2(metric: &Value) -> Value {
    with_sources(metric, |key, flat| {
        let mut current = json!({});
        match key {
            "resource" | "containerResource" => {
                current.put("averageUtilization", flat["currentAverageUtilization"].clone());
                current.put("averageValue", flat["currentAverageValue"].clone());
            }
            "object" => {
                current.put("value", flat["currentValue"].clone());
                current.put("averageValue", flat["averageValue"].clone());
            }
            _ => {
                current.put("value", flat["currentValue"].clone());
                current.put("averageValue", flat["currentAverageValue"].clone());
            }
        }
        let mut source = identified(key, flat);
        source.put("current", current);
        source
    })
}

/// JSON with members in the order of the reference implementation's types: annotations are compared as text.
fn ordered(value: &Value) -> String {
    const ORDER: &[&str] = &[
        "type",
        "status",
        "lastTransitionTime",
        "reason",
        "message",
        "object",
        "pods",
        "resource",
        "containerResource",
        "external",
        "target",
        "kind",
        "name",
        "apiVersion",
        "metricName",
        "metricSelector",
        "targetAverageUtilization",
        "currentAverageUtilization",
        "targetValue",
        "currentValue",
        "targetAverageValue",
        "currentAverageValue",
        "selector",
        "averageValue",
        "container",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
    ];
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            let place = |key: &str| ORDER.iter().position(|have| *have == key).unwrap_or(ORDER.len());
            members.sort_by_key(|(key, _)| place(key));
            let members: Vec<String> =
                members.into_iter().map(|(key, value)| format!("{}:{}", json!(key), ordered(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(ordered).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// Names as the API has them: behavior is kept under the internal types' names, and read under either.
fn lower(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = json!({});
            for (key, value) in map {
                let mut chars = key.chars();
                let key: String = chars.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(chars).collect();
                out.put(&key, lower(value));
            }
            out
        }
        Value::Array(items) => items.iter().map(lower).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_kept_whatever_the_type_of_a_metric_says() {
        let current = json!([
            { "type": "", "resource": { "name": "cpu", "current": { "averageUtilization": 40, "averageValue": "100m" } } },
            { "type": "Pods", "pods": { "metric": { "name": "m" }, "current": {} }, "external": {
                "metric": { "name": "e", "selector": { "matchLabels": { "a": "b" } } }, "current": { "averageValue": "1" },
            } },
        ]);
        let mut object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" },
            "spec": { "maxReplicas": 3 }, "status": { "currentReplicas": 1, "desiredReplicas": 1, "currentMetrics": current },
        });
        autoscaler_to_v1(&mut object);
        assert_eq!(
            object["metadata"]["annotations"][CURRENT_METRICS],
            "[{\"type\":\"\",\"resource\":{\"name\":\"cpu\",\"currentAverageUtilization\":40,\"currentAverageValue\":\"100m\"}},\
             {\"type\":\"Pods\",\"pods\":{\"metricName\":\"m\",\"currentAverageValue\":\"0\"},\
             \"external\":{\"metricName\":\"e\",\"metricSelector\":{\"matchLabels\":{\"a\":\"b\"}},\"currentValue\":\"0\",\
             \"currentAverageValue\":\"1\"}}]"
        );
        autoscaler_to_v2(&mut object);
        assert_eq!(object["status"]["currentMetrics"][1]["external"]["current"], json!({ "value": "0", "averageValue": "1" }));
    }
}
