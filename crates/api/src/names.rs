//! What may be a name, label, finalizer, key: the checks every kind shares, in the words of the reference API server
//! (apimachinery's `util/validation` and `api/validation`).
//!
//! A check returns what is wrong, one text a fault, and nothing when the value is right.

use std::fmt::Write as _;

mod meta;

pub use meta::{
    NameRule, validate_annotations, validate_field_manager, validate_finalizers, validate_label_key, validate_labels,
    validate_managed_fields, validate_no_new_finalizers, validate_object_meta, validate_object_meta_update,
    validate_owner_references,
};

/// Characters of the suffix that the server appends to a `generateName`: no vowels, so that it spells nothing.
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of that suffix.
pub const SUFFIX_LENGTH: usize = 5;
/// Longest `generateName` that is kept; what is longer is cut before the suffix is appended.
pub const MAX_GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const KEY_RULE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// The name made of a `generateName` and random numbers, one a character.
#[must_use]
pub fn generated(base: &str, random: [u32; SUFFIX_LENGTH]) -> String {
    let mut end = base.len().min(MAX_GENERATED_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = String::from(&base[..end]);
    name.extend(random.iter().map(|n| char::from(SUFFIX_ALPHABET[*n as usize % SUFFIX_ALPHABET.len()])));
    name
}

/// RFC 1123 label: `my-name`.
#[must_use]
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 63 {
        faults.push(max_characters(63));
    }
    if !is_label(value) {
        if is_subdomain(value) {
            faults.push("must not contain dots".into());
        } else {
            let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            faults.push(regex_fault(rule, LABEL, &["my-name", "123-abc"]));
        }
    }
    faults
}

/// RFC 1123 subdomain: `example.com`.
#[must_use]
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 253 {
        faults.push(max_characters(253));
    }
    if !is_subdomain(value) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        faults.push(regex_fault(rule, SUBDOMAIN, &["example.com"]));
    }
    faults
}

/// RFC 1123 subdomain whose labels may have underscores: `_sip._tcp.example.com`.
#[must_use]
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 253 {
        faults.push(max_characters(253));
    }
    let label = |label: &str| {
        let rest = label.strip_prefix('_').unwrap_or(label);
        has_shape(rest, is_lower_alphanumeric, |c| is_lower_alphanumeric(c) || c == b'-' || c == b'_', is_lower_alphanumeric)
    };
    if !value.split('.').all(label) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        let pattern = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
        faults.push(regex_fault(rule, pattern, &["example.com"]));
    }
    faults
}

/// Subdomain after `*.`.
#[must_use]
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 253 {
        faults.push(max_characters(253));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        let rule = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        faults.push(regex_fault(rule, &format!("\\*\\.{SUBDOMAIN}"), &["*.example.com"]));
    }
    faults
}

/// RFC 1035 label: like an RFC 1123 one, but it starts with a letter.
#[must_use]
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 63 {
        faults.push(max_characters(63));
    }
    let inner = |c| is_lower_alphanumeric(c) || c == b'-';
    if !has_shape(value, |c| c.is_ascii_lowercase(), inner, is_lower_alphanumeric) {
        let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        faults.push(regex_fault(rule, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    faults
}

/// Name of most objects: a subdomain; a trailing dash is fine in a prefix.
#[must_use]
pub fn name_is_subdomain(name: &str, prefix: bool) -> Vec<String> {
    dns1123_subdomain(&masked(name, prefix))
}

/// Name of a namespace and the like: a label; a trailing dash is fine in a prefix.
#[must_use]
pub fn name_is_label(name: &str, prefix: bool) -> Vec<String> {
    dns1123_label(&masked(name, prefix))
}

/// Name of a Service: an RFC 1035 label; a trailing dash is fine in a prefix.
#[must_use]
pub fn name_is_dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    dns1035_label(&masked(name, prefix))
}

/// Name that may be a segment of a URL: RBAC roles and the like.
#[must_use]
pub fn name_is_path_segment(name: &str, prefix: bool) -> Vec<String> {
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    let forbidden = ['/', '%'].into_iter().filter(|c| name.contains(*c));
    forbidden.map(|c| format!("may not contain '{c}'")).collect()
}

/// Key of a label, name of a finalizer, condition type: `example.com/MyName` or `MyName`.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".into());
            } else {
                faults.extend(prefix_subdomain(prefix).into_iter().map(|fault| format!("prefix part {fault}")));
            }
            name
        }
        _ => {
            let fault = regex_fault(KEY_RULE, KEY, &examples);
            return vec![format!(
                "a valid label key {fault} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        faults.push(format!("name part {}", max_bytes(63)));
    }
    if !is_key(name) {
        faults.push(format!("name part {}", regex_fault(KEY_RULE, KEY, &examples)));
    }
    faults
}

/// Value of a label.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 63 {
        faults.push(max_bytes(63));
    }
    if !value.is_empty() && !is_key(value) {
        let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        faults.push(regex_fault(rule, &format!("({KEY})?"), &["MyValue", "my_value", "12345"]));
    }
    faults
}

/// C identifier: `my_name`.
#[must_use]
pub fn c_identifier(value: &str) -> Vec<String> {
    let start = |c: u8| c.is_ascii_alphabetic() || c == b'_';
    let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    if has_shape(value, start, inner, inner) {
        return Vec::new();
    }
    let rule = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![regex_fault(rule, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// Number of a port.
#[must_use]
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// A number between two others, both included.
#[must_use]
pub fn in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&value) { Vec::new() } else { vec![format!("must be between {min} and {max}, inclusive")] }
}

/// User id.
#[must_use]
pub fn user_id(id: i64) -> Vec<String> {
    in_range(id, 0, i64::from(i32::MAX))
}

/// Group id.
#[must_use]
pub fn group_id(id: i64) -> Vec<String> {
    in_range(id, 0, i64::from(i32::MAX))
}

/// Name of a port (RFC 6335): `http`.
#[must_use]
pub fn port_name(port: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if port.len() > 15 {
        faults.push(max_characters(15));
    }
    if port.is_empty() || !port.bytes().all(|c| is_lower_alphanumeric(c) || c == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !port.bytes().any(|c| c.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".into());
    }
    if port.contains("--") {
        faults.push("must not contain consecutive hyphens".into());
    }
    if port.starts_with('-') || port.ends_with('-') {
        faults.push("must not begin or end with a hyphen".into());
    }
    faults
}

/// Percentage: `25%`.
#[must_use]
pub fn percent(value: &str) -> Vec<String> {
    match value.strip_suffix('%') {
        Some(number) if !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()) => Vec::new(),
        _ => {
            let rule = "a valid percent string must be a numeric string followed by an ending '%'";
            vec![regex_fault(rule, "[0-9]+%", &["1%", "93%"])]
        }
    }
}

/// Name of an HTTP header.
#[must_use]
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_fault(rule, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// Name of an environment variable, in the strict form.
#[must_use]
pub fn env_var_name(value: &str) -> Vec<String> {
    let start = |c: u8| c.is_ascii_alphabetic() || matches!(c, b'-' | b'.' | b'_');
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    let mut faults = Vec::new();
    if !has_shape(value, start, inner, inner) {
        let rule = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit";
        faults.push(regex_fault(rule, "[-._a-zA-Z][-._a-zA-Z0-9]*", &["my.env-name", "MY_ENV.NAME", "MyEnvName1"]));
    }
    faults.extend(parent_directory(value));
    faults
}

/// Name of an environment variable as it is checked since v1.34 (`RelaxedEnvironmentVariableValidation`).
#[must_use]
pub fn relaxed_env_var_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.is_empty() {
        faults.push("environment variable name must be non-empty".into());
    }
    if value.chars().any(|c| !matches!(c, ' '..='~') || c == '=') {
        let rule = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        faults.push(rule.into());
    }
    faults
}

/// Key of a ConfigMap or Secret, also a file name.
#[must_use]
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 253 {
        faults.push(max_characters(253));
    }
    if value.is_empty() || !value.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_')) {
        let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        faults.push(regex_fault(rule, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    faults.extend(parent_directory(value));
    faults
}

/// Whole number in canonical form: no sign but `-`, no leading zero.
#[must_use]
pub fn decimal_integer(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["must be non-empty".into()];
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    let canonical =
        value == "0" || (!digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|c| c.is_ascii_digit()));
    if canonical { Vec::new() } else { vec!["must be a valid decimal integer in canonical form".into()] }
}

/// Domain of at least three segments: signer and driver names. The faults are about the whole value.
#[must_use]
pub fn fully_qualified_name(value: &str) -> Vec<String> {
    let faults = dns1123_subdomain(value);
    if !faults.is_empty() {
        return vec![faults.join(",")];
    }
    if value.split('.').count() < 3 {
        return vec!["should be a domain with at least three segments separated by dots".into()];
    }
    Vec::new()
}

/// `example.com/path`: a domain and a path of an HTTP URL. Each fault comes with the part it is about.
#[must_use]
pub fn domain_prefixed_path(value: &str) -> Vec<(&str, String)> {
    let Some((host, path)) = value.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty()) else {
        return vec![(value, "must be a domain-prefixed path (such as \"acme.io/foo\")".into())];
    };
    let mut faults: Vec<_> = dns1123_subdomain(host).into_iter().map(|fault| (host, fault)).collect();
    if !path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c)) {
        faults.push((path, regex_fault("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[])));
    }
    faults
}

/// `example.com/Key`: a qualified name that has a prefix.
#[must_use]
pub fn domain_prefixed_key(value: &str) -> Vec<String> {
    let faults = qualified_name(value);
    if faults.is_empty() && !value.contains('/') {
        return vec!["must be a domain-prefixed key (such as \"acme.io/foo\")".into()];
    }
    faults
}

/// `rule (e.g. 'a',  or 'b', regex used for validation is 'pattern')`, with upstream's punctuation.
#[must_use]
pub fn regex_fault(rule: &str, pattern: &str, examples: &[&str]) -> String {
    let mut text = String::from(rule);
    if examples.is_empty() {
        let _ = write!(text, " (regex used for validation is '{pattern}')");
        return text;
    }
    text.push_str(" (e.g. ");
    for (at, example) in examples.iter().enumerate() {
        if at > 0 {
            text.push_str(" or ");
        }
        let _ = write!(text, "'{example}', ");
    }
    let _ = write!(text, "regex used for validation is '{pattern}')");
    text
}

/// `must be no more than N characters`
#[must_use]
pub fn max_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `must be no more than N bytes`
#[must_use]
pub fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The prefix of a qualified name counts bytes where other subdomains count characters.
fn prefix_subdomain(prefix: &str) -> Vec<String> {
    let mut faults = dns1123_subdomain(prefix);
    if prefix.len() > 253 {
        faults[0] = max_bytes(253);
    }
    faults
}

/// A prefix is checked as if its trailing dash, and the character before it, were followed by something.
fn masked(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    if prefix && name.len() > 1 && name.ends_with('-') && name.is_char_boundary(name.len() - 2) {
        return format!("{}a", &name[..name.len() - 2]).into();
    }
    name.into()
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." | ".." => Some(format!("must not be '{value}'")),
        _ if value.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

fn is_label(value: &str) -> bool {
    has_shape(value, is_lower_alphanumeric, |c| is_lower_alphanumeric(c) || c == b'-', is_lower_alphanumeric)
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn is_key(value: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    has_shape(value, |c| c.is_ascii_alphanumeric(), inner, |c| c.is_ascii_alphanumeric())
}

fn is_lower_alphanumeric(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Whether a value is not empty and its first, inner and last characters are allowed. One character alone must be allowed
/// as the first.
fn has_shape(value: &str, first: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool, last: impl Fn(u8) -> bool) -> bool {
    match value.as_bytes() {
        [] => false,
        [one] => first(*one),
        [start, middle @ .., end] => first(*start) && middle.iter().all(|c| inner(*c)) && last(*end),
    }
}

#[cfg(test)]
mod tests;
