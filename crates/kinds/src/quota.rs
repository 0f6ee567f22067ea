//! LimitRanges and ResourceQuotas.

use std::collections::{BTreeSet, HashSet};

use corten_api::field::{Faults, Path};
use serde_json::{Map, Value, json};

use crate::doc::{Read, Write};
use crate::pod::defaults;
use crate::quantity::Quantity;
use crate::{Column, Context, Strategy, check, columns, internal, names, resources, table};

pub(crate) struct LimitRanges;

impl Strategy for LimitRanges {
    fn default(&self, object: &mut Value) {
        for item in object.object("spec").items("limits") {
            for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                defaults::round_up(item, list);
            }
            if item.text("type") != "Container" {
                continue;
            }
            fill(item, "max", "default");
            fill(item, "default", "defaultRequest");
            fill(item, "min", "defaultRequest");
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        // A range without a name gets a UUID for one.
        let metadata = object.object("metadata");
        if metadata.text("name").is_empty() {
            metadata.put("name", metadata["uid"].clone());
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        let path = spec.child("limits");
        let mut seen = HashSet::new();
        for (i, item) in object["spec"].list("limits").iter().enumerate() {
            let at = path.index(i);
            let kind = item.text("type");
            limit_type(&mut faults, &at.child("type"), kind);
            if !seen.insert(kind) {
                check::duplicate(&mut faults, &at.child("type"), kind);
            }
            limit_item(&mut faults, &at, item, kind);
        }
        faults
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

/// Copies amounts that `to` lacks.
fn fill(item: &mut Value, from: &str, to: &str) {
    for (name, amount) in item.map(from).clone() {
        let list = item.object(to);
        if !list.has(&name) {
            list.put(&name, amount);
        }
    }
}

fn limit_type(faults: &mut Faults, path: &Path<'_>, kind: &str) {
    let wrong = names::qualified_name(kind);
    if !wrong.is_empty() {
        check::invalid_each(faults, path, kind, wrong);
    } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        faults.invalid_str(path, kind, "must be a standard limit type or fully qualified");
    }
}

fn limit_item(faults: &mut Faults, path: &Path<'_>, item: &Value, kind: &str) {
    let pods = matches!(kind, "Pod" | "Container");
    let names_of = |faults: &mut Faults, list: &str| {
        let at = path.child(list);
        for name in item.map(list).keys() {
            if pods {
                resources::check_container_name(faults, &at.key(name), name);
            } else {
                resources::check_name(faults, &at.key(name), name);
            }
        }
    };
    names_of(faults, "max");
    names_of(faults, "min");
    for list in ["default", "defaultRequest"] {
        if kind != "Pod" {
            names_of(faults, list);
        } else if !item.map(list).is_empty() {
            faults.forbidden(&path.child(list), "may not be specified when `type` is 'Pod'");
        }
    }
    if kind == "PersistentVolumeClaim" && !item["min"].has("storage") && !item["max"].has("storage") {
        faults.required(&path.child("limits"), "either minimum or maximum storage value is required, but neither was provided");
    }
    names_of(faults, "maxLimitRequestRatio");
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let keys: BTreeSet<&String> = lists
        .iter()
        .filter(|list| kind != "Pod" || !list.starts_with("default"))
        .flat_map(|list| item.map(list).keys())
        .collect();
    for name in keys {
        bounds(faults, path, item, name, kind == "Pod");
    }
}

/// The five amounts of one resource must fit together.
fn bounds(faults: &mut Faults, path: &Path<'_>, item: &Value, name: &str, pod: bool) {
    let get = |list: &str| Quantity::of(&item[list][name]);
    let (min, max, ratio) = (get("min"), get("max"), get("maxLimitRequestRatio"));
    let (limit, request) = if pod { (None, None) } else { (get("default"), get("defaultRequest")) };
    let mut wrong = |list: &str, shown: &Quantity, detail: String| {
        faults.invalid_str(&path.child(list).key(name), &shown.to_string(), &detail);
    };
    let above = |a: &Option<Quantity>, b: &Option<Quantity>| match (a, b) {
        (Some(a), Some(b)) => (a.amount() > b.amount()).then(|| (a.clone(), b.clone())),
        _ => None,
    };
    if let Some((min, max)) = above(&min, &max) {
        wrong("min", &min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some((min, request)) = above(&min, &request) {
        wrong("defaultRequest", &request, format!("min value {min} is greater than default request value {request}"));
    }
    if let Some((request, max)) = above(&request, &max) {
        wrong("defaultRequest", &request, format!("default request value {request} is greater than max value {max}"));
    }
    if let Some((request, limit)) = above(&request, &limit) {
        wrong("defaultRequest", &request, format!("default request value {request} is greater than default limit value {limit}"));
    }
    if let Some((min, limit)) = above(&min, &limit) {
        wrong("default", &min, format!("min value {min} is greater than default value {limit}"));
    }
    if let Some((limit, max)) = above(&limit, &max) {
        wrong("default", &max, format!("default value {limit} is greater than max value {max}"));
    }
    if let Some(ratio) = &ratio {
        if ratio.milli() < 1000 {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            #[expect(clippy::cast_precision_loss, reason = "the reference server compares floating point numbers too")]
            let most = max.milli() as f64 / min.milli() as f64;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if ratio.milli() as f64 / 1000.0 > most {
                wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is greater than max/min = {most:.6}"));
            }
        }
    }
    if let (Some(limit), Some(request), false) = (&limit, &request, resources::is_overcommit_allowed(name))
        && limit.amount() != request.amount()
    {
        let detail = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        wrong("defaultRequest", request, detail);
    }
}

pub(crate) struct ResourceQuotas;

const SCOPES: &[&str] = &[
    "BestEffort",
    "NotBestEffort",
    "Terminating",
    "NotTerminating",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

impl Strategy for ResourceQuotas {
    fn default(&self, object: &mut Value) {
        defaults::round_up(object.object("spec"), "hard");
        let status = object.object("status");
        defaults::round_up(status, "hard");
        defaults::round_up(status, "used");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({}));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        quota_spec(&mut faults, &object["spec"]);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let status = Path::new("status");
        for list in ["hard", "used"] {
            amounts(&mut faults, &status.child(list), object["status"].map(list));
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        quota_spec(&mut faults, &object["spec"]);
        let scopes = |object: &Value| object["spec"].texts("scopes").map(str::to_owned).collect::<BTreeSet<_>>();
        if scopes(object) != scopes(old) {
            faults.invalid(&Path::new("spec").child("scopes"), &object["spec"]["scopes"], check::IMMUTABLE);
        }
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        warnings(&object["spec"])
    }

    fn columns(&self) -> &'static [Column] {
        columns::RESOURCEQUOTAS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.map("hard") {
            let used = status["used"].opt_text(name).unwrap_or("0");
            let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"));
            if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
        }
        vec![table::name(object), requests.join(", ").into(), limits.join(", ").into(), table::age(object, now)]
    }
}

fn amounts(faults: &mut Faults, path: &Path<'_>, list: &Map<String, Value>) {
    for (name, amount) in list {
        let at = path.key(name);
        resources::check_quota_name(faults, &at, name);
        check::resource_quantity(faults, &at, name, amount);
    }
}

fn quota_spec(faults: &mut Faults, spec: &Value) {
    let path = Path::new("spec");
    amounts(faults, &path.child("hard"), spec.map("hard"));
    let at = path.child("scopes");
    let scopes: Vec<&str> = spec.texts("scopes").collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            faults.invalid(&at, &spec["scopes"], "unsupported scope");
        }
        for _ in misfits(spec, scope) {
            faults.invalid(&at, &spec["scopes"], "unsupported scope applied to resource");
        }
    }
    conflicts(faults, &at, &scopes, &spec["scopes"]);
    let Some(selector) = spec.opt("scopeSelector") else { return };
    let parent = path.child("scopeSelector");
    let at = parent.child("matchExpressions");
    let mut named = Vec::new();
    for requirement in selector.list("matchExpressions") {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        if !SCOPES.contains(&scope) {
            faults.invalid_str(&at.child("scopeName"), scope, "unsupported scope");
        }
        for _ in misfits(spec, scope) {
            let shown = internal::shown("ScopeSelector", selector);
            check::invalid_shown(faults, &at, &shown, "unsupported scope applied to resource");
        }
        let only_exists =
            matches!(scope, "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity");
        if only_exists && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                          ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                          ResourceQuotaScopeCrossNamespacePodAffinity";
            faults.invalid_str(&at.child("operator"), operator, detail);
        }
        let values = requirement.list("values");
        match operator {
            "In" | "NotIn" => {
                if values.is_empty() {
                    let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                    faults.required(&at.child("values"), detail);
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                    faults.invalid(&at.child("values"), &requirement["values"], detail);
                }
            }
            other => faults.invalid_str(&at.child("operator"), other, "not a valid selector operator"),
        }
        named.push(scope);
    }
    conflicts(faults, &at, &named, &spec["scopes"]);
}

/// Constrained resources that the scope does not select objects of.
fn misfits<'a>(spec: &'a Value, scope: &'a str) -> impl Iterator<Item = &'a String> {
    let fits = move |name: &str| match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            name == "pods"
                || matches!(name, "cpu" | "memory" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory")
        }
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    };
    spec.map("hard").keys().filter(move |name| resources::is_standard_quota(name) && !fits(name))
}

fn conflicts(faults: &mut Faults, path: &Path<'_>, scopes: &[&str], shown: &Value) {
    for pair in [["BestEffort", "NotBestEffort"], ["NotTerminating", "Terminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            faults.invalid(path, shown, "conflicting scopes");
        }
    }
}

/// Requests that no limit leaves room for.
fn warnings(spec: &Value) -> Vec<String> {
    let hard = &spec["hard"];
    let amount = |name: &str| Some((name.to_owned(), Quantity::of(&hard[name])?));
    let mut warnings = Vec::new();
    for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let bare = || matches!(name, "cpu" | "memory").then(|| amount(name)).flatten();
        let request = amount(&format!("requests.{name}")).or_else(bare);
        let (Some((requested, request)), Some((limited, limit))) = (request, amount(&format!("limits.{name}"))) else { continue };
        if request.amount() > limit.amount() {
            warnings.push(format!("ResourceQuota {requested} ({request}) should be less than {limited} ({limit})"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, shown};

    fn quota(spec: Value) -> Value {
        json!({ "spec": spec })
    }

    #[test]
    fn limit_ranges_without_a_name_get_one() {
        for (name, expected) in [("", "u"), ("n", "n")] {
            let mut range = json!({ "metadata": { "name": name, "uid": "u" } });
            LimitRanges.prepare_create(&mut range, &context(""));
            assert_eq!(range["metadata"]["name"], expected);
        }
    }

    #[test]
    fn requests_above_limits_are_warned_of() {
        let cases = [
            (json!({ "cpu": "2", "limits.cpu": "1" }), vec!["ResourceQuota cpu (2) should be less than limits.cpu (1)"]),
            (
                json!({ "cpu": "1", "requests.cpu": "3", "limits.cpu": "2" }),
                vec!["ResourceQuota requests.cpu (3) should be less than limits.cpu (2)"],
            ),
            (json!({ "memory": "1Gi", "limits.memory": "1Gi" }), vec![]),
            (json!({ "ephemeral-storage": "2", "limits.ephemeral-storage": "1" }), vec![]),
        ];
        for (hard, expected) in cases {
            let got = ResourceQuotas.warnings(&quota(json!({ "hard": hard })), None, &context(""));
            assert_eq!(got, expected, "{hard}");
        }
    }

    #[test]
    fn scopes_go_with_pods_cpu_and_memory() {
        for (name, fits) in
            [("cpu", true), ("limits.memory", true), ("pods", true), ("ephemeral-storage", false), ("services", false)]
        {
            let object = quota(json!({ "hard": { name: "1" }, "scopes": ["NotBestEffort"] }));
            let faults = shown(&ResourceQuotas.validate(&object, &context("")));
            let expected: &[&str] = &["spec.scopes: Invalid value: [\"NotBestEffort\"]: unsupported scope applied to resource"];
            assert_eq!(faults, if fits { &[] } else { expected }, "{name}");
        }
    }
}
