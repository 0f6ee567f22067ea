//! What a ResourceSlice must be: a pool and its devices, their attributes, counters and taints (KEP-4381, KEP-4815, KEP-5055).

use std::collections::HashSet;
use std::sync::LazyLock;

use corten_api::field::{Faults, Path};
use corten_api::names as api;
use regex::Regex;
use serde_json::{Value, json};

use super::capacity;
use super::validation::{EFFECTS, MAX_LIST, by_name, each, set};
use crate::doc::{Read, semantic_equal};
use crate::pod::scheduling;
use crate::pod::volumes::csi_driver_name as driver_name;
use crate::{check, internal, names};

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
    placed.extend(node_name(faults, path, spec, "must be either unset or set to a non-empty string"));
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

/// The node by whose name something is placed: what to call that, if there is one.
fn node_name(faults: &mut Faults, path: &Path<'_>, placed: &Value, if_empty: &str) -> Option<&'static str> {
    let name = placed.opt_text("nodeName")?;
    let at = path.child("nodeName");
    if name.is_empty() {
        faults.invalid_str(&at, name, if_empty);
        return None;
    }
    check::dns_subdomain(faults, &at, name);
    Some("`nodeName`")
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
    placed.extend(node_name(faults, path, device, "must not be empty"));
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
    check::required(faults, &at, name, check::dns_label);
    let (counters, at) = (set.map("counters"), path.child("counters"));
    match counters.len() {
        0 => faults.required(&at, ""),
        many if many > MAX_LIST => faults.too_many(&at, many, MAX_LIST),
        _ => counters.keys().for_each(|counter| check::dns_label(faults, &at, counter)),
    }
}

pub(super) fn binding_conditions(faults: &mut Faults, path: &Path<'_>, device: &Value) {
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
pub(super) fn fully_qualified(faults: &mut Faults, path: &Path<'_>, name: &str) {
    qualified(faults, path, name);
    if !name.contains('/') {
        faults.invalid_str(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::told;

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
