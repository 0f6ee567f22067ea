//! `flowcontrol.apiserver.k8s.io`: FlowSchemas and PriorityLevelConfigurations.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write, semantic_equal};
use crate::{Column, Context, Strategy, check, columns, internal, meta, names, table};

pub(crate) struct FlowSchemas;

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

impl Strategy for FlowSchemas {
    fn default(&self, object: &mut Value) {
        object.object("spec").default_int("matchingPrecedence", 1000);
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({}));
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let spec = &object["spec"];
        let at = path.child("matchingPrecedence");
        let precedence = spec.int("matchingPrecedence");
        if precedence <= 0 {
            faults.invalid_int(&at, precedence, "must be a positive value");
        }
        if precedence > 10_000 {
            faults.invalid_int(&at, precedence, "must not be greater than 10000");
        }
        if precedence == 1 && object["metadata"].text("name") != "exempt" {
            faults.invalid_int(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        if let Some(method) = spec.opt("distinguisherMethod") {
            let kind = method.text("type");
            if !matches!(kind, "ByNamespace" | "ByUser") {
                let shown = internal::shown("FlowDistinguisherMethod", method);
                let at = path.child("distinguisherMethod");
                check::not_supported_shown(&mut faults, &at.child("type"), &shown, &["ByNamespace", "ByUser"]);
            }
        }
        let level = spec["priorityLevelConfiguration"].text("name");
        let at = path.child("priorityLevelConfiguration");
        if level.is_empty() {
            faults.required(&at.child("name"), "must reference a priority level");
        } else {
            check::dns_subdomain(&mut faults, &at.child("name"), level);
        }
        let rules = path.child("rules");
        for (i, item) in spec.list("rules").iter().enumerate() {
            rule(&mut faults, &rules.index(i), item);
        }
        let name = object["metadata"].text("name");
        if let Some(fixed) = fixed_schema(name)
            && !semantic_equal(spec, &fixed)
        {
            let shown = internal::shown("FlowSchemaSpec", spec);
            check::invalid_shown(&mut faults, &path, &shown, &format!("spec of '{name}' must equal the fixed value"));
        }
        conditions(&mut faults, &object["status"]);
        faults
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        conditions(&mut faults, &object["status"]);
        faults
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "spec");
        let managed = object["metadata"]["managedFields"].clone();
        object.copy_from(old, "metadata");
        object.object("metadata").put("managedFields", managed);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn columns(&self) -> &'static [Column] {
        columns::FLOWSCHEMAS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let dangling = object["status"].list("conditions").iter().find(|condition| condition.text("type") == "Dangling");
        vec![
            table::name(object),
            spec["priorityLevelConfiguration"].text("name").into(),
            table::number(spec, "matchingPrecedence"),
            table::or(spec["distinguisherMethod"].text("type"), "<none>").into(),
            table::age(object, now),
            dangling.map_or("?", |condition| condition.text("status")).into(),
        ]
    }
}

/// The schemas without which requests would be lost or the cluster locked out stay as they are.
fn fixed_schema(name: &str) -> Option<Value> {
    let (level, precedence, distinguisher, groups): (_, _, _, &[&str]) = match name {
        "exempt" => ("exempt", 1, Value::Null, &["system:masters"]),
        "catch-all" => ("catch-all", 10_000, json!({ "type": "ByUser" }), &["system:unauthenticated", "system:authenticated"]),
        _ => return None,
    };
    let subjects: Vec<Value> = groups.iter().map(|group| json!({ "kind": "Group", "group": { "name": group } })).collect();
    let any = json!(["*"]);
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": level },
        "matchingPrecedence": precedence,
        "rules": [{
            "subjects": subjects,
            "resourceRules": [{ "verbs": any, "apiGroups": any, "resources": any, "clusterScope": true, "namespaces": any }],
            "nonResourceRules": [{ "verbs": any, "nonResourceURLs": any }],
        }],
    });
    spec.put("distinguisherMethod", distinguisher);
    Some(spec)
}

/// The conditions of a schema or level: one of each type, and none without.
fn conditions(faults: &mut Faults, status: &Value) {
    let root = Path::new("status");
    let path = root.child("conditions");
    let mut seen = std::collections::HashSet::new();
    for (i, condition) in status.list("conditions").iter().enumerate() {
        let here = path.index(i);
        let (kind, at) = (condition.text("type"), here.child("type"));
        if !seen.insert(kind) {
            check::duplicate(faults, &at, kind);
        }
        if kind.is_empty() {
            faults.required(&at, "");
        }
    }
}

fn rule(faults: &mut Faults, path: &Path<'_>, rule: &Value) {
    let at = path.child("subjects");
    if rule.list("subjects").is_empty() {
        faults.required(&at, "subjects must contain at least one value");
    }
    for (i, item) in rule.list("subjects").iter().enumerate() {
        subject(faults, &at.index(i), item);
    }
    let (resources, urls) = (rule.list("resourceRules"), rule.list("nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        faults.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let at = path.child("resourceRules");
    for (i, item) in resources.iter().enumerate() {
        let here = at.index(i);
        verbs(faults, &here.child("verbs"), item);
        wildcards(faults, &here.child("apiGroups"), item, "apiGroups", "resource rules must supply at least one api group");
        wildcards(faults, &here.child("resources"), item, "resources", "resource rules must supply at least one resource");
        let namespaces = here.child("namespaces");
        if item.list("namespaces").is_empty() && !item.flag("clusterScope") {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            faults.required(&namespaces, detail);
        } else if item.list("namespaces").len() > 1 && item.texts("namespaces").any(|name| name == "*") {
            faults.invalid(&namespaces, &item["namespaces"], "if '*' is present, must not specify other namespaces");
        } else {
            for (j, name) in item.texts("namespaces").enumerate().filter(|(_, name)| *name != "*") {
                for message in names::dns_label(name) {
                    let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                    faults.invalid_str(&namespaces.index(j), name, &detail);
                }
            }
        }
    }
    let at = path.child("nonResourceRules");
    for (i, item) in urls.iter().enumerate() {
        let here = at.index(i);
        verbs(faults, &here.child("verbs"), item);
        let urls_at = here.child("nonResourceURLs");
        let all: Vec<&str> = item.texts("nonResourceURLs").collect();
        if all.is_empty() {
            faults.required(&urls_at, "nonResourceURLs must contain at least one value");
        } else if all.len() > 1 && all.contains(&"*") {
            faults.invalid(&urls_at, &item["nonResourceURLs"], "if '*' is present, must not specify other non-resource URLs");
        } else {
            for (j, url) in all.iter().enumerate().filter(|(_, url)| **url != "*") {
                if let Some(why) = url_fault(url) {
                    faults.invalid_str(&urls_at.index(j), url, why);
                }
            }
        }
    }
}

fn url_fault(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        return Some("must not be empty");
    }
    if url == "/" {
        return None;
    }
    if !url.starts_with('/') {
        return Some("must start with slash");
    }
    if url.contains(' ') {
        return Some("must not contain white-space");
    }
    if url.contains("//") {
        return Some("must not contain double slash");
    }
    match url.find('*') {
        Some(at) if at + 1 != url.len() || !url.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

fn verbs(faults: &mut Faults, path: &Path<'_>, rule: &Value) {
    let all: Vec<&str> = rule.texts("verbs").collect();
    if all.is_empty() {
        faults.required(path, "verbs must contain at least one value");
    } else if all.len() > 1 && all.contains(&"*") {
        faults.invalid(path, &rule["verbs"], "if '*' is present, must not specify other verbs");
    } else if all != ["*"] && !all.iter().all(|verb| VERBS.contains(verb)) {
        check::not_supported_shown(faults, path, &rule["verbs"].to_string(), VERBS);
    }
}

fn wildcards(faults: &mut Faults, path: &Path<'_>, rule: &Value, key: &str, missing: &str) {
    let all = rule.list(key);
    if all.is_empty() {
        faults.required(path, missing);
    } else if all.len() > 1 && all.contains(&json!("*")) {
        let what = if key == "apiGroups" { "api groups" } else { "resources" };
        faults.invalid(path, &rule[key], &format!("if '*' is present, must not specify other {what}"));
    }
}

fn subject(faults: &mut Faults, path: &Path<'_>, subject: &Value) {
    let kind = subject.text("kind");
    let (own, label) = match kind {
        "ServiceAccount" => ("serviceAccount", "ServiceAccount"),
        "User" => ("user", "User"),
        "Group" => ("group", "Group"),
        other => {
            faults.not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]);
            return;
        }
    };
    match subject.opt(own) {
        None => faults.required(&path.child(own), &format!("{own} is required when subject kind is '{label}'")),
        Some(found) => {
            let at = path.child(own);
            let name = found.text("name");
            if name.is_empty() {
                faults.required(&at.child("name"), "");
            } else if own == "serviceAccount" && name != "*" {
                check::dns_subdomain(faults, &at.child("name"), name);
            }
            if own == "serviceAccount" {
                match found.text("namespace") {
                    "" => faults.required(&at.child("namespace"), "must specify namespace for service account"),
                    namespace => check::invalid_each(faults, &at.child("namespace"), namespace, names::dns_label(namespace)),
                }
            }
        }
    }
    for other in ["serviceAccount", "user", "group"].iter().filter(|other| **other != own && subject.has(other)) {
        faults.forbidden(
            &path.child(other),
            &format!(
                "{other} is forbidden when subject kind is not '{}'",
                match *other {
                    "user" => "User",
                    "group" => "Group",
                    _ => "ServiceAccount",
                }
            ),
        );
    }
}

pub(crate) struct PriorityLevels;

impl Strategy for PriorityLevels {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        if let Some(exempt) = spec.child("exempt") {
            for key in ["nominalConcurrencyShares", "lendablePercent"] {
                if !exempt.has(key) {
                    exempt.put(key, 0);
                }
            }
        }
        if let Some(limited) = spec.child("limited") {
            if !limited.has("nominalConcurrencyShares") {
                limited.put("nominalConcurrencyShares", 30);
            }
            if !limited.has("lendablePercent") {
                limited.put("lendablePercent", 0);
            }
            if let Some(queuing) = limited.object("limitResponse").child("queuing") {
                for (key, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                    queuing.default_int(key, value);
                }
            }
        }
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({}));
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let spec = &object["spec"];
        let kind = spec.text("type");
        let name = object["metadata"].text("name");
        if (name == "exempt") != (kind == "Exempt") {
            faults.invalid_str(&path.child("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
        }
        match kind {
            "Exempt" => {
                if spec.has("limited") {
                    faults.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
                }
                if let Some(exempt) = spec.opt("exempt") {
                    let at = path.child("exempt");
                    shares(&mut faults, &at, exempt);
                }
            }
            "Limited" => {
                if spec.has("exempt") {
                    faults.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
                }
                match spec.opt("limited") {
                    None => faults.required(&path.child("limited"), "must not be empty when type is Limited"),
                    Some(found) => limited(&mut faults, &path.child("limited"), found),
                }
            }
            other => faults.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
        }
        // The level of last resort stays as it is; of the exempt one only its shares may change.
        let fixed = match name {
            "catch-all" => json!({
                "type": "Limited",
                "limited": { "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": { "type": "Reject" } },
            }),
            "exempt" => {
                let mut fixed = json!({ "type": "Exempt" });
                fixed.copy_from(spec, "exempt");
                fixed
            }
            _ => spec.clone(),
        };
        if !semantic_equal(spec, &fixed) {
            let shown = internal::shown("PriorityLevelConfigurationSpec", spec);
            check::invalid_shown(&mut faults, &path, &shown, &format!("spec of '{name}' must equal the fixed value"));
        }
        conditions(&mut faults, &object["status"]);
        faults
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        conditions(&mut faults, &object["status"]);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        FlowSchemas.prepare_update(object, old, ctx);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        FlowSchemas.prepare_status(object, old, ctx);
    }

    fn columns(&self) -> &'static [Column] {
        columns::PRIORITYLEVELCONFIGURATIONS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let limited = &spec["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let of = |value: &Value, key: &str| value.opt_int(key).map_or(json!("<none>"), |n| json!(n));
        let shares = if limited.is_null() {
            of(&spec["exempt"], "nominalConcurrencyShares")
        } else {
            of(limited, "nominalConcurrencyShares")
        };
        vec![
            table::name(object),
            spec.text("type").into(),
            shares,
            of(queuing, "queues"),
            of(queuing, "handSize"),
            of(queuing, "queueLengthLimit"),
            table::age(object, now),
        ]
    }
}

fn shares(faults: &mut Faults, path: &Path<'_>, level: &Value) {
    let shares = level.int("nominalConcurrencyShares");
    if shares < 0 {
        faults.invalid_int(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    lendable(faults, path, level);
}

fn lendable(faults: &mut Faults, path: &Path<'_>, level: &Value) {
    if let Some(percent) = level.opt_int("lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        faults.invalid_int(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn limited(faults: &mut Faults, path: &Path<'_>, limited: &Value) {
    let shares = limited.int("nominalConcurrencyShares");
    if shares < 0 {
        faults.invalid_int(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    let response = &limited["limitResponse"];
    let at = path.child("limitResponse");
    match response.text("type") {
        "Reject" => {
            if response.has("queuing") {
                faults.forbidden(&at.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
            }
        }
        "Queue" => match response.opt("queuing") {
            None => faults.required(&at.child("queuing"), "must not be empty if limited.limitResponse.type is Limited"),
            Some(found) => queuing(faults, &at.child("queuing"), found),
        },
        other => faults.not_supported(&at.child("type"), other, &["Queue", "Reject"]),
    }
    lendable(faults, path, limited);
    if let Some(percent) = limited.opt_int("borrowingLimitPercent").filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        faults.invalid_int(&path.child("borrowingLimitPercent"), percent, detail);
    }
}

fn queuing(faults: &mut Faults, path: &Path<'_>, queuing: &Value) {
    let (length, queues, hand) = (queuing.int("queueLengthLimit"), queuing.int("queues"), queuing.int("handSize"));
    if length <= 0 {
        faults.invalid_int(&path.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        faults.invalid_int(&path.child("queues"), queues, "must be positive");
    } else if queues > 10_000_000 {
        faults.invalid_int(&path.child("queues"), queues, "must not be greater than 10000000");
    }
    if hand <= 0 {
        faults.invalid_int(&path.child("handSize"), hand, "must be positive");
    } else if hand > queues {
        faults.invalid_int(&path.child("handSize"), hand, &format!("should not be greater than queues ({queues})"));
    } else {
        #[expect(clippy::cast_precision_loss, reason = "an estimate of bits")]
        let bits = (queues as f64).log2() * hand as f64;
        if bits > 60.0 {
            let detail = format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60");
            faults.invalid_int(&path.child("handSize"), hand, &detail);
        }
    }
}
