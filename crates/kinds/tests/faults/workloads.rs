//! Jobs, autoscalers, StatefulSets, pods and what keeps their revisions.

use corten_kinds::strategy;
use serde_json::{Value, json};

use super::{create, merge, same, update};

fn job(spec: Value) -> Value {
    let mut job = json!({
        "metadata": { "name": "j", "uid": "1" },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } },
    });
    merge(&mut job["spec"], &spec);
    job
}

#[test]
fn statuses_of_jobs_are_whole_and_final() {
    let done = json!({ "conditions": [
        { "type": "SuccessCriteriaMet", "status": "True" }, { "type": "Complete", "status": "True" },
    ] });
    let late = "2024-01-01T00:00:10Z";
    check(
        json!({}),
        json!({ "active": 1 }),
        &done,
        &[
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
        ],
    );
    let finished = json!({ "startTime": late, "completionTime": late, "conditions": done["conditions"] });
    check(
        json!({}),
        finished.clone(),
        &json!({ "completionTime": "2024-01-01T00:00:11Z" }),
        &["status.completionTime: Invalid value: \"2024-01-01T00:00:11Z\": field is immutable"],
    );
    check(
        json!({}),
        finished,
        &json!({ "conditions": [] }),
        &[
            "status.completionTime: Invalid value: \"2024-01-01T00:00:10Z\": cannot set completionTime when there is no Complete=True",
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ],
    );
    let indexed = json!({ "completionMode": "Indexed", "completions": 9, "parallelism": 2, "backoffLimitPerIndex": 1 });
    check(
        indexed,
        json!({}),
        &json!({ "completedIndexes": "1-4", "failedIndexes": "0,3" }),
        &["status.failedIndexes: Invalid value: \"0,3\": failedIndexes and completedIndexes overlap at index: 3"],
    );
    check(
        json!({}),
        json!({}),
        &json!({ "completedIndexes": "1" }),
        &[
            "status.completedIndexes: Invalid value: \"1\": error parsing completedIndexes: too large index: \"1\"",
            "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed",
        ],
    );

    #[track_caller]
    fn check(spec: Value, status: Value, patch: &Value, want: &[&str]) {
        let mut old = job(spec);
        old["status"] = status;
        same(&update("batch", "jobs", "status", &old, &json!({ "status": patch })), want);
    }
}

#[test]
fn cron_jobs_name_their_zone() {
    check("Local", &["spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone"]);
    check("Mars/Olympus", &["spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus"]);
    check("", &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"]);

    #[track_caller]
    fn check(zone: &str, want: &[&str]) {
        let spec = json!({ "schedule": "@daily", "timeZone": zone, "jobTemplate": { "spec": job(json!({}))["spec"] } });
        same(&create("batch", "cronjobs", &json!({ "metadata": { "name": "c" }, "spec": spec })), want);
    }
}

#[test]
fn autoscalers_say_what_they_measure() {
    let cpu = json!({ "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 5 } });
    check(
        json!([{ "resource": cpu }]),
        &[
            "spec.metrics[0].type: Required value: must specify a metric source type",
            "spec.metrics[0].type: Unsupported value: \"\"",
            "spec.metrics[0].type: Unsupported value: \"\"",
        ],
    );
    check(
        json!([{ "type": "Pods", "pods": { "metric": {}, "target": { "averageValue": "0" } } }]),
        &[
            "spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
            "spec.metrics[0].pods.target.type: Required value: must specify a metric target type",
            "spec.metrics[0].pods.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue",
            "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
        ],
    );
    check(
        json!([{ "type": "Resource", "resource": cpu, "pods": null, "external": {} }]),
        &[
            "spec.metrics[0].external.metric.name: Required value",
            "spec.metrics[0].external.target.type: Required value",
            "spec.metrics[0].external.target.type: Invalid value",
            "spec.metrics[0].external.target.averageValue: Required value",
            "spec.metrics[0].external: Forbidden: must populate the given metric source only",
        ],
    );
    let container = json!({ "name": "gold", "container": "A", "target": { "type": "Utilization", "averageUtilization": 5 } });
    check(
        json!([{ "type": "ContainerResource", "containerResource": container }]),
        &[
            "spec.metrics[0].containerResource.name: Invalid value: \"gold\": must be a standard resource",
            "spec.metrics[0].containerResource.name: Invalid value: \"gold\": must be a standard resource for containers",
            "spec.metrics[0].containerResource.container: Invalid value: \"A\": a lowercase RFC 1123 label",
        ],
    );

    #[track_caller]
    fn check(metrics: Value, want: &[&str]) {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" });
        let spec = json!({ "maxReplicas": 3, "scaleTargetRef": target, "metrics": metrics });
        same(&create("autoscaling", "horizontalpodautoscalers", &json!({ "metadata": { "name": "h" }, "spec": spec })), want);
    }
}

#[test]
fn budgets_may_have_any_name_that_fits_a_path() {
    let budgets = strategy("policy", "poddisruptionbudgets").expect("the kind has rules");
    assert!(budgets.validate_name("Web_Budget", false).is_empty());
    assert!(!budgets.validate_name("web/budget", false).is_empty());
}

fn stateful_set(spec: Value) -> Value {
    let mut set = json!({
        "metadata": { "name": "s" },
        "spec": {
            "selector": { "matchLabels": { "app": "a" } },
            "template": {
                "metadata": { "labels": { "app": "a" } },
                "spec": { "containers": [{ "name": "c", "image": "i", "volumeMounts": [{ "name": "data", "mountPath": "/d" }] }] },
            },
            "volumeClaimTemplates": [{
                "metadata": { "name": "data" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            }],
        },
    });
    merge(&mut set["spec"], &spec);
    set
}

#[test]
fn stateful_sets_judge_what_they_make() {
    let check = |spec: Value, want: &[&str]| same(&create("apps", "statefulsets", &stateful_set(spec)), want);
    check(json!({}), &[]);
    // Claims are judged as such; two of one name are one volume.
    let claim = json!({ "metadata": { "name": "data" }, "spec": { "resources": { "requests": { "storage": "1Gi" } } } });
    check(
        json!({ "volumeClaimTemplates": [claim, claim] }),
        &[
            "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
            "spec.volumeClaimTemplates[1].spec.accessModes: Required value: at least 1 access mode is required",
        ],
    );
    // Names of the pods are the controller's.
    check(json!({ "template": { "spec": { "hostname": "A_", "subdomain": "B_" } } }), &[]);
    check(
        json!({ "selector": { "matchExpressions": [{ "key": "k", "operator": "In" }] } }),
        &[
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\"},\"matchExpressions\":[{\"key\":\"k\",\"operator\":\"In\"}]}",
        ],
    );
    // Labels of the template are judged twice.
    check(
        json!({ "template": { "metadata": { "labels": { "-": "x" } } } }),
        &["spec.template.labels: Invalid value: \"-\"", "spec.template.labels: Invalid value: \"-\""],
    );
    let old = stateful_set(json!({ "template": { "spec": { "dnsPolicy": "Odd" } } }));
    same(&update("apps", "statefulsets", "", &old, &json!({ "spec": { "replicas": 3 } })), &[]);
}

#[test]
fn pods_may_not_be_bound_and_nominated() {
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] } });
    let check = |status: Value, want: &[&str]| same(&update("", "pods", "status", &pod, &json!({ "status": status })), want);
    check(
        json!({ "nominatedNodeName": "m", "observedGeneration": -1, "conditions": [{ "type": "Ready", "observedGeneration": -2 }] }),
        &[
            "status.conditions[0].observedGeneration: Invalid value: -2: must be a non-negative integer",
            "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
            "status.observedGeneration: Invalid value: -1: must be a non-negative integer",
        ],
    );
    check(
        json!({ "extendedResourceClaimStatus": { "requestMappings": [{ "containerName": "x", "resourceName": "a/b", "requestName": "r" }] } }),
        &[
            "status.extendedResourceClaimStatus.requestMappings[0].containerName: Invalid value: \"x\": must match the name of an entry in",
            "status.extendedResourceClaimStatus.resourceClaimName: Required value",
        ],
    );
}

#[test]
fn revisions_are_counted_before_their_data_is_looked_at() {
    let revision = |data: Value| json!({ "metadata": { "name": "r" }, "revision": -1, "data": data });
    let negative = "revision: Invalid value: -1: must be greater than or equal to 0";
    let at = |object: &Value| create("apps", "controllerrevisions", object);
    same(&at(&revision(Value::Null)), &[negative, "data: Required value: data is mandatory"]);
    same(&at(&revision(json!("x"))), &[negative, "data: Required value: data must be a valid JSON object"]);
    // A change is judged by what was there.
    let old = revision(json!({ "a": 1 }));
    same(
        &update("apps", "controllerrevisions", "", &old, &json!({ "data": null })),
        &[negative, "data: Invalid value: null: field is immutable"],
    );
}
