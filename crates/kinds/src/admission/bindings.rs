//! Bindings of admission policies: defaults, generations, validation, table rows.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::rules::{changeable, default_match, match_resources};
use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, meta, names, table};

/// `ValidatingAdmissionPolicyBinding` or `MutatingAdmissionPolicyBinding`.
pub(crate) struct PolicyBindings {
    pub(crate) mutating: bool,
}

impl Strategy for PolicyBindings {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        if spec.has("matchResources") {
            default_match(spec.object("matchResources"));
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = &object["spec"];
        let path = Path::new("spec");
        let name = spec.text("policyName");
        if name.is_empty() {
            faults.required(&path.child("policyName"), "");
        } else {
            check::dns_subdomain(&mut faults, &path.child("policyName"), name);
        }
        if let Some(reference) = spec.opt("paramRef") {
            let at = path.child("paramRef");
            let (named, selected) = (!reference.text("name").is_empty(), reference.has("selector"));
            const ONE: &str = "name and selector are mutually exclusive";
            if named {
                let wrong = names::name_is_path_segment(reference.text("name"), false);
                check::invalid_each(&mut faults, &at.child("name"), reference.text("name"), wrong);
            }
            if named && selected {
                faults.forbidden(&at.child("name"), ONE);
            }
            check::label_selector(&mut faults, &at.child("selector"), &reference["selector"], false);
            if named && selected {
                faults.forbidden(&at.child("selector"), ONE);
            } else if !named && !selected {
                faults.required(&at, "one of name or selector must be specified");
            }
            match reference.opt_text("parameterNotFoundAction").filter(|action| !action.is_empty()) {
                None => faults.required(&at.child("parameterNotFoundAction"), ""),
                Some(action) => check::one_of(&mut faults, &at.child("parameterNotFoundAction"), action, &["Deny", "Allow"]),
            }
        }
        if let Some(found) = spec.opt("matchResources") {
            match_resources(&mut faults, &path.child("matchResources"), found, false);
            if self.mutating {
                changeable(&mut faults, &path.child("matchResources"), found);
            }
        }
        if !self.mutating {
            let at = path.child("validationActions");
            let actions: Vec<&str> = spec.texts("validationActions").collect();
            if actions.is_empty() {
                faults.required(&at, "at least one validation action is required");
            }
            for (i, action) in actions.iter().enumerate() {
                check::one_of(&mut faults, &at.index(i), action, &["Audit", "Deny", "Warn"]);
                if actions[..i].contains(action) {
                    check::duplicate(&mut faults, &at.index(i), action);
                }
            }
            if actions.contains(&"Deny") && actions.contains(&"Warn") {
                let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                              response and headers serves no purpose)";
                faults.invalid(&at, &spec["validationActions"], detail);
            }
        }
        faults
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { columns::MUTATINGADMISSIONPOLICYBINDINGS } else { columns::VALIDATINGADMISSIONPOLICYBINDINGS }
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let reference = spec.opt("paramRef").map_or("<unset>".to_owned(), |reference| {
            match (reference.opt_text("namespace"), reference.text("name")) {
                (_, "") if self.mutating && reference.has("selector") => selector_text(&reference["selector"]),
                (_, "") => "*".to_owned(),
                (Some(namespace), name) if !namespace.is_empty() => format!("{namespace}/{name}"),
                (_, name) => format!("*/{name}"),
            }
        });
        vec![table::name(object), spec.text("policyName").into(), reference.into(), table::age(object, now)]
    }
}

/// A label selector as Go prints the struct.
fn selector_text(selector: &Value) -> String {
    let labels: Vec<String> = selector
        .map("matchLabels")
        .iter()
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    let requirements = selector.list("matchExpressions").iter().map(|requirement| {
        let values = requirement.texts("values").collect::<Vec<_>>().join(" ");
        let (key, operator) = (requirement.text("key"), requirement.text("operator"));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let (labels, requirements) = (labels.concat(), requirements.collect::<String>());
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}
