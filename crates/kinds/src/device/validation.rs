//! What `resource.k8s.io` (dynamic resource allocation, KEP-4381) takes: requests, constraints and configuration of claims and
//! classes, pools and devices of slices.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use corten_api::field::{Faults, Path};
use corten_api::names as api;
use regex::Regex;
use serde_json::{Value, json};

use super::{capacity, status};
use crate::doc::{Read, semantic_equal};
use crate::pod::scheduling;
use crate::pod::volumes::csi_driver_name as driver_name;
use crate::{check, internal, names, resources};

const MAX_LIST: usize = 32;
const MAX_SUBREQUESTS: usize = 8;
const MAX_EXPRESSION: usize = 10 << 10;
const MAX_PARAMETERS: usize = 10 << 10;
const MAX_POOL_NAME: usize = 253;
const MAX_IDENTIFIER: usize = 32;
const MAX_VALUE: usize = 64;
const MAX_VALUES: usize = 48;
const MAX_DEVICES: usize = 128;
/// When devices have taints, counters or lists.
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_COUNTER_SETS: usize = 8;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_CONDITIONS: usize = 4;
const MAX_RESERVED: usize = 256;
const REQUEST_FORM: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

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

/// `ResourceSliceSpec`
pub(super) fn slice(faults: &mut Faults, path: &Path<'_>, spec: &Value, old: Option<&Value>) {
    driver_name(faults, &path.child("driver"), spec.text("driver"));
    pool(faults, &path.child("pool"), &spec["pool"]);
    if let Some(old) = old {
        let name = path.child("pool");
        check::immutable_as(faults, &name.child("name"), "s", &spec["pool"]["name"], &old["pool"]["name"]);
        for (key, kind) in [("driver", "s"), ("nodeName", "*s")] {
            check::immutable_as(faults, &path.child(key), kind, &spec[key], &old[key]);
        }
    }
    let mut placed = Vec::new();
    if let Some(name) = spec.opt_text("nodeName") {
        let at = path.child("nodeName");
        if name.is_empty() {
            faults.invalid_str(&at, name, "must be either unset or set to a non-empty string");
        } else {
            placed.push("`nodeName`");
            check::dns_subdomain(faults, &at, name);
        }
    }
    if let Some(selector) = spec.opt("nodeSelector") {
        let at = path.child("nodeSelector");
        placed.push("`nodeSelector`");
        scheduling::node_selector(faults, &at, selector, false);
        if selector.list("nodeSelectorTerms").len() != 1 {
            let terms = internal::shown_list("NodeSelectorTerm", &selector["nodeSelectorTerms"]);
            check::invalid_shown(faults, &at.child("nodeSelectorTerms"), &terms, "must have exactly one node selector term");
        }
    }
    for (key, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match spec.opt_flag(key) {
            Some(true) => placed.push(shown),
            Some(false) => faults.invalid(&path.child(key), &json!(false), "must be either unset or set to true"),
            None => {}
        }
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match placed.len() {
        0 => faults.required(path, ONE),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", placed.join(", "));
            faults.invalid_str(path, &shown, &format!("{ONE}, but multiple fields are set"));
        }
    }
    if spec.has("sharedCounters") && spec.has("devices") {
        faults.invalid_str(path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let devices = spec.list("devices");
    let lists = ["ints", "bools", "strings", "versions"];
    let advanced = devices.iter().any(|device| {
        !device.list("taints").is_empty()
            || !device.list("consumesCounters").is_empty()
            || device.map("attributes").values().any(|attribute| lists.iter().any(|key| attribute.has(key)))
    });
    let max = if advanced { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    let per_device = spec.flag("perDeviceNodeSelection");
    let before = |name: &str| old.and_then(|old| old.list("devices").iter().find(|one| one.text("name") == name));
    set(faults, &path.child("devices"), devices, max, by_name, |faults, path, one| {
        device(faults, path, one, before(one.text("name")), per_device);
    });
    let counters = |faults: &mut Faults, path: &Path<'_>, set: &Value| counter_set(faults, path, set, "name");
    set(faults, &path.child("sharedCounters"), spec.list("sharedCounters"), MAX_COUNTER_SETS, by_name, counters);
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

fn by_name(item: &Value) -> &str {
    item.text("name")
}

/// Checks every item, unless there are too many.
fn each(
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
fn set<'v>(
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
    if class.is_empty() {
        faults.required(&path.child("deviceClassName"), "");
    } else {
        check::dns_subdomain(faults, &path.child("deviceClassName"), class);
    }
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

fn pool(faults: &mut Faults, path: &Path<'_>, pool: &Value) {
    pool_name(faults, &path.child("name"), pool.text("name"));
    let (count, generation) = (pool.int("resourceSliceCount"), pool.int("generation"));
    if count <= 0 {
        faults.invalid_int(&path.child("resourceSliceCount"), count, "must be greater than zero");
    }
    if generation < 0 {
        faults.invalid_int(&path.child("generation"), generation, "must be greater than or equal to zero");
    }
}

pub(super) fn pool_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    if name.is_empty() {
        return faults.required(path, "");
    }
    if name.len() > MAX_POOL_NAME {
        faults.too_long(path, MAX_POOL_NAME);
    }
    name.split('/').for_each(|part| check::dns_subdomain(faults, path, part));
}

fn device(faults: &mut Faults, path: &Path<'_>, device: &Value, old: Option<&Value>, per_device: bool) {
    check::dns_label(faults, &path.child("name"), device.text("name"));
    let (attributes, capacities) = (device.map("attributes"), device.map("capacity"));
    let total = attributes.len() + capacities.len();
    if total > MAX_LIST {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_LIST}");
        faults.invalid(path, &json!(total), &detail);
    }
    let lists = ["ints", "bools", "strings", "versions"];
    let size = |attribute: &Value| lists.iter().map(|key| attribute.list(key).len()).sum::<usize>().max(1);
    let values: usize = attributes.values().map(size).sum();
    if values > MAX_VALUES {
        let detail = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        faults.invalid(path, &json!(values), &detail);
    }
    let at = path.child("attributes");
    for (key, value) in attributes {
        qualified(faults, &at, key);
        attribute(faults, &at.key(&shortened(key)), value);
    }
    let at = path.child("capacity");
    for (key, value) in capacities {
        qualified(faults, &at, key);
        capacity::entry(faults, &at.key(&shortened(key)), value, device.flag("allowMultipleAllocations"));
    }
    // Taints that are as they were may be as bad as they were.
    if old.is_none_or(|old| !semantic_equal(&old["taints"], &device["taints"])) {
        each(faults, &path.child("taints"), device.list("taints"), MAX_TAINTS, taint);
    }
    let counters = |faults: &mut Faults, path: &Path<'_>, set: &Value| counter_set(faults, path, set, "counterSet");
    let by_set = |consumption| Read::text(consumption, "counterSet");
    let consumed = device.list("consumesCounters");
    set(faults, &path.child("consumesCounters"), consumed, MAX_CONSUMPTIONS, by_set, counters);
    placement(faults, path, device, per_device);
    binding_conditions(faults, path, device);
}

/// Where a device is, when its slice leaves that to it.
fn placement(faults: &mut Faults, path: &Path<'_>, device: &Value, per_device: bool) {
    if !per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|key| device.has(key)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in \
                          the ResourceSlice spec";
            faults.invalid(path, &Value::Null, detail);
        }
        return;
    }
    let mut placed = Vec::new();
    if let Some(name) = device.opt_text("nodeName") {
        let at = path.child("nodeName");
        if name.is_empty() {
            faults.invalid_str(&at, name, "must not be empty");
        } else {
            placed.push("`nodeName`");
            check::dns_subdomain(faults, &at, name);
        }
    }
    if let Some(selector) = device.opt("nodeSelector") {
        placed.push("`nodeSelector`");
        scheduling::node_selector(faults, &path.child("nodeSelector"), selector, false);
    }
    match device.opt_flag("allNodes") {
        Some(true) => placed.push("`allNodes`"),
        Some(false) => faults.invalid(&path.child("allNodes"), &json!(false), "must be either unset or set to true"),
        None => {}
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set \
                       to true in the ResourceSlice spec";
    match placed.len() {
        0 => faults.required(path, ONE),
        1 => {}
        _ => faults.invalid_str(path, &format!("{{{}}}", placed.join(", ")), ONE),
    }
}

/// Semantic Versioning 2.0.0.
static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"(0|[1-9]\d*)";
    let pre = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)";
    let build = "[0-9a-zA-Z-]+";
    let whole = format!(r"^{number}\.{number}\.{number}(-{pre}(\.{pre})*)?(\+{build}(\.{build})*)?$");
    Regex::new(&whole).expect("the pattern is fixed and valid")
});

fn attribute(faults: &mut Faults, path: &Path<'_>, attribute: &Value) {
    let short = |faults: &mut Faults, path: &Path<'_>, text: &str| {
        if text.len() > MAX_VALUE {
            faults.too_long(path, MAX_VALUE);
        }
    };
    let version = |faults: &mut Faults, path: &Path<'_>, text: &str| {
        if !VERSION.is_match(text) {
            faults.invalid_str(path, text, "must be a string compatible with semver.org spec 2.0.0");
        }
        short(faults, path, text);
    };
    if let Some(text) = attribute.opt_text("string") {
        short(faults, &path.child("string"), text);
    }
    if let Some(text) = attribute.opt_text("version") {
        version(faults, &path.child("version"), text);
    }
    for key in ["bools", "ints", "strings", "versions"] {
        let at = path.child(key);
        if attribute.has(key) && attribute.list(key).is_empty() {
            faults.invalid(&at, &attribute[key], "must not be empty if specified");
        }
        for (i, text) in attribute.texts(key).enumerate() {
            match key {
                "strings" => short(faults, &at.index(i), text),
                "versions" => version(faults, &at.index(i), text),
                _ => {}
            }
        }
    }
    const ONE: &str = "exactly one value must be specified";
    let all = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
    match all.iter().filter(|key| attribute.has(key)).count() {
        0 => faults.invalid_str(path, "", ONE),
        1 => {}
        _ => check::invalid_shown(faults, path, &internal::shown("DeviceAttribute", attribute), ONE),
    }
}

fn taint(faults: &mut Faults, path: &Path<'_>, taint: &Value) {
    check::qualified_name(faults, &path.child("key"), taint.text("key"));
    let value = taint.text("value");
    check::invalid_each(faults, &path.child("value"), value, names::label_value(value));
    check::required_one_of(faults, &path.child("effect"), taint.text("effect"), EFFECTS);
}

/// A set of counters, or what a device consumes of one; `key` names the set.
fn counter_set(faults: &mut Faults, path: &Path<'_>, set: &Value, key: &str) {
    let (name, at) = (set.text(key), path.child(key));
    if name.is_empty() {
        faults.required(&at, "");
    } else {
        check::dns_label(faults, &at, name);
    }
    let (counters, at) = (set.map("counters"), path.child("counters"));
    match counters.len() {
        0 => faults.required(&at, ""),
        many if many > MAX_LIST => faults.too_many(&at, many, MAX_LIST),
        _ => counters.keys().for_each(|counter| check::dns_label(faults, &at, counter)),
    }
}

fn binding_conditions(faults: &mut Faults, path: &Path<'_>, device: &Value) {
    let keys = ["bindingConditions", "bindingFailureConditions"];
    for key in keys {
        each(faults, &path.child(key), device.list(key), MAX_CONDITIONS, |faults, path, name| {
            check::qualified_name(faults, path, name.as_str().unwrap_or_default());
        });
    }
    let wanted: HashSet<&str> = device.texts(keys[0]).collect();
    for key in keys {
        let mut seen = HashSet::new();
        let at = path.child(key);
        for (i, name) in device.texts(key).enumerate() {
            if !seen.insert(name) {
                check::duplicate(faults, &at.index(i), name);
            }
            if key == keys[1] && wanted.contains(name) {
                faults.invalid_str(&at.index(i), name, "bindingFailureConditions must not overlap with bindingConditions");
            }
        }
    }
    for (key, other) in [(keys[0], keys[1]), (keys[1], keys[0])] {
        if device.list(key).is_empty() && !device.list(other).is_empty() {
            faults.invalid(&path.child(key), &device[key], &format!("{key} are required to use {other}"));
        }
    }
}

/// A key as it is shown in paths: with its middle left out when it is longer than any that fits.
fn shortened(key: &str) -> String {
    const LONGEST: usize = 63 + 1 + MAX_IDENTIFIER;
    const REST: usize = LONGEST - 3;
    if key.len() <= LONGEST {
        return key.to_owned();
    }
    let (head, tail) = (&key.as_bytes()[..REST.div_ceil(2)], &key.as_bytes()[key.len() - REST / 2..]);
    format!("{}...{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
}

/// A C identifier, after a domain or alone.
fn qualified(faults: &mut Faults, path: &Path<'_>, name: &str) {
    let identifier = |faults: &mut Faults, id: &str| {
        if id.len() > MAX_IDENTIFIER {
            faults.too_long(path, MAX_IDENTIFIER);
        }
        check::invalid_each(faults, path, id, api::c_identifier(id));
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => identifier(faults, id),
        [domain, id] => {
            match *domain {
                "" => faults.invalid_str(path, "", "the domain must not be empty"),
                domain => driver_name(faults, path, domain),
            }
            match *id {
                "" => faults.invalid_str(path, "", "the name must not be empty"),
                id => identifier(faults, id),
            }
        }
        // Upstream has no rule for more slashes.
        _ => {}
    }
}

/// A C identifier after a domain.
fn fully_qualified(faults: &mut Faults, path: &Path<'_>, name: &str) {
    qualified(faults, path, name);
    if !name.contains('/') {
        faults.invalid_str(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl FnOnce(&mut Faults, &Path<'_>)) -> Vec<String> {
        let mut faults = Faults::default();
        check(&mut faults, &Path::new("spec"));
        faults.0.into_iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
    }

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

    #[test]
    fn devices_of_slices_are_placed_once() {
        let faults = |extra: Value| {
            let mut spec = json!({"driver": "a.b", "pool": {"name": "p", "resourceSliceCount": 1}});
            spec.as_object_mut().into_iter().for_each(|spec| spec.extend(extra.as_object().cloned().unwrap_or_default()));
            told(|faults, path| slice(faults, path, &spec, None))
        };
        assert_eq!(faults(json!({"allNodes": true})), [""; 0]);
        assert_eq!(faults(json!({"perDeviceNodeSelection": true, "devices": [{"name": "d", "nodeName": "n"}]})), [""; 0]);
        assert_eq!(faults(json!({"allNodes": true, "devices": [{"name": "d", "nodeName": "n"}]})).len(), 1);
        assert_eq!(faults(json!({"allNodes": true, "nodeName": "n"})).len(), 1);
    }

    #[test]
    fn versions_are_semantic() {
        for (text, fits) in [("1.2.3", true), ("1.2.3-a.1+b", true), ("v1", false), ("1.2", false), ("01.2.3", false)] {
            assert_eq!(VERSION.is_match(text), fits, "{text}");
        }
    }
}
