//! ReplicationControllers, with their plain map of labels as selector.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::{at_most_replicas, available_is_ready, counts, default_template, options, reset_status, runs_forever};
use crate::doc::{Read, Write};
use crate::pod::validation;
use crate::{Column, Context, Strategy, check, columns, meta, names, table};

pub(crate) struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn default(&self, object: &mut Value) {
        default_template(object);
        let spec = object.object("spec");
        if !spec.has("replicas") {
            spec.put("replicas", 1);
        }
        let labels = spec["template"]["metadata"]["labels"].clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            if spec.map("selector").is_empty() {
                spec.put("selector", labels.clone());
            }
            if object["metadata"].map("labels").is_empty() {
                object.object("metadata").put("labels", labels);
            }
        }
        let status = object.object("status");
        if !status.has("replicas") {
            status.put("replicas", 0);
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        super::drop_disabled(object, None);
        reset_status(object, &["replicas"]);
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, object, None);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        super::drop_disabled(object, Some(old));
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let status = &object["status"];
        let all = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
        counts(&mut faults, status, &all);
        at_most_replicas(&mut faults, status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"]);
        available_is_ready(&mut faults, status, "readyReplicas");
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, object, Some(old));
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let Some(old) = old else {
            return super::name_warning(object, None).into_iter().chain(super::template_warnings(object, None)).collect();
        };
        // The reference server takes the old template for the new one.
        if super::same_generation(object, Some(old)) { Vec::new() } else { super::template_warnings(old, None) }
    }

    /// Only the finished name is looked at, and its length is told in bytes.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        if prefix {
            return Vec::new();
        }
        let wrong = names::dns_subdomain(name).into_iter();
        wrong.map(|why| if why.starts_with("must be no more than") { why.replace("characters", "bytes") } else { why }).collect()
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", object["status"].int("replicas").to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::REPLICATIONCONTROLLERS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [names, images] = table::containers(&spec["template"]["spec"]);
        vec![
            table::name(object),
            table::number(spec, "replicas"),
            table::number(status, "replicas"),
            table::number(status, "readyReplicas"),
            table::age(object, now),
            names,
            images,
            table::labels(spec.map("selector")).into(),
        ]
    }
}

fn spec(faults: &mut Faults, object: &Value, old: Option<&Value>) {
    let spec = &object["spec"];
    let path = Path::new("spec");
    check::field_not_negative(faults, &path, spec, "minReadySeconds");
    let selector = spec.map("selector");
    if selector.is_empty() {
        faults.required(&path.child("selector"), "");
    }
    check::field_not_negative(faults, &path, spec, "replicas");
    let at = path.child("template");
    let Some(template) = spec.opt("template") else { return faults.required(&at, "") };
    let labels = template["metadata"].map("labels");
    if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        super::mismatch(faults, &at, template);
    }
    validation::template(faults, &at, template, &options(old));
    runs_forever(faults, &at, template, "ReplicationController");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::context;

    #[test]
    fn names_are_judged_when_they_are_made() {
        let wrong = |name: &str, prefix: bool| ReplicationControllers.validate_name(name, prefix);
        assert_eq!(wrong(&"a".repeat(254), false), ["must be no more than 253 bytes"]);
        assert_eq!(wrong("a.", false).len(), 1);
        assert!(wrong("a.", true).is_empty());
    }

    #[test]
    fn updates_warn_of_the_template_that_was() {
        let controller = |generation: i64, label: &str| json!({ "metadata": { "name": "r", "generation": generation }, "spec": { "template": { "spec": { "nodeSelector": { label: "x" } } } } });
        let (old, new) = (controller(1, "beta.kubernetes.io/os"), controller(2, "kubernetes.io/os"));
        let warning =
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead";
        assert_eq!(ReplicationControllers.warnings(&new, Some(&old), &context("")), [warning]);
        assert!(ReplicationControllers.warnings(&old, Some(&old), &context("")).is_empty());
        assert!(ReplicationControllers.warnings(&new, None, &context("")).is_empty());
    }
}
