//! Structural schemas: every field has one type at one place, outside of `allOf` and its like, so that objects can be pruned
//! and defaulted (KEP-1111).

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::Read;

/// Where a schema stands: a type is required everywhere, in other words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, sorted by text.
pub(super) fn faults(path: &Path<'_>, schema: &Value) -> Faults {
    let mut found = Faults::default();
    invariants(&mut found, path, schema, Place::Root);
    junctors(schema, &path.to_string(), &mut |key, nested, at| {
        complete(&mut found, &path.to_string(), Some(schema), &format!("{at}.{key}"), nested);
    });
    found.0.sort_by_cached_key(|fault| format!("{}: {}", fault.field, fault.message));
    found
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.flag(&format!("x-kubernetes-{name}"))
}

fn invariants(faults: &mut Faults, path: &Path<'_>, schema: &Value, place: Place) {
    let kind = schema.text("type");
    if kind == "array" && !schema.has("items") {
        faults.required(&path.child("items"), "must be specified");
    }
    if let Some(item) = schema.opt("items").filter(|item| item.is_object()) {
        invariants(faults, &path.child("items"), item, Place::Item);
    }
    let properties = path.child("properties");
    for (name, property) in schema.map("properties") {
        invariants(faults, &properties.key(name), property, Place::Field);
    }
    let additional_at = path.child("additionalProperties");
    if let Some(additional) = schema.opt("additionalProperties") {
        if place == Place::Root {
            faults.forbidden(&additional_at, "must not be used at the root");
        }
        if additional.is_object() {
            invariants(faults, &additional_at, additional, Place::Field);
        }
    }
    let (int_or_string, embedded) = (flag(schema, "int-or-string"), flag(schema, "embedded-resource"));
    let open = flag(schema, "preserve-unknown-fields");
    for (set, key) in [(open, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")] {
        if int_or_string && set {
            faults.invalid(&path.child(key), &json!(true), "must be false if x-kubernetes-int-or-string is true");
        }
    }
    value_validation(
        faults,
        path,
        schema,
        is_either(&schema["anyOf"]),
        schema["allOf"].get(0).is_some_and(|first| is_either(&first["anyOf"])),
    );
    let type_at = path.child("type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "" => faults.required(&type_at, detail),
            kind => faults.invalid_str(&type_at, kind, detail),
        }
    } else if kind.is_empty() && !int_or_string && !open {
        let detail = match place {
            Place::Root => "must not be empty at the root",
            Place::Item => "must not be empty for specified array items",
            Place::Field => "must not be empty for specified object fields",
        };
        faults.required(&type_at, detail);
    }
    if embedded && schema.has("additionalProperties") {
        faults.forbidden(&additional_at, "must not be used if x-kubernetes-embedded-resource is set");
    }
    if place == Place::Root && !kind.is_empty() && kind != "object" {
        faults.invalid_str(&type_at, kind, "must be object at the root");
    }
    let resource = place == Place::Root || embedded;
    for key in ["kind", "apiVersion"] {
        if let Some(property) = schema["properties"].opt(key).filter(|_| resource)
            && property.text("type") != "string"
        {
            faults.invalid_str(&properties.key(key).child("type"), property.text("type"), "must be string");
        }
    }
    if let Some(metadata) = schema["properties"].opt("metadata") {
        let at = properties.key("metadata");
        if resource && metadata.text("type") != "object" {
            faults.invalid_str(&at.child("type"), metadata.text("type"), "must be object");
        }
        if place == Place::Root && !restricts_names_only(metadata) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            faults.forbidden(&at, detail);
        }
    }
    if embedded && !open && schema.map("properties").is_empty() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        faults.required(&path.child("properties"), detail);
    }
}

fn restricts_names_only(metadata: &Value) -> bool {
    let names = metadata.map("properties").keys().all(|key| matches!(key.as_str(), "name" | "generateName"));
    names
        && metadata
            .as_object()
            .is_some_and(|members| members.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "default")))
}

/// `anyOf: [{type: integer}, {type: string}]`, which goes with `x-kubernetes-int-or-string`.
fn is_either(list: &Value) -> bool {
    *list == json!([{ "type": "integer" }, { "type": "string" }])
}

/// The schemas that `allOf` and its like hold, and where.
fn junctors(schema: &Value, at: &str, each: &mut dyn FnMut(&str, &Value, &str)) {
    if let Some(nested) = schema.opt("not") {
        each("not", nested, at);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, nested) in schema.list(key).iter().enumerate() {
            each(&format!("{key}[{i}]"), nested, at);
        }
    }
}

fn value_validation(faults: &mut Faults, path: &Path<'_>, schema: &Value, skip_any_of: bool, skip_first: bool) {
    for key in ["anyOf", "allOf", "oneOf"] {
        if key == "anyOf" && skip_any_of {
            continue;
        }
        let at = path.child(key);
        for (i, nested) in schema.list(key).iter().enumerate() {
            nested_validation(faults, &at.index(i), nested, key == "allOf" && i == 0 && skip_first);
        }
    }
    if let Some(nested) = schema.opt("not") {
        nested_validation(faults, &path.child("not"), nested, false);
    }
    let pattern = schema.text("pattern");
    if !pattern.is_empty() && regex::Regex::new(pattern).is_err() {
        let detail = "must be a valid regular expression, but isn't: error parsing regexp";
        faults.invalid_str(&path.child("pattern"), pattern, detail);
    }
}

/// What stands under `allOf` and its like may restrict values, and nothing else.
fn nested_validation(faults: &mut Faults, path: &Path<'_>, schema: &Value, skip_any_of: bool) {
    value_validation(faults, path, schema, skip_any_of, false);
    if let Some(item) = schema.opt("items").filter(|item| item.is_object()) {
        nested_validation(faults, &path.child("items"), item, false);
    }
    let properties = path.child("properties");
    for (name, property) in schema.map("properties") {
        nested_validation(faults, &properties.key(name), property, false);
    }
    let mut empty = |key: &str, set: bool, must: &str| {
        if set {
            faults.forbidden(&path.child(key), &format!("must be {must} to be structural"));
        }
    };
    empty("type", !schema.text("type").is_empty(), "empty");
    empty("additionalProperties", schema.has("additionalProperties"), "undefined");
    empty("default", schema.has("default"), "undefined");
    empty("title", !schema.text("title").is_empty(), "empty");
    empty("description", !schema.text("description").is_empty(), "empty");
    empty("nullable", schema.flag("nullable"), "false");
    for key in ["preserve-unknown-fields", "embedded-resource", "int-or-string"] {
        empty(&format!("x-kubernetes-{key}"), flag(schema, key), "false");
    }
    let (keys, list, map) = ("x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type");
    empty(keys, !schema.list(keys).is_empty(), "empty");
    empty(list, schema.has(list), "undefined");
    empty(map, schema.has(map), "undefined");
    let rules = "x-kubernetes-validations";
    empty(rules, !schema.list(rules).is_empty(), "empty");
    if schema["properties"].has("metadata") {
        faults.forbidden(&properties.key("metadata"), "must not be specified in a nested context");
    }
}

/// Every field that a nested schema restricts must be specified outside of it.
fn complete(faults: &mut Faults, at: &str, schema: Option<&Value>, nested_at: &str, nested: &Value) {
    let Some(schema) = schema else {
        return faults.required(&Path::new(at), &format!("because it is defined in {nested_at}"));
    };
    junctors(nested, nested_at, &mut |key, below, here| complete(faults, at, Some(schema), &format!("{here}.{key}"), below));
    if let Some(item) = nested.opt("items").filter(|item| item.is_object()) {
        let own = schema.opt("items").filter(|item| item.is_object());
        complete(faults, &format!("{at}.items"), own, &format!("{nested_at}.items"), item);
    }
    for (name, property) in nested.map("properties") {
        let (at, nested_at) = (format!("{at}.properties[{name}]"), format!("{nested_at}.properties[{name}]"));
        complete(faults, &at, schema["properties"].opt(name), &nested_at, property);
    }
}

/// Defaults must fit the schema that they are the default of, and have no field that would be pruned.
pub(super) fn defaults(faults: &mut Faults, path: &Path<'_>, schema: &Value) {
    if let Some(default) = schema.opt("default") {
        let at = path.child("default");
        if has_unknown(default, schema) {
            faults.invalid(&at, default, "must not have unknown fields");
        }
        let before = faults.0.len();
        if flag(schema, "embedded-resource") && default.is_object() {
            for key in ["apiVersion", "kind"].into_iter().filter(|key| default.text(key).is_empty()) {
                faults.required(&at.child(key), "");
            }
        }
        if faults.0.len() == before {
            super::values::check(faults, &at, default, schema);
        }
    }
    if let Some(item) = schema.opt("items").filter(|item| item.is_object()) {
        defaults(faults, &path.child("items"), item);
    }
    let properties = path.child("properties");
    for (name, property) in schema.map("properties") {
        defaults(faults, &properties.key(name), property);
    }
}

fn has_unknown(value: &Value, schema: &Value) -> bool {
    match value {
        Value::Object(members) if !flag(schema, "preserve-unknown-fields") => {
            members.iter().any(|(key, value)| match schema["properties"].opt(key) {
                Some(property) => has_unknown(value, property),
                None => match &schema["additionalProperties"] {
                    Value::Object(_) => has_unknown(value, &schema["additionalProperties"]),
                    Value::Bool(open) => !open,
                    _ => !(flag(schema, "embedded-resource") && matches!(key.as_str(), "apiVersion" | "kind" | "metadata")),
                },
            })
        }
        Value::Array(items) => items.iter().any(|item| has_unknown(item, &schema["items"])),
        _ => false,
    }
}
