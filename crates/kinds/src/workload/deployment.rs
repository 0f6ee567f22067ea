//! Deployments.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::{
    at_most_replicas, available_is_ready, collisions_only_rise, counts, default_template, reset_status, selector, template,
};
use crate::doc::{Read, Write, semantic_equal};
use crate::{Column, Context, Strategy, check, columns, internal, meta, table};

pub(crate) struct Deployments;

impl Strategy for Deployments {
    fn default(&self, object: &mut Value) {
        default_template(object);
        let spec = object.object("spec");
        if !spec.has("replicas") {
            spec.put("replicas", 1);
        }
        let strategy = spec.object("strategy");
        strategy.default_to("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = strategy.object("rollingUpdate");
            for key in ["maxUnavailable", "maxSurge"] {
                if !rolling.has(key) {
                    rolling.put(key, "25%");
                }
            }
        }
        for (key, value) in [("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600)] {
            if !spec.has(key) {
                spec.put(key, value);
            }
        }
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        super::drop_disabled(object, None);
        reset_status(object, &[]);
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, object, None);
        faults
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "spec");
        object.object("metadata").copy_from(&old["metadata"], "labels");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        super::drop_disabled(object, Some(old));
        let before = old["metadata"].int("generation");
        let changed = !semantic_equal(&object["spec"], &old["spec"])
            || !semantic_equal(&object["metadata"]["annotations"], &old["metadata"]["annotations"]);
        object.object("metadata").put("generation", before + i64::from(changed));
    }

    fn validate_status(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        status(&mut faults, &object["status"]);
        collisions_only_rise(&mut faults, &object["status"], &old["status"]);
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
        columns::DEPLOYMENTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [names, images] = table::containers(&spec["template"]["spec"]);
        vec![
            table::name(object),
            format!("{}/{}", status.int("readyReplicas"), spec.int("replicas")).into(),
            table::number(status, "updatedReplicas"),
            table::number(status, "availableReplicas"),
            table::age(object, now),
            names,
            images,
            table::selector_text(&spec["selector"]).unwrap_or_else(|| "<invalid>".into()).into(),
        ]
    }
}

fn spec(faults: &mut Faults, object: &Value, old: Option<&Value>) {
    let spec = &object["spec"];
    let path = Path::new("spec");
    check::field_not_negative(faults, &path, spec, "replicas");
    selector(faults, &path, spec, "empty selector is invalid for deployment");
    template(faults, &path, spec, "ReplicaSet", "invalid label selector", old);
    strategy(faults, &path.child("strategy"), &spec["strategy"]);
    check::field_not_negative(faults, &path, spec, "minReadySeconds");
    check::field_not_negative(faults, &path, spec, "revisionHistoryLimit");
    if let Some(deadline) = spec.opt_int("progressDeadlineSeconds") {
        let at = path.child("progressDeadlineSeconds");
        check::not_negative(faults, &at, deadline);
        if deadline <= spec.int("minReadySeconds") {
            faults.invalid_int(&at, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn strategy(faults: &mut Faults, path: &Path<'_>, strategy: &Value) {
    let at = path.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" => {
            if strategy.has("rollingUpdate") {
                faults.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => match strategy.opt("rollingUpdate") {
            None => faults.required(&at, "this should be defaulted and never be nil"),
            Some(rolling) => rolling_update(faults, &at, rolling),
        },
        _ => {
            let shown = internal::shown("DeploymentStrategy", strategy);
            check::not_supported_shown(faults, path, &shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

fn rolling_update(faults: &mut Faults, path: &Path<'_>, rolling: &Value) {
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    check::int_or_percent(faults, &path.child("maxUnavailable"), unavailable);
    check::int_or_percent(faults, &path.child("maxSurge"), surge);
    if check::int_or_percent_value(unavailable) == 0 && check::int_or_percent_value(surge) == 0 {
        faults.invalid(&path.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0");
    }
    check::at_most_all(faults, &path.child("maxUnavailable"), unavailable);
}

fn status(faults: &mut Faults, status: &Value) {
    counts(
        faults,
        status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
    );
    at_most_replicas(faults, status, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
    available_is_ready(faults, status, "readyReplicas");
}
