//! ReplicaSets.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::{at_most_replicas, available_is_ready, counts, default_template, reset_status, selector, template};
use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, meta, table};

pub(crate) struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default(&self, object: &mut Value) {
        default_template(object);
        let spec = object.object("spec");
        if !spec.has("replicas") {
            spec.put("replicas", 1);
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
        counts(
            &mut faults,
            status,
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
                "terminatingReplicas",
            ],
        );
        at_most_replicas(&mut faults, status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"]);
        available_is_ready(&mut faults, status, "readyReplicas");
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, object, Some(old));
        let path = Path::new("spec");
        check::immutable_selector(&mut faults, &path, object, old);
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        super::name_warning(object, old).into_iter().chain(super::template_warnings(object, old)).collect()
    }

    fn complete_empty(&self, object: &mut Value) {
        object.object("spec").put("replicas", 0);
    }

    fn columns(&self) -> &'static [Column] {
        columns::REPLICASETS
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
            table::selector(&spec["selector"]).into(),
        ]
    }
}

fn spec(faults: &mut Faults, object: &Value, old: Option<&Value>) {
    let spec = &object["spec"];
    let path = Path::new("spec");
    check::field_not_negative(faults, &path, spec, "replicas");
    check::field_not_negative(faults, &path, spec, "minReadySeconds");
    selector(faults, &path, spec, "empty selector is invalid for deployment");
    template(faults, &path, spec, "ReplicaSet", "invalid label selector", old);
}
