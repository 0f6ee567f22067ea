//! What claims and classes of dynamic resource allocation (KEP-4381) must be: requests, constraints, configuration.

use std::collections::{HashMap, HashSet};

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::slice::{binding_conditions, fully_qualified, pool_name};
use super::status;
use crate::doc::{Read, semantic_equal};
use crate::pod::scheduling;
use crate::pod::volumes::csi_driver_name as driver_name;
use crate::{check, internal, names, resources};

pub(super) const MAX_LIST: usize = 32;
const MAX_SUBREQUESTS: usize = 8;
const MAX_EXPRESSION: usize = 10 << 10;
const MAX_PARAMETERS: usize = 10 << 10;
const MAX_RESERVED: usize = 256;
const REQUEST_FORM: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// `DeviceClassSpec`
pub(super) fn class(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    selectors(faults, &path.child("selectors"), spec.list("selectors"));
    each(faults, &path.child("config"), spec.list("config"), MAX_LIST, configuration);
    if let Some(name) = spec.opt_text("extendedResourceName").filter(|name| !resources::is_extended(name)) {
        faults.invalid_str(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
    }
}

/// `ResourceClaimSpec`
pub(super) fn claim(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let devices = &spec["devices"];
    let path = path.child("devices");
    let known = Requests::of(devices);
    set(faults, &path.child("requests"), devices.list("requests"), MAX_LIST, by_name, request);
    each(faults, &path.child("constraints"), devices.list("constraints"), MAX_LIST, |faults, path, constraint| {
        request_names(faults, path, constraint, &known);
        if let Some(name) = constraint.opt_text("matchAttribute") {
            fully_qualified(faults, &path.child("matchAttribute"), name);
        } else if let Some(name) = constraint.opt_text("distinctAttribute") {
            fully_qualified(faults, &path.child("distinctAttribute"), name);
        } else {
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            faults.required(path, detail);
        }
    });
    each(faults, &path.child("config"), devices.list("config"), MAX_LIST, |faults, path, config| {
        request_names(faults, path, config, &known);
        configuration(faults, path, config);
    });
}

/// `ResourceClaimStatus`: who uses what was allocated, once and for all.
pub(super) fn claim_status(faults: &mut Faults, path: &Path<'_>, claim: &Value, old: &Value) {
    let status = &claim["status"];
    let reserved = status.list("reservedFor");
    let at = path.child("reservedFor");
    if each(faults, &at, reserved, MAX_RESERVED, |faults, path, consumer| {
        for key in ["resource", "name", "uid"] {
            if consumer.text(key).is_empty() {
                faults.required(&path.child(key), "");
            }
        }
    }) {
        let mut seen = HashSet::new();
        for (i, uid) in reserved.iter().map(|consumer| consumer.text("uid")).enumerate() {
            if !seen.insert(uid) {
                check::duplicate(faults, &at.index(i), uid);
            }
        }
    }
    status::devices(faults, &path.child("devices"), status);
    if !reserved.is_empty() {
        if !status.has("allocation") {
            faults.forbidden(&at, "may not be specified when `allocated` is not set");
        } else if claim["metadata"].has("deletionTimestamp") && reserved.iter().any(|one| !old.list("reservedFor").contains(one))
        {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            faults.forbidden(&at, detail);
        }
    }
    let at = path.child("allocation");
    match (status.opt("allocation"), old.opt("allocation")) {
        (Some(now), Some(before)) if !semantic_equal(now, before) => {
            check::invalid_shown(faults, &at, &internal::shown("AllocationResult", now), check::IMMUTABLE);
        }
        (Some(now), None) => allocation(faults, &at, now, &Requests::of(&claim["spec"]["devices"])),
        _ => {}
    }
}

fn allocation(faults: &mut Faults, path: &Path<'_>, found: &Value, known: &Requests<'_>) {
    let devices = path.child("devices");
    each(faults, &devices.child("results"), found["devices"].list("results"), MAX_LIST, |faults, path, result| {
        let (request, at) = (result.text("request"), path.child("request"));
        if request.split('/').count() > 2 {
            faults.invalid_str(&at, request, REQUEST_FORM);
        } else {
            request.split('/').for_each(|part| check::dns_label(faults, &at, part));
            if !known.has(request) {
                faults.invalid_str(&at, request, REQUEST_FORM);
            }
        }
        driver_name(faults, &path.child("driver"), result.text("driver"));
        pool_name(faults, &path.child("pool"), result.text("pool"));
        check::dns_label(faults, &path.child("device"), result.text("device"));
        binding_conditions(faults, path, result);
        if let Some(share) = result.opt_text("shareID") {
            status::uid(faults, &path.child("shareID"), share);
        }
    });
    each(faults, &devices.child("config"), found["devices"].list("config"), 2 * MAX_LIST, |faults, path, config| {
        check::required_one_of(faults, &path.child("source"), config.text("source"), &["FromClaim", "FromClass"]);
        request_names(faults, path, config, known);
        configuration(faults, path, config);
    });
    if let Some(selector) = found.opt("nodeSelector") {
        scheduling::node_selector(faults, &path.child("nodeSelector"), selector, false);
    }
}

/// The requests of a claim, and the alternatives of each.
struct Requests<'v>(HashMap<&'v str, HashSet<&'v str>>);

impl<'v> Requests<'v> {
    fn of(devices: &'v Value) -> Self {
        let named = |request: &'v Value| {
            (request.text("name"), request.list("firstAvailable").iter().map(|sub| sub.text("name")).collect())
        };
        Self(devices.list("requests").iter().map(named).collect())
    }

    /// Whether `name` is a request, or a request and one of its alternatives after a slash.
    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, alternative)) => self.0.get(request).is_some_and(|known| known.contains(alternative)),
        }
    }
}

pub(super) fn by_name(item: &Value) -> &str {
    item.text("name")
}

/// Checks every item, unless there are too many.
pub(super) fn each(
    faults: &mut Faults,
    path: &Path<'_>,
    items: &[Value],
    max: usize,
    mut one: impl FnMut(&mut Faults, &Path<'_>, &Value),
) -> bool {
    if items.len() > max {
        faults.too_many(path, items.len(), max);
        return false;
    }
    for (i, item) in items.iter().enumerate() {
        one(faults, &path.index(i), item);
    }
    true
}

/// Checks every item, and that no two have the same key.
pub(super) fn set<'v>(
    faults: &mut Faults,
    path: &Path<'_>,
    items: &'v [Value],
    max: usize,
    key: impl Fn(&'v Value) -> &'v str,
    one: impl FnMut(&mut Faults, &Path<'_>, &Value),
) {
    if !each(faults, path, items, max, one) {
        return;
    }
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        if !seen.insert(key(item)) {
            check::duplicate(faults, &path.index(i), key(item));
        }
    }
}

fn request(faults: &mut Faults, path: &Path<'_>, request: &Value) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    check::dns_label(faults, &path.child("name"), request.text("name"));
    let alternatives = request.list("firstAvailable");
    match (request.opt("exactly"), alternatives.is_empty()) {
        (None, true) => faults.required(path, ONE),
        (Some(_), false) => faults.invalid(path, &Value::Null, &format!("{ONE}, but multiple fields are set")),
        (Some(exactly), true) => devices_wanted(faults, &path.child("exactly"), exactly),
        (None, false) => {
            set(faults, &path.child("firstAvailable"), alternatives, MAX_SUBREQUESTS, by_name, |faults, path, sub| {
                check::dns_label(faults, &path.child("name"), sub.text("name"));
                devices_wanted(faults, path, sub);
            });
        }
    }
}

/// What an exact request and an alternative have in common.
fn devices_wanted(faults: &mut Faults, path: &Path<'_>, request: &Value) {
    let class = request.text("deviceClassName");
    check::required(faults, &path.child("deviceClassName"), class, check::dns_subdomain);
    selectors(faults, &path.child("selectors"), request.list("selectors"));
    let (count, at) = (request.int("count"), path.child("count"));
    match request.text("allocationMode") {
        "All" if count != 0 => faults.invalid_int(&at, count, "must not be specified when allocationMode is 'All'"),
        "ExactCount" if count <= 0 => faults.invalid_int(&at, count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        mode => faults.not_supported(&path.child("allocationMode"), mode, &["All", "ExactCount"]),
    }
    let tolerations = path.child("tolerations");
    for (i, item) in request.list("tolerations").iter().enumerate() {
        toleration(faults, &tolerations.index(i), item);
    }
}

fn selectors(faults: &mut Faults, path: &Path<'_>, selectors: &[Value]) {
    each(faults, path, selectors, MAX_LIST, |faults, path, selector| {
        let path = path.child("cel");
        match selector.opt("cel") {
            None => faults.required(&path, ""),
            Some(cel) if cel.text("expression").len() > MAX_EXPRESSION => {
                faults.too_long(&path.child("expression"), MAX_EXPRESSION);
            }
            Some(cel) => super::selector::compile(faults, &path.child("expression"), cel.text("expression")),
        }
    });
}

fn request_names(faults: &mut Faults, path: &Path<'_>, object: &Value, known: &Requests<'_>) {
    const FORM: &str = REQUEST_FORM;
    let text = |item: &Value| item.as_str().unwrap_or_default().to_owned();
    let items = object.list("requests");
    let at = path.child("requests");
    let checked = each(faults, &at, items, MAX_LIST, |faults, path, item| {
        let name = text(item);
        if name.split('/').count() > 2 {
            return faults.invalid_str(path, &name, FORM);
        }
        name.split('/').for_each(|part| check::dns_label(faults, path, part));
        if !known.has(&name) {
            faults.invalid_str(path, &name, FORM);
        }
    });
    if checked {
        check::unique_texts(faults, &at, object.texts("requests"));
    }
}

fn configuration(faults: &mut Faults, path: &Path<'_>, config: &Value) {
    let path = path.child("opaque");
    let Some(opaque) = config.opt("opaque") else { return faults.required(&path, "") };
    driver_name(faults, &path.child("driver"), opaque.text("driver"));
    raw_object(faults, &path.child("parameters"), &opaque["parameters"], MAX_PARAMETERS);
}

/// A JSON object of whoever writes it, `max` bytes long at most.
pub(super) fn raw_object(faults: &mut Faults, path: &Path<'_>, raw: &Value, max: usize) {
    match raw {
        Value::Null => faults.required(path, ""),
        raw if raw.to_string().len() > max => faults.too_long(path, max),
        Value::Object(_) => {}
        _ => faults.invalid_str(path, "<value omitted>", "must be a valid JSON object"),
    }
}

fn toleration(faults: &mut Faults, path: &Path<'_>, toleration: &Value) {
    if !toleration.text("key").is_empty() {
        check::qualified_name(faults, &path.child("key"), toleration.text("key"));
    }
    let (value, at) = (toleration.text("value"), path.child("value"));
    match toleration.text("operator") {
        "Exists" if !value.is_empty() => faults.invalid_str(&at, value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => check::invalid_each(faults, &at, value, names::label_value(value)),
        "" => faults.required(&path.child("operator"), ""),
        other => faults.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !toleration.text("effect").is_empty() {
        check::one_of(faults, &path.child("effect"), toleration.text("effect"), EFFECTS);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::told;

    #[test]
    fn claims_name_what_they_want() {
        let faults = |devices: Value| told(|faults, path| claim(faults, path, &json!({"devices": devices})));
        let one = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
        assert_eq!(faults(json!({"requests": [{"name": "r", "exactly": one}]})), [""; 0]);
        let all = json!({"deviceClassName": "gpu", "allocationMode": "All", "count": 2});
        let expected =
            ["spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"];
        assert_eq!(faults(json!({"requests": [{"name": "r", "exactly": all}]})), expected);
        let sub = json!([{"name": "a", "deviceClassName": "g", "allocationMode": "ExactCount", "count": 1}]);
        let requests = json!([{"name": "r", "firstAvailable": sub}]);
        let constraint = |name: &str| json!([{"matchAttribute": "a.b/c", "requests": [name]}]);
        assert_eq!(faults(json!({"requests": requests, "constraints": constraint("r/a")})), [""; 0]);
        assert_eq!(faults(json!({"requests": requests, "constraints": constraint("r/b")})).len(), 1);
    }
}
