//! PodDisruptionBudgets and RuntimeClasses.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::pod::warnings::deprecated_label;
use crate::pod::{Options, defaults, scheduling, validation};
use crate::{Column, Context, Strategy, check, columns, internal, meta, names, table};

pub(crate) struct PodDisruptionBudgets;

const COUNTS: &[&str] = &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];

impl Strategy for PodDisruptionBudgets {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        let status = object.object("status");
        for key in COUNTS {
            if !status.has(key) {
                status.put(key, 0);
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        crate::workload::reset_status(object, COUNTS);
        meta::set_generation(object, 1);
    }

    /// The reference server asks no more of a budget's name than any path does.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_path_segment(name, prefix)
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let spec = &object["spec"];
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            let shown = internal::shown("PodDisruptionBudgetSpec", spec);
            check::invalid_shown(&mut faults, &path, &shown, "minAvailable and maxUnavailable cannot be both set");
        }
        for key in ["minAvailable", "maxUnavailable"] {
            if let Some(value) = spec.opt(key) {
                check::int_or_percent(&mut faults, &path.child(key), value);
                check::at_most_all(&mut faults, &path.child(key), value);
            }
        }
        check::label_selector(&mut faults, &path.child("selector"), &spec["selector"], false);
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        check::optional_one_of(&mut faults, &path, spec, "unhealthyPodEvictionPolicy", &policies);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("status");
        check::conditions(&mut faults, &path.child("conditions"), object["status"].list("conditions"));
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            check::field_not_negative(&mut faults, &path, &object["status"], key);
        }
        faults
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::PODDISRUPTIONBUDGETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let shown = |key: &str| match &object["spec"][key] {
            Value::Null => json!("N/A"),
            Value::String(text) => json!(text),
            other => json!(other.to_string()),
        };
        vec![
            table::name(object),
            shown("minAvailable"),
            shown("maxUnavailable"),
            table::number(&object["status"], "disruptionsAllowed"),
            table::age(object, now),
        ]
    }
}

pub(crate) struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn default(&self, object: &mut Value) {
        if let Some(overhead) = object.child("overhead") {
            defaults::round_up(overhead, "podFixed");
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let handler = object.text("handler");
        if handler.is_empty() {
            faults.required(&Path::new("handler"), "");
        } else {
            check::dns_label(&mut faults, &Path::new("handler"), handler);
        }
        if let Some(overhead) = object.opt("overhead") {
            let at = Path::new("overhead");
            validation::overhead_amounts(&mut faults, &at, &overhead["podFixed"], &Options::default());
        }
        if let Some(rules) = object.opt("scheduling") {
            let at = Path::new("scheduling");
            check::labels(&mut faults, &at.child("nodeSelector"), rules.map("nodeSelector"));
            let at = at.child("tolerations");
            scheduling::tolerations(&mut faults, &at, rules.list("tolerations"));
            let mut seen = HashSet::new();
            for (i, toleration) in rules.list("tolerations").iter().enumerate() {
                if !seen.insert(["key", "operator", "value", "effect"].map(|key| toleration.text(key))) {
                    check::duplicate_shown(&mut faults, &at.index(i), &internal::shown("Toleration", toleration), "");
                }
            }
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        check::immutable_as(&mut faults, &Path::new("handler"), "s", &object["handler"], &old["handler"]);
        faults
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let labels = object["scheduling"].map("nodeSelector").keys();
        labels.filter_map(|label| Some(format!("scheduling.nodeSelector: {}", deprecated_label(label)?))).collect()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::RUNTIMECLASSES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object.text("handler").into(), table::age(object, now)]
    }
}
