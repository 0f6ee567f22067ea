//! Which requests webhooks and policies are about.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::policy;
use crate::check;
use crate::doc::{Read, Write};

pub(super) fn default_scope(rule: &mut Value) {
    if !rule.has("scope") {
        rule.put("scope", "*");
    }
}

pub(super) fn default_match(constraints: &mut Value) {
    if !constraints.has("matchPolicy") {
        constraints.put("matchPolicy", "Equivalent");
    }
    constraints.object("namespaceSelector");
    constraints.object("objectSelector");
    for key in ["resourceRules", "excludeResourceRules"] {
        constraints.items(key).for_each(default_scope);
    }
}

pub(super) fn match_resources(faults: &mut Faults, path: &Path<'_>, constraints: &Value, needs_rules: bool) {
    check::optional_one_of(faults, path, constraints, "matchPolicy", &["Equivalent", "Exact"]);
    for key in ["namespaceSelector", "objectSelector"] {
        check::label_selector(faults, &path.child(key), &constraints[key], false);
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        let at = path.child(key);
        for (i, item) in constraints.list(key).iter().enumerate() {
            policy::resource_names(faults, &at.index(i), item);
            rule(faults, &at.index(i), item);
        }
    }
    if needs_rules && constraints.list("resourceRules").is_empty() {
        faults.required(&path.child("resourceRules"), "");
    }
}

/// What is deleted cannot be changed.
pub(super) fn changeable(faults: &mut Faults, path: &Path<'_>, constraints: &Value) {
    let at = path.child("resourceRules");
    for operation in constraints.list("resourceRules").iter().flat_map(|rule| rule.texts("operations")) {
        check::one_of(faults, &at.child("operations"), operation, &["*", "CONNECT", "CREATE", "UPDATE"]);
    }
}

pub(super) fn rule(faults: &mut Faults, path: &Path<'_>, rule: &Value) {
    let lists = [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")];
    for (key, what) in lists {
        let all = rule.list(key);
        let at = path.child(key);
        if all.is_empty() {
            faults.required(&at, "");
        }
        if all.len() > 1 && all.contains(&json!("*")) {
            let what = if key == "operations" { "operations" } else { what };
            faults.invalid(&at, &rule[key], &format!("if '*' is present, must not specify other {what}"));
        }
        for (i, value) in rule.texts(key).enumerate() {
            if key == "operations" {
                check::one_of(faults, &at.index(i), value, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
            } else if key == "apiVersions" && value.is_empty() {
                faults.required(&at.index(i), "");
            }
        }
    }
    resources(faults, &path.child("resources"), &rule["resources"], rule.texts("resources"));
    check::optional_one_of(faults, path, rule, "scope", &["*", "Cluster", "Namespaced"]);
}

/// The resources of a rule, with or without a subresource: a wildcard must not cover what is named beside it.
fn resources<'a>(faults: &mut Faults, path: &Path<'_>, shown: &Value, all: impl Iterator<Item = &'a str>) {
    let (mut whole, mut of_any) = (HashSet::new(), HashSet::new());
    let (mut count, mut everything, mut any, mut plain) = (0, false, false, false);
    for (i, item) in all.enumerate() {
        count += 1;
        if item.is_empty() {
            faults.required(&path.index(i), "");
            continue;
        }
        everything |= item == "*/*";
        any |= item == "*";
        let Some((resource, sub)) = item.split_once('/') else {
            // Only the last of the plain names counts, as the reference server has it.
            plain = item != "*";
            continue;
        };
        if whole.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {item}");
            faults.invalid_str(&path.index(i), item, &detail);
        }
        if of_any.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {item}");
            faults.invalid_str(&path.index(i), item, &detail);
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            of_any.insert(sub);
        }
    }
    if count == 0 {
        faults.required(path, "");
    }
    if count > 1 && everything {
        faults.invalid(path, shown, "if '*/*' is present, must not specify other resources");
    }
    if any && plain {
        faults.invalid(path, shown, "if '*' is present, must not specify other resources without subresources");
    }
}
