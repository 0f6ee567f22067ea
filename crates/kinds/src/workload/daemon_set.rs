//! DaemonSets.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::{collisions_only_rise, counts, default_template, options, reset_status, runs_forever};
use crate::doc::{Read, Write, semantic_equal};
use crate::pod::validation;
use crate::{Column, Context, Strategy, check, columns, internal, meta, table};

pub(crate) struct DaemonSets;

const COUNTS: &[&str] = &["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];

impl Strategy for DaemonSets {
    fn default(&self, object: &mut Value) {
        default_template(object);
        let spec = object.object("spec");
        let strategy = spec.object("updateStrategy");
        strategy.default_to("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = strategy.object("rollingUpdate");
            for (key, value) in [("maxUnavailable", 1), ("maxSurge", 0)] {
                if !rolling.has(key) {
                    rolling.put(key, value);
                }
            }
        } else if let Some(rolling) = strategy.child("rollingUpdate") {
            // Of no use, but the server holds both amounts by value.
            for key in ["maxUnavailable", "maxSurge"] {
                if !rolling.has(key) {
                    rolling.put(key, 0);
                }
            }
        }
        if !spec.has("revisionHistoryLimit") {
            spec.put("revisionHistoryLimit", 10);
        }
        if !object["metadata"]["annotations"].has(TEMPLATE_GENERATION) {
            template_generation(object, 0);
        }
        let status = object.object("status");
        for key in COUNTS {
            if !status.has(key) {
                status.put(key, 0);
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        super::drop_disabled(object, None);
        reset_status(object, COUNTS);
        meta::set_generation(object, 1);
        if generation_annotation(object) < 1 {
            template_generation(object, 1);
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, object, None);
        faults
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "spec");
        template_generation(object, generation_annotation(old));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        super::drop_disabled(object, Some(old));
        let before = generation_annotation(old);
        let template_changed = !semantic_equal(&object["spec"]["template"], &old["spec"]["template"]);
        template_generation(object, before + i64::from(template_changed));
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_status(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let status = &object["status"];
        let all = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        counts(&mut faults, status, &all);
        collisions_only_rise(&mut faults, status, &old["status"]);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        check::immutable_selector(&mut faults, &path, object, old);
        spec(&mut faults, object, Some(old));
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        super::template_warnings(object, old)
    }

    fn complete_empty(&self, object: &mut Value) {
        template_generation(object, 0);
    }

    fn hidden_annotations(&self) -> &'static [&'static str] {
        &[TEMPLATE_GENERATION]
    }

    fn columns(&self) -> &'static [Column] {
        columns::DAEMONSETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let pod = &spec["template"]["spec"];
        let [names, images] = table::containers(pod);
        vec![
            table::name(object),
            table::number(status, "desiredNumberScheduled"),
            table::number(status, "currentNumberScheduled"),
            table::number(status, "numberReady"),
            table::number(status, "updatedNumberScheduled"),
            table::number(status, "numberAvailable"),
            table::labels(pod.map("nodeSelector")).into(),
            table::age(object, now),
            names,
            images,
            table::selector(&spec["selector"]).into(),
        ]
    }
}

/// A field of the first DaemonSets that `apps/v1` shows as an annotation, 0 until the server sets it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn generation_annotation(object: &Value) -> i64 {
    object["metadata"]["annotations"].text(TEMPLATE_GENERATION).parse().unwrap_or_default()
}

fn template_generation(object: &mut Value, generation: i64) {
    object.object("metadata").object("annotations").put(TEMPLATE_GENERATION, generation.to_string());
}

fn spec(faults: &mut Faults, object: &Value, old: Option<&Value>) {
    let spec = &object["spec"];
    let path = Path::new("spec");
    let selector = &spec["selector"];
    let at = path.child("template");
    let template = &spec["template"];
    let options = options(old);
    check::label_selector(faults, &path.child("selector"), selector, options.lax_selectors);
    if check::selector_compiles(selector)
        && (selector.is_null() || !check::selector_is_empty(selector))
        && !check::selector_matches(selector, template["metadata"].map("labels"))
    {
        super::mismatch(faults, &at, template);
    }
    if !selector.is_null() && check::selector_is_empty(selector) {
        check::invalid_selector(faults, &path.child("selector"), selector, "empty selector is invalid for daemonset");
    }
    validation::template(faults, &at, template, &options);
    runs_forever(faults, &at, template, "DaemonSet");
    check::field_not_negative(faults, &path, spec, "minReadySeconds");
    strategy(faults, &path.child("updateStrategy"), &spec["updateStrategy"]);
    check::field_not_negative(faults, &path, spec, "revisionHistoryLimit");
}

fn strategy(faults: &mut Faults, path: &Path<'_>, strategy: &Value) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            match strategy.opt("rollingUpdate") {
                None => faults.required(&at, ""),
                Some(rolling) => rolling_update(faults, &at, rolling),
            }
        }
        _ => {
            let shown = internal::shown("DaemonSetUpdateStrategy", strategy);
            check::not_supported_shown(faults, path, &shown, &["RollingUpdate", "OnDelete"]);
        }
    }
}

/// Either pods may be missing during an update, or extra ones may be there, not both (KEP-1591).
fn rolling_update(faults: &mut Faults, path: &Path<'_>, rolling: &Value) {
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    let (unavailable_at, surge_at) = (path.child("maxUnavailable"), path.child("maxSurge"));
    check::int_or_percent(faults, &unavailable_at, unavailable);
    check::int_or_percent(faults, &surge_at, surge);
    check::at_most_all(faults, &unavailable_at, unavailable);
    check::at_most_all(faults, &surge_at, surge);
    match (check::int_or_percent_value(unavailable) != 0, check::int_or_percent_value(surge) != 0) {
        (true, true) => faults.invalid(&surge_at, surge, "may not be set when maxUnavailable is non-zero"),
        (false, false) => faults.required(&unavailable_at, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}
