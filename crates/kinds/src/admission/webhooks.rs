//! Webhook configurations: defaults, generations, validation, table rows.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::client::{client, default_port};
use super::rules::{default_scope, rule};
use super::{expression, policy};
use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, meta, names, table};

/// `ValidatingWebhookConfiguration` or `MutatingWebhookConfiguration`.
pub(crate) struct Webhooks {
    pub(crate) mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for hook in object.items("webhooks") {
            for (key, value) in
                [("failurePolicy", json!("Fail")), ("matchPolicy", json!("Equivalent")), ("timeoutSeconds", json!(10))]
            {
                if !hook.has(key) {
                    hook.put(key, value);
                }
            }
            if self.mutating && !hook.has("reinvocationPolicy") {
                hook.put("reinvocationPolicy", "Never");
            }
            hook.object("namespaceSelector");
            hook.object("objectSelector");
            hook.items("rules").for_each(default_scope);
            default_port(hook.object("clientConfig"));
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::bump_generation_exactly(object, old, |object| &object["webhooks"]);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        webhooks(object, self.mutating, &Lax::default())
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        webhooks(object, self.mutating, &Lax::of(object.list("webhooks"), old.list("webhooks")))
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { columns::MUTATINGWEBHOOKCONFIGURATIONS } else { columns::VALIDATINGWEBHOOKCONFIGURATIONS }
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object.list("webhooks").len().into(), table::age(object, now)]
    }
}

/// What the webhooks there have already that is forbidden today, and so may stay.
#[derive(Default)]
struct Lax {
    side_effects: bool,
    versions: bool,
    names: bool,
    labels: bool,
    /// The conditions are what they were: what was good once is not compiled again.
    conditions: bool,
}

impl Lax {
    fn of(new: &[Value], old: &[Value]) -> Self {
        let mut seen = HashSet::new();
        let selector_is_wrong = |hook: &Value, key: &str| {
            let mut faults = Faults::default();
            check::label_selector(&mut faults, &Path::new(key), &hook[key], false);
            !faults.is_empty()
        };
        Self {
            side_effects: old.iter().any(|hook| !SIDE_EFFECTS.contains(&hook.text("sideEffects"))),
            versions: old.iter().any(|hook| hook.texts("admissionReviewVersions").all(|version| !VERSIONS.contains(&version))),
            names: !old.iter().all(|hook| seen.insert(hook.text("name"))),
            labels: old.iter().any(|hook| SELECTORS.iter().any(|key| selector_is_wrong(hook, key))),
            conditions: new.len() == old.len()
                && new.iter().zip(old).all(|(new, old)| new["matchConditions"] == old["matchConditions"]),
        }
    }
}

const SELECTORS: [&str; 2] = ["namespaceSelector", "objectSelector"];

const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

fn webhooks(object: &Value, mutating: bool, lax: &Lax) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("webhooks");
    let mut seen = HashSet::new();
    for (i, hook) in object.list("webhooks").iter().enumerate() {
        let at = path.index(i);
        let name = hook.text("name");
        if name.is_empty() {
            faults.required(&at.child("name"), "");
        } else {
            check::invalid_each(&mut faults, &at.child("name"), name, names::fully_qualified(name));
        }
        webhook(&mut faults, &at, hook, mutating, lax);
        if !name.is_empty() && !seen.insert(name) && !lax.names {
            check::duplicate(&mut faults, &at.child("name"), name);
        }
    }
    faults
}

fn webhook(faults: &mut Faults, path: &Path<'_>, hook: &Value, mutating: bool, lax: &Lax) {
    let rules = path.child("rules");
    for (i, item) in hook.list("rules").iter().enumerate() {
        rule(faults, &rules.index(i), item);
    }
    check::optional_one_of(faults, path, hook, "failurePolicy", &["Fail", "Ignore"]);
    check::optional_one_of(faults, path, hook, "matchPolicy", &["Equivalent", "Exact"]);
    let effects: &[&str] = if lax.side_effects { &["None", "NoneOnDryRun", "Some", "Unknown"] } else { SIDE_EFFECTS };
    match hook.opt_text("sideEffects") {
        None => faults.required(&path.child("sideEffects"), &format!("must specify one of {}", effects.join(", "))),
        Some(found) => check::one_of(faults, &path.child("sideEffects"), found, effects),
    }
    if let Some(seconds) = hook.opt_int("timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        faults.invalid_int(&path.child("timeoutSeconds"), seconds, detail);
    }
    for key in SELECTORS {
        check::label_selector(faults, &path.child(key), &hook[key], lax.labels);
    }
    if mutating {
        check::optional_one_of(faults, path, hook, "reinvocationPolicy", &["IfNeeded", "Never"]);
    }
    client(faults, &path.child("clientConfig"), &hook["clientConfig"]);
    if !lax.conditions {
        let conditions = hook.list("matchConditions");
        policy::match_conditions(faults, &path.child("matchConditions"), conditions, &expression::Compiler::of_webhook());
    }
    let versions: Vec<&str> = hook.texts("admissionReviewVersions").collect();
    let at = path.child("admissionReviewVersions");
    if versions.is_empty() {
        faults.required(&at, "must specify one of v1, v1beta1");
    } else {
        let mut seen = HashSet::new();
        for (i, version) in versions.iter().enumerate() {
            if !seen.insert(*version) {
                faults.invalid_str(&at.index(i), version, "duplicate version");
                continue;
            }
            check::invalid_each(faults, &at.index(i), version, names::dns1035_label(version));
        }
        if !lax.versions && !versions.iter().any(|version| VERSIONS.contains(version)) {
            faults.invalid(&at, &hook["admissionReviewVersions"], "must include at least one of v1, v1beta1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_allowed_once_may_stay() {
        let hook = |effects: &str, versions: Value| json!({"name": "a.b.c", "sideEffects": effects, "admissionReviewVersions": versions, "clientConfig": {"url": "https://a"}});
        let configuration = |hooks: &[Value]| json!({"webhooks": hooks});
        let faults =
            |new: &Value, old: &Value| webhooks(new, false, &Lax::of(new.list("webhooks"), old.list("webhooks"))).0.len();
        let (old, good) = (hook("Unknown", json!(["v0"])), hook("None", json!(["v1"])));
        let (stored, fresh) = (configuration(&[old.clone(), old]), configuration(&[]));
        assert_eq!(faults(&stored, &stored), 0);
        // Two wrong effects, two lists without a known version, and one name too many.
        assert_eq!(faults(&stored, &fresh), 5);
        assert_eq!(faults(&configuration(&[good]), &stored), 0);
    }
}
