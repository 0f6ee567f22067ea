//! What a schema of custom resources may say: keywords, list and map types, rules. Whether it is structural is in
//! [`super::structural`]; whether the expressions of its rules compile is in [`super::rules`].

use std::cell::RefCell;
use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Map, Value, json};

use super::structural;
use crate::doc::Read;
use crate::{check, internal};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// Go's names of the keywords that a root with a status subresource may have, and the keywords themselves.
const AT_ROOT: &[(&str, &str)] = &[
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

const FORMATS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Checks a `schema` of a version, with the rules for roots.
pub(super) fn validate(faults: &mut Faults, path: &Path<'_>, holder: &Value, with_status: bool) {
    let Some(schema) = holder.opt("openAPIV3Schema") else { return };
    let at = path.child("openAPIV3Schema");
    if with_status {
        status_root(faults, path, &at, schema);
    }
    if schema.flag("nullable") {
        faults.forbidden(&path.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root");
    }
    let mut structure = structural::faults(&at, schema);
    if structure.is_empty() {
        structural::defaults(&mut structure, &at, schema);
    }
    let sound = structure.is_empty();
    faults.0.extend(structure.0);
    let level = Level { root: true, in_metadata: false, no_defaults: None, compiles: sound, uncorrelatable: None };
    let mut found = Found::default();
    keywords(&mut found, &at, schema, &level);
    faults.0.extend(found.schema.0);
    faults.0.extend(found.rules.0);
}

/// Faults of expressions come after all others.
#[derive(Default)]
struct Found {
    schema: Faults,
    rules: Faults,
}

/// The status is checked against `properties[status]` alone, so the root may not say anything that concerns both.
fn status_root(faults: &mut Faults, path: &Path<'_>, at: &Path<'_>, schema: &Value) {
    let kind = schema.text("type");
    // A pointer in Go is set when it points to anything; a plain boolean or string when it is not empty.
    let set = |key: &str, value: &Value| match value {
        Value::Null => false,
        Value::Bool(flag) => *flag || matches!(key, "additionalProperties" | "additionalItems" | "default"),
        Value::String(text) => !text.is_empty() || matches!(key, "$ref" | "x-kubernetes-list-type" | "x-kubernetes-map-type"),
        _ => true,
    };
    let members = schema.as_object().into_iter().flatten();
    let foreign = members.filter(|(key, value)| set(key, value)).any(|(key, _)| !AT_ROOT.iter().any(|(_, known)| known == key));
    if !kind.is_empty() && kind != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        faults.invalid_str(&path.child("openAPIV3Schema.type"), kind, detail);
    } else if foreign {
        let known: Vec<&str> = AT_ROOT.iter().map(|(name, _)| *name).collect();
        let detail = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            known.join(" ")
        );
        check::invalid_shown(faults, at, &internal::shown("JSONSchemaProps", schema), &detail);
    }
}

struct Level<'a> {
    root: bool,
    in_metadata: bool,
    no_defaults: Option<&'a str>,
    /// Whether expressions are compiled.
    compiles: bool,
    /// Where what is below stopped being found again in an older object.
    uncorrelatable: Option<&'a str>,
}

impl<'a> Level<'a> {
    fn below(&self) -> Level<'a> {
        Level { root: false, ..*self }
    }

    /// Below of what is compared as a whole.
    fn within(&self, place: &'a str, is_whole: bool) -> Level<'a> {
        let uncorrelatable = if is_whole { self.uncorrelatable.or(Some(place)) } else { self.uncorrelatable };
        Level { root: false, uncorrelatable, ..*self }
    }
}

fn keywords(found: &mut Found, path: &Path<'_>, schema: &Value, level: &Level<'_>) {
    if !schema.is_object() {
        return;
    }
    let before = found.schema.0.len();
    let place = path.to_string();
    let faults = &mut found.schema;
    standard(faults, path, schema, level);
    if schema.flag("uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        faults.forbidden(&path.child("uniqueItems"), detail);
    }
    if let Some(additional) = schema.opt("additionalProperties") {
        if !schema.map("properties").is_empty() && *additional != json!(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            faults.forbidden(&path.child("additionalProperties"), detail);
        }
        let mut below = level.below();
        if level.in_metadata {
            below.no_defaults = Some("inside additionalProperties applying to object metadata");
        }
        keywords(found, &path.child("additionalProperties"), additional, &below);
    }
    let properties = path.child("properties");
    for (name, property) in schema.map("properties") {
        let mut below = level.within(&place, schema.opt_text("x-kubernetes-map-type") == Some("atomic"));
        let reason = format!("in top-level {name}");
        if (level.root || schema.flag("x-kubernetes-embedded-resource"))
            && matches!(name.as_str(), "metadata" | "kind" | "apiVersion")
        {
            below.in_metadata = true;
            if level.root {
                below.no_defaults = Some(&reason);
            }
        }
        keywords(found, &properties.key(name), property, &below);
    }
    keywords(found, &path.child("not"), &schema["not"], &level.below());
    for key in ["allOf", "oneOf", "anyOf"] {
        let at = path.child(key);
        for (i, item) in schema.list(key).iter().enumerate() {
            keywords(found, &at.index(i), item, &level.below());
        }
    }
    let at = path.child("definitions");
    for (name, item) in schema.map("definitions") {
        keywords(found, &at.key(name), item, &level.below());
    }
    let at = path.child("items");
    match &schema["items"] {
        Value::Array(all) => {
            for (i, item) in all.iter().enumerate() {
                keywords(found, &at.index(i), item, &level.below());
            }
        }
        item => {
            let is_whole = schema.opt_text("x-kubernetes-list-type") != Some("map");
            keywords(found, &at, item, &level.within(&place, is_whole));
        }
    }
    let at = path.child("dependencies");
    for (name, item) in schema.map("dependencies") {
        keywords(found, &at.key(name), item, &level.below());
    }
    extensions(&mut found.schema, path, schema);
    rules(&mut found.schema, &path.child("x-kubernetes-validations"), schema);
    if level.compiles && found.schema.0.len() == before {
        super::rules::compile(&mut found.rules, path, schema, level.root, level.uncorrelatable);
    }
}

/// Keywords that are of JSON Schema but not of Kubernetes.
fn standard(faults: &mut Faults, path: &Path<'_>, schema: &Value, level: &Level<'_>) {
    let kind = schema.text("type");
    if !kind.is_empty() {
        check::one_of(faults, &path.child("type"), kind, TYPES);
    }
    if schema.has("default")
        && let Some(reason) = level.no_defaults
    {
        faults.forbidden(&path.child("default"), &format!("must not be set {reason}"));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let set = match &schema[key] {
            Value::Null => false,
            Value::String(text) => key == "$ref" || !text.is_empty(),
            Value::Object(members) => matches!(key, "additionalItems" | "dependencies") || !members.is_empty(),
            _ => true,
        };
        if set {
            faults.forbidden(&path.child(key), &format!("{key} is not supported"));
        }
    }
    if kind == "null" {
        faults.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if schema["items"].as_array().is_some_and(|items| !items.is_empty()) {
        faults.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if level.in_metadata && schema.flag("x-kubernetes-embedded-resource") {
        faults.forbidden(&path.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
}

fn extensions(faults: &mut Faults, path: &Path<'_>, schema: &Value) {
    let kind = schema.text("type");
    if schema.opt_flag("x-kubernetes-preserve-unknown-fields") == Some(false) {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        faults.invalid(&at, &json!(false), "must be true or undefined");
    }
    let typed = |faults: &mut Faults, wanted: &str, key: &str| {
        if schema.has(key) && kind != wanted {
            let detail = format!("must be {wanted} if {key} is specified");
            match kind {
                "" => faults.required(&path.child("type"), &detail),
                kind => faults.invalid_str(&path.child("type"), kind, &detail),
            }
        }
    };
    let (map_key, list_key, keys_key) = ("x-kubernetes-map-type", "x-kubernetes-list-type", "x-kubernetes-list-map-keys");
    typed(faults, "object", map_key);
    check::optional_one_of(faults, path, schema, map_key, &["atomic", "granular"]);
    typed(faults, "array", list_key);
    let list = schema.opt_text(list_key);
    let item = schema.opt("items").filter(|item| item.is_object());
    let items = path.child("items");
    if kind == "array"
        && list == Some("set")
        && let Some(item) = item
    {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let of_item = &item[list_key];
        match item.text("type") {
            "array" if !of_item.is_null() && of_item != "atomic" => faults.invalid(&items.child(list_key), of_item, detail),
            "object" if item.text(map_key) != "atomic" => faults.invalid(&items.child(map_key), of_item, detail),
            _ => {}
        }
    }
    check::optional_one_of(faults, path, schema, list_key, &["atomic", "set", "map"]);
    let keys: Vec<&str> = schema.texts(keys_key).collect();
    if !keys.is_empty() && list != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list {
            None => faults.required(&path.child(list_key), detail),
            Some(list) => faults.invalid_str(&path.child(list_key), list, detail),
        }
    }
    if list == Some("map") {
        map_list(faults, path, schema, &keys);
    }
    if let (Some(list @ ("set" | "map")), Some(item)) = (list, item) {
        associative(faults, &items, item, list, &keys);
    }
}

fn map_list(faults: &mut Faults, path: &Path<'_>, schema: &Value, keys: &[&str]) {
    let items = path.child("items");
    let keys_at = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        faults.required(&keys_at, "must not be empty if x-kubernetes-list-type is map");
    }
    match &schema["items"] {
        Value::Null => faults.required(&items, "must have a schema if x-kubernetes-list-type is map"),
        Value::Array(all) => {
            faults.invalid(&items, &json!(all), "must only have a single schema if x-kubernetes-list-type is map");
        }
        item if item.text("type") != "object" => {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            faults.invalid_str(&items.child("type"), item.text("type"), detail);
        }
        item => {
            let properties = items.child("properties");
            let mut seen = HashSet::new();
            for key in keys {
                match item["properties"].opt(key) {
                    None => {
                        let detail = "entries must all be names of item properties";
                        faults.invalid(&keys_at, &schema["x-kubernetes-list-map-keys"], detail);
                    }
                    Some(property) if matches!(property.text("type"), "array" | "object") => {
                        // The type of the item is shown, as the reference server has it.
                        let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                        faults.invalid_str(&properties.key(key).child("type"), item.text("type"), detail);
                    }
                    Some(_) => {}
                }
                if !seen.insert(key) {
                    faults.invalid(&keys_at, &schema["x-kubernetes-list-map-keys"], "must not contain duplicate entries");
                }
            }
        }
    }
}

/// Items that are found by what they hold must hold it.
fn associative(faults: &mut Faults, items: &Path<'_>, item: &Value, list: &str, keys: &[&str]) {
    if item.flag("nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list}");
        faults.forbidden(&items.child("nullable"), &detail);
    }
    if list != "map" {
        return;
    }
    let properties = items.child("properties");
    for key in keys {
        let Some(property) = item["properties"].opt(key) else { continue };
        let at = properties.key(key);
        if !item.texts("required").any(|required| required == *key) && !property.has("default") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            faults.required(&at.child("default"), detail);
        }
        if property.flag("nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            faults.forbidden(&at.child("nullable"), detail);
        }
    }
}

fn rules(faults: &mut Faults, path: &Path<'_>, schema: &Value) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (i, rule) in schema.list("x-kubernetes-validations").iter().enumerate() {
        let at = path.index(i);
        let (text, message) = (rule.text("rule").trim(), rule.text("message"));
        if text.is_empty() {
            faults.required(&at.child("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            faults.invalid_str(&at.child("message"), message, "must be non-empty if specified");
        } else if breaks(message.trim()) {
            faults.invalid_str(&at.child("message"), message, "must not contain line breaks");
        } else if breaks(text) && message.trim().is_empty() {
            faults.required(&at.child("message"), "message must be specified if rule contains line breaks");
        }
        let expression = rule.text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            faults.required(&at.child("messageExpression"), "messageExpression must be non-empty if specified");
        }
        let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        check::optional_one_of(faults, &at, rule, "reason", &reasons);
        let field = rule.text("fieldPath");
        if !field.is_empty() && field.trim().is_empty() {
            faults.invalid_str(&at.child("fieldPath"), field, "must be non-empty if specified");
        }
        if breaks(field) {
            faults.invalid_str(&at.child("fieldPath"), field, "must not contain line breaks");
        }
        if !field.is_empty() && field_at(schema, field, true).is_err() {
            faults.invalid_str(&at.child("fieldPath"), field, "must be a valid path");
        }
    }
}

/// The schema at a path such as `.spec.color` or, where `brackets` are allowed, `.spec['color']`.
pub(super) fn field_at<'s>(schema: &'s Value, path: &str, brackets: bool) -> Result<&'s Value, String> {
    const END: &str = "unexpected end of JSON path";
    let mut at = schema;
    let mut tokens = tokens(path).into_iter();
    while let Some(token) = tokens.next() {
        let name = match token {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let name = tokens.next().ok_or(END)?;
                let inner = name.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
                inner.ok_or_else(|| format!("expected single quoted string but got {name}"))?
            }
            "." => tokens.next().ok_or(END)?,
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let properties = at.map("properties");
        at = match properties.get(name) {
            Some(property) => property,
            None if properties.is_empty() => {
                at.opt("additionalProperties").filter(|below| below.is_object()).ok_or("does not refer to a valid field")?
            }
            None => return Err("does not refer to a valid field".into()),
        };
        if token == "[" {
            match tokens.next().ok_or(END)? {
                "]" => {}
                other => return Err(format!("expected ] but got {other}")),
            }
        }
    }
    Ok(at)
}

/// Dots and brackets, quoted texts, and what is between them.
fn tokens(path: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let bytes = rest.as_bytes();
        let end = match bytes[0] {
            b'.' | b'[' | b']' => 1,
            b'\'' => {
                let closing = (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\');
                closing.map_or(rest.len(), |at| at + 1)
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(end);
        found.push(token);
        rest = after;
    }
    found
}

/// Whether a schema or any below it is as asked.
pub(super) fn any(schema: &Value, wanted: &dyn Fn(&Value) -> bool) -> bool {
    if !schema.is_object() {
        return false;
    }
    let of_map = |map: &Map<String, Value>| map.values().any(|below| any(below, wanted));
    let of_list = |list: &[Value]| list.iter().any(|below| any(below, wanted));
    wanted(schema)
        || match &schema["items"] {
            Value::Array(all) => of_list(all),
            item => any(item, wanted),
        }
        || ["allOf", "anyOf", "oneOf"].iter().any(|key| of_list(schema.list(key)))
        || any(&schema["not"], wanted)
        || ["properties", "patternProperties", "definitions", "dependencies"].iter().any(|key| of_map(schema.map(key)))
        || any(&schema["additionalProperties"], wanted)
        || any(&schema["additionalItems"], wanted)
}

/// Formats that nobody checks.
pub(super) fn unknown_formats(schema: &Value) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    any(schema, &|schema| {
        let format = schema.text("format");
        let known = match schema.text("type") {
            "" | "string" => FORMATS.contains(&format.replace('-', "").as_str()),
            "integer" => matches!(format, "int32" | "int64"),
            "number" => matches!(format, "float" | "double"),
            _ => false,
        };
        if !format.is_empty() && !known {
            found.borrow_mut().push(format.to_owned());
        }
        false
    });
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn paths_lead_to_fields() {
        told(".spec.a",       false, Ok("string"));
        told(".map.any",      false, Ok("integer"));
        told(".spec['a']",    true,  Ok("string"));
        told(".spec['a']",    false, Err("array notation is not allowed"));
        told(".spec[a]",      true,  Err("expected single quoted string but got a"));
        told(".spec.b",       false, Err("does not refer to a valid field"));
        told("*.example.com", false, Err("expected [ or . but got: *"));
        told(".spec.",        false, Err("unexpected end of JSON path"));

        #[track_caller]
        fn told(path: &str, brackets: bool, expected: Result<&str, &str>) {
            let schema = json!({"properties": {
                "spec": {"properties": {"a": {"type": "string"}}}, "map": {"additionalProperties": {"type": "integer"}},
            }});
            let found = field_at(&schema, path, brackets).map(|found| found.text("type").to_owned());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
        }
    }
}
