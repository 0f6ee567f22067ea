//! Checks that many kinds share, each adding its faults at a path in the reference server's words.

use std::collections::HashSet;

use corten_api::field::{FaultKind, Faults, Path};
use serde_json::{Map, Value, json};

use crate::doc::Read;
use crate::names;
use crate::quantity::Quantity;

/// `must be greater than or equal to 0`
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
/// `must be greater than zero`
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";
/// `field is immutable`
pub(crate) const IMMUTABLE: &str = "field is immutable";
/// `must be an integer`
pub(crate) const NOT_INTEGER: &str = "must be an integer";

/// Adds one `Invalid` fault per message.
pub(crate) fn invalid_each(faults: &mut Faults, path: &Path<'_>, value: &str, messages: Vec<String>) {
    for message in messages {
        faults.invalid_str(path, value, &message);
    }
}

/// A DNS-1123 label.
pub(crate) fn dns_label(faults: &mut Faults, path: &Path<'_>, value: &str) {
    invalid_each(faults, path, value, names::dns_label(value));
}

/// A DNS-1123 subdomain.
pub(crate) fn dns_subdomain(faults: &mut Faults, path: &Path<'_>, value: &str) {
    invalid_each(faults, path, value, names::dns_subdomain(value));
}

/// A name with an optional domain prefix, such as a label key.
pub(crate) fn qualified_name(faults: &mut Faults, path: &Path<'_>, value: &str) {
    invalid_each(faults, path, value, names::qualified_name(value));
}

/// A label value, all that is wrong with it in one fault.
pub(crate) fn label_value_joined(faults: &mut Faults, path: &Path<'_>, value: &str) {
    let messages = names::label_value(value);
    if !messages.is_empty() {
        faults.invalid_str(path, value, &messages.join(";"));
    }
}

/// Label keys and values of a map; faults are at the map.
pub(crate) fn labels(faults: &mut Faults, path: &Path<'_>, map: &Map<String, Value>) {
    corten_api::names::validate_labels(map, path, faults);
}

/// Annotation keys, and the size of all annotations together (256 KiB).
pub(crate) fn annotations(faults: &mut Faults, path: &Path<'_>, map: &Map<String, Value>) {
    corten_api::names::validate_annotations(map, path, faults);
}

/// A label selector; an absent one is fine. `lax` lets invalid label values pass, for objects that already have them.
pub(crate) fn label_selector(faults: &mut Faults, path: &Path<'_>, selector: &Value, lax: bool) {
    if selector.is_null() {
        return;
    }
    labels(faults, &path.child("matchLabels"), selector.map("matchLabels"));
    let expressions = path.child("matchExpressions");
    for (i, requirement) in selector.list("matchExpressions").iter().enumerate() {
        selector_requirement(faults, &expressions.index(i), requirement, lax);
    }
}

fn selector_requirement(faults: &mut Faults, path: &Path<'_>, requirement: &Value, lax: bool) {
    let values = requirement.list("values");
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                faults.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                faults.forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
        }
        other => faults.invalid_str(&path.child("operator"), other, "not a valid selector operator"),
    }
    qualified_name(faults, &path.child("key"), requirement.text("key"));
    if !lax {
        let at = path.child("values");
        for (i, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            invalid_each(faults, &at.index(i), value, names::label_value(value));
        }
    }
}

/// Whether a label selector can be compiled: the operators and values that `LabelSelectorAsSelector` takes.
pub(crate) fn selector_compiles(selector: &Value) -> bool {
    let keys_fit = selector.map("matchLabels").iter().all(|(key, value)| {
        names::qualified_name(key).is_empty() && names::label_value(value.as_str().unwrap_or_default()).is_empty()
    });
    keys_fit
        && selector.list("matchExpressions").iter().all(|requirement| {
            let values = requirement.list("values");
            let count_fits = match requirement.text("operator") {
                "In" | "NotIn" => !values.is_empty(),
                "Exists" | "DoesNotExist" => values.is_empty(),
                _ => false,
            };
            count_fits
                && names::qualified_name(requirement.text("key")).is_empty()
                && values.iter().all(|value| names::label_value(value.as_str().unwrap_or_default()).is_empty())
        })
}

/// Whether a selector has a value that is none of a label.
pub(crate) fn has_invalid_label_value(selector: &Value) -> bool {
    selector
        .list("matchExpressions")
        .iter()
        .any(|requirement| requirement.texts("values").any(|value| !names::label_value(value).is_empty()))
}

/// The selector of `spec` must be what it was.
pub(crate) fn immutable_selector(faults: &mut Faults, spec: &Path<'_>, object: &Value, old: &Value) {
    let (now, before) = (&object["spec"]["selector"], &old["spec"]["selector"]);
    if !crate::doc::semantic_equal(now, before) {
        invalid_selector(faults, &spec.child("selector"), now, IMMUTABLE);
    }
}

/// A fault of a whole label selector, which is shown in the order of its declaration.
pub(crate) fn invalid_selector(faults: &mut Faults, path: &Path<'_>, selector: &Value, detail: &str) {
    faults.invalid_shown(path, &crate::internal::shown("*LabelSelector", selector), detail);
}

/// Whether the selector names nothing at all.
pub(crate) fn selector_is_empty(selector: &Value) -> bool {
    selector.map("matchLabels").is_empty() && selector.list("matchExpressions").is_empty()
}

/// Whether `labels` satisfy a label selector that [`selector_compiles`]; an absent selector matches nothing.
pub(crate) fn selector_matches(selector: &Value, labels: &Map<String, Value>) -> bool {
    if selector.is_null() {
        return false;
    }
    selector.map("matchLabels").iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.list("matchExpressions").iter().all(|requirement| {
            let have = labels.get(requirement.text("key"));
            let listed = have.is_some_and(|value| requirement.list("values").contains(value));
            match requirement.text("operator") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        })
}

/// A TCP or UDP port number, 1 to 65535.
pub(crate) fn port_number(faults: &mut Faults, path: &Path<'_>, port: i64) {
    if !(1..=65535).contains(&port) {
        faults.invalid_int(path, port, "must be between 1 and 65535, inclusive");
    }
}

/// A port number or the name of one (`IntOrString`).
pub(crate) fn port_number_or_name(faults: &mut Faults, path: &Path<'_>, port: &Value) {
    match port.as_str() {
        Some(name) => invalid_each(faults, path, name, names::port_name(name)),
        None => port_number(faults, path, port.as_i64().unwrap_or_default()),
    }
}

/// `value` must not be below zero.
pub(crate) fn not_negative(faults: &mut Faults, path: &Path<'_>, value: i64) {
    if value < 0 {
        faults.invalid_int(path, value, NEGATIVE);
    }
}

/// The integer at `key`, when it is set, must not be below zero.
pub(crate) fn field_not_negative(faults: &mut Faults, path: &Path<'_>, object: &Value, key: &str) {
    not_negative(faults, &path.child(key), object.int(key));
}

/// A text that has to be there, and then has to pass another check.
pub(crate) fn required(faults: &mut Faults, path: &Path<'_>, value: &str, check: impl FnOnce(&mut Faults, &Path<'_>, &str)) {
    if value.is_empty() {
        faults.required(path, "");
    } else {
        check(faults, path, value);
    }
}

/// `value` must be one of `supported`; an empty one is `Required`.
pub(crate) fn required_one_of(faults: &mut Faults, path: &Path<'_>, value: &str, supported: &[&str]) {
    if value.is_empty() {
        faults.required(path, "");
    } else {
        one_of(faults, path, value, supported);
    }
}

/// `value` must be one of `supported`.
pub(crate) fn one_of(faults: &mut Faults, path: &Path<'_>, value: &str, supported: &[&str]) {
    if !supported.contains(&value) {
        faults.not_supported(path, value, supported);
    }
}

/// The string at `key`, when it is set, must be one of `supported`.
pub(crate) fn optional_one_of(faults: &mut Faults, path: &Path<'_>, object: &Value, key: &str, supported: &[&str]) {
    if let Some(value) = object.opt_text(key) {
        one_of(faults, &path.child(key), value, supported);
    }
}

/// The value must be what it was.
pub(crate) fn immutable(faults: &mut Faults, path: &Path<'_>, new: &Value, old: &Value) {
    if !crate::doc::semantic_equal(new, old) {
        faults.invalid(path, new, IMMUTABLE);
    }
}

/// As [`immutable`], for values that are shown in the shape of the reference's internal type `kind`.
pub(crate) fn immutable_as(faults: &mut Faults, path: &Path<'_>, kind: &str, new: &Value, old: &Value) {
    if !crate::doc::semantic_equal(new, old) {
        faults.invalid_shown(path, &crate::internal::shown(kind, new), IMMUTABLE);
    }
}

/// Adds a fault whose shown value is already text (a composite value in the shape of the reference's internal types).
pub(crate) fn invalid_shown(faults: &mut Faults, path: &Path<'_>, shown: &str, detail: &str) {
    faults.invalid_shown(path, shown, detail);
}

/// `Unsupported value: shown: supported values: …` for a composite value.
pub(crate) fn not_supported_shown(faults: &mut Faults, path: &Path<'_>, shown: &str, supported: &[&str]) {
    let list = supported.iter().map(|s| corten_api::field::quoted(s)).collect::<Vec<_>>().join(", ");
    let message = format!("Unsupported value: {shown}: supported values: {list}");
    faults.0.push(corten_api::field::Fault { kind: FaultKind::NotSupported, field: path.to_string(), message });
}

/// `Duplicate value: shown` with an optional detail.
pub(crate) fn duplicate_shown(faults: &mut Faults, path: &Path<'_>, shown: &str, detail: &str) {
    let message =
        if detail.is_empty() { format!("Duplicate value: {shown}") } else { format!("Duplicate value: {shown}: {detail}") };
    faults.0.push(corten_api::field::Fault { kind: FaultKind::Duplicate, field: path.to_string(), message });
}

/// `Duplicate value: "text"`
pub(crate) fn duplicate(faults: &mut Faults, path: &Path<'_>, value: &str) {
    faults.duplicate(path, &json!(value));
}

/// A string must be the text of an IP address that every parser reads alike: no leading zeros, no IPv4-mapped IPv6 (KEP-4858).
pub(crate) fn ip(faults: &mut Faults, path: &Path<'_>, value: &str) -> bool {
    let wrong = names::ip_faults(value);
    for detail in &wrong {
        faults.invalid_str(path, value, detail);
    }
    wrong.is_empty()
}

/// As [`ip`], and in the one form that an address is printed in.
pub(crate) fn canonical_ip(faults: &mut Faults, path: &Path<'_>, value: &str) -> bool {
    if !ip(faults, path, value) {
        return false;
    }
    let printed = names::parse_ip(value).map(|ip| ip.to_string()).unwrap_or_default();
    if printed != value {
        faults.invalid_str(path, value, &format!("must be in canonical form ({})", corten_api::field::quoted(&printed)));
    }
    printed == value
}

/// A path with a domain before its first slash, such as `acme.io/foo`.
pub(crate) fn domain_prefixed_path(faults: &mut Faults, path: &Path<'_>, value: &str) {
    if value.is_empty() {
        return faults.required(path, "");
    }
    invalid_each(faults, path, value, names::domain_prefixed_path(value));
}

/// A string must be the text of a CIDR that every parser reads alike, and that means a network: no bits set beyond its prefix.
pub(crate) fn cidr(faults: &mut Faults, path: &Path<'_>, value: &str) -> bool {
    let wrong = names::cidr_fault(value);
    if let Some(detail) = wrong {
        faults.invalid_str(path, value, detail);
    }
    wrong.is_none()
}

/// An address that can be an endpoint: neither unspecified, loopback nor link-local.
pub(crate) fn non_special_ip(faults: &mut Faults, path: &Path<'_>, value: &str) {
    let Some(ip) = names::parse_ip(value) else {
        faults.invalid_str(path, value, "must be a valid IP address");
        return;
    };
    let (link_local, link_local_multicast) = match ip {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => ((v6.segments()[0] & 0xffc0) == 0xfe80, (v6.segments()[0] & 0xff0f) == 0xff02),
    };
    if ip.is_unspecified() {
        faults.invalid_str(path, value, &format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        faults.invalid_str(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        faults.invalid_str(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        faults.invalid_str(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// A file mode, 0 to 0777.
pub(crate) fn file_mode(faults: &mut Faults, path: &Path<'_>, mode: Option<i64>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        faults.invalid_int(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// No `..` element in a path.
pub(crate) fn no_backsteps(faults: &mut Faults, path: &Path<'_>, value: &str) {
    if value.split('/').any(|part| part == "..") {
        faults.invalid_str(path, value, "must not contain '..'");
    }
}

/// A relative path without `..` elements.
pub(crate) fn descending_path(faults: &mut Faults, path: &Path<'_>, value: &str) {
    if value.starts_with('/') {
        faults.invalid_str(path, value, "must be a relative path");
    }
    no_backsteps(faults, path, value);
}

/// A relative path without `..` elements that does not begin with `..` either (such names are the volume writer's own).
pub(crate) fn non_reserved_path(faults: &mut Faults, path: &Path<'_>, value: &str) {
    descending_path(faults, path, value);
    if value.starts_with("..") && !value.starts_with("../") {
        faults.invalid_str(path, value, "must not start with '..'");
    }
}

/// A quantity that may not be negative and, for counted resources, must be whole (`ValidateResourceQuantityValue`).
pub(crate) fn resource_quantity(faults: &mut Faults, path: &Path<'_>, resource: &str, value: &Value) {
    let Some(quantity) = Quantity::of(value) else { return };
    if quantity.is_negative() {
        faults.invalid_str(path, &quantity.to_string(), NEGATIVE);
    }
    if crate::resources::is_integer(resource) && !quantity.is_whole() {
        faults.invalid_str(path, &quantity.to_string(), NOT_INTEGER);
    }
}

/// A quantity above zero.
pub(crate) fn positive_quantity(faults: &mut Faults, path: &Path<'_>, value: &Value) -> bool {
    let Some(quantity) = Quantity::of(value) else { return true };
    let positive = quantity.is_positive();
    if !positive {
        faults.invalid_str(path, &quantity.to_string(), NOT_POSITIVE);
    }
    positive
}

/// A percentage or a number that is not below zero (`ValidatePositiveIntOrPercent`).
pub(crate) fn int_or_percent(faults: &mut Faults, path: &Path<'_>, value: &Value) {
    match value.as_str() {
        Some(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                faults.invalid_str(
                    path,
                    text,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used \
                     for validation is '[0-9]+%')",
                );
            }
        }
        None => not_negative(faults, path, value.as_i64().unwrap_or_default()),
    }
}

/// A percentage must not be above 100.
pub(crate) fn at_most_all(faults: &mut Faults, path: &Path<'_>, value: &Value) {
    if percent(value).is_some_and(|percent| percent > 100) {
        faults.invalid(path, value, "must not be greater than 100%");
    }
}

/// The number in a percentage, `None` for anything else.
pub(crate) fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// The number of an `IntOrString`, its percentage as a number when it is one, or a string's number.
pub(crate) fn int_or_percent_value(value: &Value) -> i64 {
    percent(value).or_else(|| value.as_i64()).or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

/// The `conditions` of newer kinds: one of each type, with a time and a reason (`metav1.Condition`).
pub(crate) fn conditions(faults: &mut Faults, path: &Path<'_>, list: &[Value]) {
    let mut seen = HashSet::new();
    for (i, condition) in list.iter().enumerate() {
        let at = path.index(i);
        let kind = condition.text("type");
        if !seen.insert(kind) {
            duplicate(faults, &at.child("type"), kind);
        }
        qualified_name(faults, &at.child("type"), kind);
        one_of(faults, &at.child("status"), condition.text("status"), &["False", "True", "Unknown"]);
        let generation = condition.int("observedGeneration");
        if generation < 0 {
            faults.invalid_int(&at.child("observedGeneration"), generation, "must be greater than or equal to zero");
        }
        if !condition.has("lastTransitionTime") {
            faults.required(&at.child("lastTransitionTime"), "");
        }
        let reason = condition.text("reason");
        if reason.is_empty() {
            faults.required(&at.child("reason"), "");
        } else {
            invalid_each(faults, &at.child("reason"), reason, names::condition_reason(reason));
            if reason.len() > 1024 {
                faults.too_long(&at.child("reason"), 1024);
            }
        }
        if condition.text("message").len() > 32 * 1024 {
            faults.too_long(&at.child("message"), 32 * 1024);
        }
    }
}

/// Reports each string that occurs again, at its index.
pub(crate) fn unique_texts<'a>(faults: &mut Faults, path: &Path<'_>, values: impl Iterator<Item = &'a str>) {
    let mut seen = HashSet::new();
    for (i, value) in values.enumerate() {
        if !seen.insert(value) {
            duplicate(faults, &path.index(i), value);
        }
    }
}

/// Whether two addresses or CIDRs are one of each family.
pub(crate) fn is_dual_stack(families: &[bool]) -> bool {
    families.len() > 1 && families.contains(&true) && families.contains(&false)
}
