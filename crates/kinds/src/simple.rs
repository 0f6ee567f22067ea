//! Kinds with few rules of their own: service accounts, leases, priority classes.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, table};

pub(crate) struct ServiceAccounts;

/// Of a secret that a ServiceAccount names only the name counts.
fn only_names(account: &mut Value) {
    for secret in account.items("secrets") {
        let name = secret.text("name").to_owned();
        *secret = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
    }
}

impl Strategy for ServiceAccounts {
    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        only_names(object);
    }

    fn prepare_update(&self, object: &mut Value, _: &Value, _: &Context<'_>) {
        only_names(object);
    }

    fn columns(&self) -> &'static [Column] {
        columns::SERVICEACCOUNTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        table::name_and_age(object, now)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
        let set = |object: &Value| object["metadata"]["annotations"].opt_text(ENFORCE).is_some();
        if set(object) && !old.is_some_and(set) {
            let message = "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate \
                           namespaces to isolate access to mounted secrets";
            return vec![message.into()];
        }
        Vec::new()
    }
}

pub(crate) struct Leases;

/// Fields of coordinated leader election (KEP-4355), which is off.
const COORDINATED: [&str; 2] = ["strategy", "preferredHolder"];

impl Strategy for Leases {
    fn default(&self, object: &mut Value) {
        object.object("spec");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        COORDINATED.iter().for_each(|key| object.object("spec").drop_key(key));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        for key in COORDINATED.iter().filter(|key| !old["spec"].has(key)) {
            object.object("spec").drop_key(key);
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = &object["spec"];
        let path = Path::new("spec");
        if let Some(seconds) = spec.opt_int("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            faults.invalid_int(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        check::field_not_negative(&mut faults, &path, spec, "leaseTransitions");
        if let Some(strategy) = spec.opt_text("strategy") {
            let at = path.child("strategy");
            let at = at.child("strategy");
            // A name of Kubernetes itself has no domain.
            if strategy.contains('/') {
                check::invalid_each(&mut faults, &at, strategy, crate::names::qualified_name(strategy));
            } else {
                check::one_of(&mut faults, &at, strategy, &["OldestEmulationVersion"]);
            }
        }
        if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            faults.forbidden(&path.child("preferredHolder"), detail);
        }
        faults
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::LEASES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object["spec"].text("holderIdentity").into(), table::age(object, now)]
    }
}

pub(crate) struct PriorityClasses;

/// Priorities above this belong to the system.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

const RESERVED: &str = "priority class names with 'system-' prefix are reserved for system use only. error: ";

/// The system's own classes, with their values.
pub const SYSTEM_PRIORITY_CLASSES: &[(&str, i64)] =
    &[("system-node-critical", 2 * HIGHEST_USER_PRIORITY + 1000), ("system-cluster-critical", 2 * HIGHEST_USER_PRIORITY)];

impl Strategy for PriorityClasses {
    fn default(&self, object: &mut Value) {
        if !object.has("preemptionPolicy") {
            object.put("preemptionPolicy", "PreemptLowerPriority");
        }
        if !object.has("value") {
            object.put("value", 0);
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        crate::meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let name = object["metadata"].text("name");
        let value = object.int("value");
        if name.starts_with("system-") {
            let system = SYSTEM_PRIORITY_CLASSES.iter().find(|(system, _)| *system == name);
            let wrong = match system {
                None => Some(format!("{RESERVED}{name} is not a known system priority class")),
                Some((_, wanted)) if *wanted != value => {
                    Some(format!("{RESERVED}value of {name} PriorityClass must be {wanted}"))
                }
                Some(_) if object.flag("globalDefault") => {
                    Some(format!("{RESERVED}globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(why) = wrong {
                faults.forbidden(&Path::new("metadata").child("name"), &why);
            }
        } else if value > HIGHEST_USER_PRIORITY {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            faults.forbidden(&Path::new("value"), &why);
        }
        if let Some(policy) = object.opt_text("preemptionPolicy") {
            let path = Path::new("preemptionPolicy");
            check::required_one_of(&mut faults, &path, policy, &["PreemptLowerPriority", "Never"]);
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        crate::meta::keep_generation(object, old);
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        if object.int("value") != old.int("value") {
            faults.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        check::immutable(&mut faults, &Path::new("preemptionPolicy"), &object["preemptionPolicy"], &old["preemptionPolicy"]);
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::PRIORITYCLASSES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            table::name(object),
            table::number(object, "value"),
            object.flag("globalDefault").into(),
            table::age(object, now),
            object.text("preemptionPolicy").into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::context;

    #[test]
    fn service_accounts_keep_the_names_of_secrets() {
        let mut account = json!({ "secrets": [{ "name": "s", "namespace": "n", "kind": "Secret" }, { "uid": "u" }] });
        ServiceAccounts.prepare_create(&mut account, &context(""));
        assert_eq!(account["secrets"], json!([{ "name": "s" }, {}]));
    }
}
