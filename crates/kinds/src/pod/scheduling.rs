//! Validation of what steers a pod to a node: affinity, tolerations, topology spread, gates, claims.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Map, Value, json};

use crate::check;
use crate::doc::Read;
use crate::internal;
use crate::pod::Options;

/// `affinity`
pub(super) fn affinity(faults: &mut Faults, path: &Path<'_>, affinity: &Value, options: &Options) {
    if let Some(node) = affinity.opt("nodeAffinity") {
        let at = path.child("nodeAffinity");
        if let Some(required) = node.opt("requiredDuringSchedulingIgnoredDuringExecution") {
            node_selector(faults, &at.child("requiredDuringSchedulingIgnoredDuringExecution"), required, options.lax_affinity);
        }
        let preferred = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in node.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let here = preferred.index(i);
            weight(faults, &here, term);
            node_selector_term(faults, &here.child("preference"), &term["preference"], true);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pod) = affinity.opt(kind) else { continue };
        let at = path.child(kind);
        let required = at.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in pod.list("requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            pod_term(faults, &required.index(i), term, options);
        }
        let preferred = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in pod.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let here = preferred.index(i);
            weight(faults, &here, term);
            pod_term(faults, &here.child("podAffinityTerm"), &term["podAffinityTerm"], options);
        }
    }
}

fn weight(faults: &mut Faults, path: &Path<'_>, term: &Value) {
    let weight = term.int("weight");
    if !(1..=100).contains(&weight) {
        faults.invalid_int(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// A `v1.NodeSelector`; `lax` lets invalid label values pass.
pub(crate) fn node_selector(faults: &mut Faults, path: &Path<'_>, selector: &Value, lax: bool) {
    let at = path.child("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        return faults.required(&at, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(faults, &at.index(i), term, lax);
    }
}

/// A `v1.NodeSelectorTerm`.
pub(crate) fn node_selector_term(faults: &mut Faults, path: &Path<'_>, term: &Value, lax: bool) {
    let expressions = path.child("matchExpressions");
    for (i, requirement) in term.list("matchExpressions").iter().enumerate() {
        node_requirement(faults, &expressions.index(i), requirement, lax);
    }
    let fields = path.child("matchFields");
    for (i, requirement) in term.list("matchFields").iter().enumerate() {
        node_field_requirement(faults, &fields.index(i), requirement);
    }
}

fn node_requirement(faults: &mut Faults, path: &Path<'_>, requirement: &Value, lax: bool) {
    let values = requirement.list("values");
    let at = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.is_empty() => faults.required(&at, "must be specified when `operator` is 'In' or 'NotIn'"),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            faults.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            faults.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => faults.invalid_str(&path.child("operator"), other, "not a valid selector operator"),
    }
    check::qualified_name(faults, &path.child("key"), requirement.text("key"));
    if !lax {
        for (i, value) in requirement.texts("values").enumerate() {
            check::invalid_each(faults, &at.index(i), value, crate::names::label_value(value));
        }
    }
}

fn node_field_requirement(faults: &mut Faults, path: &Path<'_>, requirement: &Value) {
    let at = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if requirement.list("values").len() != 1 {
                faults.required(&at, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
            }
        }
        other => faults.invalid_str(&path.child("operator"), other, "not a valid selector operator"),
    }
    let key = requirement.text("key");
    if key == "metadata.name" {
        for (i, value) in requirement.texts("values").enumerate() {
            check::dns_subdomain(faults, &at.index(i), value);
        }
    } else {
        faults.invalid_str(&path.child("key"), key, "not a valid field selector key");
    }
}

fn pod_term(faults: &mut Faults, path: &Path<'_>, term: &Value, options: &Options) {
    for key in ["labelSelector", "namespaceSelector"] {
        check::label_selector(faults, &path.child(key), &term[key], options.lax_selectors);
    }
    for name in term.texts("namespaces") {
        check::dns_label(faults, &path.child("namespace"), name);
    }
    label_keys(faults, path, term);
    let topology = term.text("topologyKey");
    if topology.is_empty() {
        faults.required(&path.child("topologyKey"), "can not be empty");
    }
    check::qualified_name(faults, &path.child("topologyKey"), topology);
}

/// `matchLabelKeys` and `mismatchLabelKeys` (KEP-3633).
pub(super) fn label_keys(faults: &mut Faults, path: &Path<'_>, term: &Value) {
    let selector = term.opt("labelSelector");
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        let at = path.child(key);
        if term.list(key).is_empty() {
            continue;
        }
        if selector.is_none() {
            faults.forbidden(&at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, label) in term.texts(key).enumerate() {
            check::qualified_name(faults, &at.index(i), label);
        }
    }
    let matched: Vec<&str> = term.texts("matchLabelKeys").collect();
    if let Some(selector) = selector {
        let mut seen: HashSet<&str> = selector.map("matchLabels").keys().map(String::as_str).collect();
        for requirement in selector.list("matchExpressions") {
            let key = requirement.text("key");
            if let Some(i) = matched.iter().rposition(|have| *have == key)
                && seen.contains(key)
            {
                faults.invalid_str(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
            }
            seen.insert(key);
        }
    }
    let at = path.child("matchLabelKeys");
    for (i, key) in matched.iter().enumerate() {
        if term.texts("mismatchLabelKeys").any(|other| other == *key) {
            faults.invalid_str(&at.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

/// Effects of taints.
pub(crate) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// `tolerations`
pub(crate) fn tolerations(faults: &mut Faults, path: &Path<'_>, tolerations: &[Value]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = path.index(i);
        let (key, operator, effect) = (toleration.text("key"), toleration.text("operator"), toleration.text("effect"));
        let value = toleration.text("value");
        if !key.is_empty() {
            check::qualified_name(faults, &at.child("key"), key);
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            faults.invalid_str(&at.child("operator"), operator, detail);
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            faults.invalid_str(&at.child("effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => check::label_value_joined(faults, &at.child("operator"), value),
            "Exists" => {
                if !value.is_empty() {
                    faults.invalid_str(&at.child("operator"), value, "value must be empty when `operator` is 'Exists'");
                }
            }
            // Comparisons are known, but switched off.
            other @ ("Lt" | "Gt") => faults.not_supported(&at.child("operator"), other, &["Equal", "Exists", "Lt", "Gt"]),
            other => faults.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            check::one_of(faults, &at.child("effect"), effect, TAINT_EFFECTS);
        }
    }
}

/// `schedulingGates`
pub(super) fn gates(faults: &mut Faults, path: &Path<'_>, gates: &[Value]) {
    let mut seen = HashSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let name = gate.text("name");
        check::qualified_name(faults, &path.index(i), name);
        if !seen.insert(name) {
            check::duplicate(faults, &path.index(i), name);
        }
    }
}

/// `resourceClaims`
pub(super) fn claims(faults: &mut Faults, path: &Path<'_>, claims: &[Value], is_mirror: bool) {
    if is_mirror {
        for _ in claims {
            faults.forbidden(&Path::new(""), "static pods do not support resource claims");
        }
        return;
    }
    let mut seen = HashSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        let name = claim.text("name");
        if name.is_empty() {
            faults.required(&at.child("name"), "");
        } else if seen.contains(name) {
            check::duplicate(faults, &at.child("name"), name);
        } else {
            check::dns_label(faults, &at.child("name"), name);
            seen.insert(name);
        }
        let keys = ["resourceClaimName", "resourceClaimTemplateName"];
        match keys.iter().filter(|key| claim.has(key)).count() {
            0 => check::invalid_shown(
                faults,
                &at,
                &internal::shown("PodResourceClaim", claim),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            1 => {}
            _ => check::invalid_shown(
                faults,
                &at,
                &internal::shown("PodResourceClaim", claim),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
        }
        for key in keys {
            if let Some(name) = claim.opt_text(key) {
                check::dns_subdomain(faults, &at.child(key), name);
            }
        }
    }
}

/// `topologySpreadConstraints`
pub(super) fn spread(faults: &mut Faults, path: &Path<'_>, constraints: &[Value], options: &Options) {
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if constraint.int("maxSkew") <= 0 {
            faults.invalid_int(&at.child("maxSkew"), constraint.int("maxSkew"), check::NOT_POSITIVE);
        }
        if key.is_empty() {
            faults.required(&at.child("topologyKey"), "can not be empty");
        }
        check::one_of(faults, &at.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let again = constraints[i + 1..].iter().any(|c| c.text("topologyKey") == key && c.text("whenUnsatisfiable") == action);
        if again {
            let pair = format!("{{{key}, {action}}}");
            check::duplicate(faults, &at.child("{topologyKey, whenUnsatisfiable}"), &pair);
        }
        if let Some(domains) = constraint.opt_int("minDomains") {
            let here = at.child("minDomains");
            if domains <= 0 {
                faults.invalid_int(&here, domains, check::NOT_POSITIVE);
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                faults.invalid_int(&here, domains, &detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            check::optional_one_of(faults, &at, constraint, policy, &["Honor", "Ignore"]);
        }
        if !options.lax_spread_keys {
            label_keys(faults, &at, constraint);
        }
        if !options.lax_spread {
            check::label_selector(faults, &at.child("labelSelector"), &constraint["labelSelector"], false);
        }
    }
}

/// While a pod is gated its node selector may only gain entries.
pub(super) fn selector_grew(faults: &mut Faults, path: &Path<'_>, new: &Map<String, Value>, old: &Map<String, Value>) {
    if !old.iter().all(|(key, value)| new.get(key) == Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        faults.invalid(path, &if new.is_empty() { Value::Null } else { json!(new) }, detail);
    }
}

/// While a pod is gated its required node affinity may only be narrowed.
pub(super) fn affinity_grew(faults: &mut Faults, path: &Path<'_>, new: &Value, old: &Value) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    if !old[REQUIRED].is_object() {
        return;
    }
    let shown = &new[REQUIRED]["nodeSelectorTerms"];
    let (old, new) = (old[REQUIRED].list("nodeSelectorTerms"), new[REQUIRED].list("nodeSelectorTerms"));
    let required = path.child(REQUIRED);
    let at = required.child("nodeSelectorTerms");
    if !old.is_empty() && old.len() != new.len() {
        let shown = internal::shown_list("NodeSelectorTerm", shown);
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return check::invalid_shown(faults, &at, &shown, detail);
    }
    for (i, (old, new)) in old.iter().zip(new).enumerate() {
        let nothing = |term: &Value| term.list("matchExpressions").is_empty() && term.list("matchFields").is_empty();
        let grew = |key: &str| {
            let before = old.list(key);
            new.list(key).get(..before.len()).is_some_and(|kept| kept == before)
        };
        if (nothing(old) && !nothing(new)) || !grew("matchExpressions") || !grew("matchFields") {
            let shown = internal::shown("NodeSelectorTerm", new);
            check::invalid_shown(faults, &at.index(i), &shown, "only additions are allowed (no mutations or deletions)");
        }
    }
}
