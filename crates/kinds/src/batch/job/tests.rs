use super::*;
use crate::testing::context;

fn job(labels: Value, template_labels: Value) -> Value {
    json!({ "metadata": { "name": "j", "uid": "1", "labels": labels }, "spec": { "template": {
        "metadata": { "labels": template_labels },
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] },
    } } })
}

/// Labels that a job takes over from its template are the template's also when more are generated for it.
#[test]
fn labels_are_shared_with_the_template_unless_given() {
    let generated = |labels: Value| {
        let mut all = labels;
        for (key, value) in NAME_LABELS.map(|key| (key, "j")).into_iter().chain(UID_LABELS.map(|key| (key, "1"))) {
            all[key] = value.into();
        }
        all
    };
    let check = |given: Value, template: Value, expected: Value| {
        let ctx = Context { labels_given: !given.is_null(), ..context("") };
        let mut job = job(given, template.clone());
        Jobs.default(&mut job);
        Jobs.prepare_create(&mut job, &ctx);
        assert_eq!(job["metadata"]["labels"], expected);
        assert_eq!(
            job["spec"]["template"]["metadata"]["labels"],
            generated(if template.is_null() { json!({}) } else { template })
        );
    };
    check(Value::Null, json!({ "a": "b" }), generated(json!({ "a": "b" })));
    check(json!({ "a": "b" }), json!({ "a": "b" }), json!({ "a": "b" }));
    check(Value::Null, Value::Null, Value::Null);
}

/// Pods of a suspended job that never started, or has none left, may still be sent elsewhere, with other resources.
#[test]
fn templates_change_only_while_a_job_is_suspended() {
    let check = |suspended: bool, status: Value, change: Value, refused: Option<&str>| {
        let mut old = job(json!({ "x": "y" }), json!({}));
        old["spec"]["suspend"] = suspended.into();
        Jobs.default(&mut old);
        Jobs.prepare_create(&mut old, &context(""));
        old["status"] = status;
        let mut new = old.clone();
        for (key, value) in change.as_object().unwrap() {
            new["spec"]["template"]["spec"][key] = value.clone();
        }
        let faults = Jobs.validate_update(&new, &old, &context(""));
        let fields: Vec<&str> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, refused.into_iter().collect::<Vec<_>>(), "{change}");
    };
    let selector = json!({ "nodeSelector": { "a": "b" } });
    let started = json!({ "startTime": "2026-01-01T00:00:00Z" });
    let drained = json!({ "startTime": "2026-01-01T00:00:00Z", "conditions": [{ "type": "Suspended", "status": "True" }] });
    let resources = json!({ "containers": [{ "name": "c", "image": "i", "imagePullPolicy": "Always",
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "resources": { "limits": { "cpu": "1" } } }] });
    check(false, json!({}), selector.clone(), Some("spec.template"));
    check(true, json!({}), selector.clone(), None);
    check(true, started, selector.clone(), Some("spec.template"));
    check(true, drained.clone(), selector, None);
    check(true, drained.clone(), resources, None);
    check(true, drained, json!({ "hostNetwork": true }), Some("spec.template.spec"));
}

#[test]
fn empty_policies_are_no_defaults() {
    let mut job = job(Value::Null, Value::Null);
    job["spec"]["podReplacementPolicy"] = "".into();
    job["spec"]["completionMode"] = "".into();
    Jobs.default(&mut job);
    assert_eq!((&job["spec"]["podReplacementPolicy"], &job["spec"]["completionMode"]), (&json!(""), &json!("")));
}
