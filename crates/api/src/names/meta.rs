//! Checks of object metadata that are the same for every kind.

use serde_json::{Map, Value, json};

use super::{label_value, name_is_label, qualified_name};
use crate::field::{Faults, Path};

/// What is wrong with a name (`true`: with a `generateName`).
pub type NameRule<'a> = &'a dyn Fn(&str, bool) -> Vec<String>;

/// Most bytes of all annotations of an object, keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;
/// Most bytes of a field manager's name.
const MAX_MANAGER: usize = 128;
/// Most bytes of a subresource's name in managed fields.
const MAX_SUBRESOURCE: usize = 256;

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// Faults of a new object's metadata.
pub fn validate_object_meta(meta: &Value, namespaced: bool, name_rule: NameRule<'_>, path: &Path<'_>, faults: &mut Faults) {
    let generate_name = text(meta, "generateName");
    if !generate_name.is_empty() {
        for fault in name_rule(generate_name, true) {
            faults.invalid_str(&path.child("generateName"), generate_name, &fault);
        }
    }
    match text(meta, "name") {
        "" => faults.required(&path.child("name"), "name or generateName is required"),
        name => {
            for fault in name_rule(name, false) {
                faults.invalid_str(&path.child("name"), name, &fault);
            }
        }
    }
    match (namespaced, text(meta, "namespace")) {
        (true, "") => faults.required(&path.child("namespace"), ""),
        (true, namespace) => {
            for fault in name_is_label(namespace, false) {
                faults.invalid_str(&path.child("namespace"), namespace, &fault);
            }
        }
        (false, "") => {}
        (false, _) => faults.forbidden(&path.child("namespace"), "not allowed on this type"),
    }
    let generation = number(meta, "generation");
    if generation < 0 {
        faults.invalid_int(&path.child("generation"), generation, "must be greater than or equal to 0");
    }
    validate_labels(map(meta, "labels"), &path.child("labels"), faults);
    validate_annotations(map(meta, "annotations"), &path.child("annotations"), faults);
    validate_owner_references(list(meta, "ownerReferences"), &path.child("ownerReferences"), faults);
    validate_finalizers(list(meta, "finalizers"), &path.child("finalizers"), faults);
    validate_managed_fields(list(meta, "managedFields"), &path.child("managedFields"), faults);
}

/// Faults of a change of an object's metadata.
pub fn validate_object_meta_update(new: &Value, old: &Value, path: &Path<'_>, faults: &mut Faults) {
    if !old["deletionTimestamp"].is_null() {
        validate_no_new_finalizers(list(new, "finalizers"), list(old, "finalizers"), &path.child("finalizers"), faults);
    }
    if text(new, "resourceVersion").is_empty() {
        faults.invalid_str(&path.child("resourceVersion"), "", "must be specified for an update");
    }
    let generation = number(new, "generation");
    if generation < number(old, "generation") {
        faults.invalid_int(&path.child("generation"), generation, "must not be decremented");
    }
    for name in ["name", "namespace", "uid"] {
        if text(new, name) != text(old, name) {
            faults.invalid_str(&path.child(name), text(new, name), "field is immutable");
        }
    }
    for name in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new[name] != old[name] {
            faults.invalid(&path.child(name), &new[name], "field is immutable");
        }
    }
    validate_labels(map(new, "labels"), &path.child("labels"), faults);
    validate_annotations(map(new, "annotations"), &path.child("annotations"), faults);
    validate_owner_references(list(new, "ownerReferences"), &path.child("ownerReferences"), faults);
    validate_managed_fields(list(new, "managedFields"), &path.child("managedFields"), faults);
}

/// Faults of labels.
pub fn validate_labels(labels: &Map<String, Value>, path: &Path<'_>, faults: &mut Faults) {
    for (key, value) in labels {
        validate_label_key(key, path, faults);
        let value = value.as_str().unwrap_or_default();
        for fault in label_value(value) {
            faults.invalid_str(path, value, &fault);
        }
    }
}

/// Faults of a label's key.
pub fn validate_label_key(key: &str, path: &Path<'_>, faults: &mut Faults) {
    for fault in qualified_name(key) {
        faults.invalid_str(path, key, &fault);
    }
}

/// Faults of annotations.
pub fn validate_annotations(annotations: &Map<String, Value>, path: &Path<'_>, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in annotations {
        size += key.len() + value.as_str().map_or(0, str::len);
        for fault in qualified_name(&key.to_lowercase()) {
            faults.invalid_str(path, key, &fault);
        }
    }
    if size > MAX_ANNOTATIONS {
        faults.too_long(path, MAX_ANNOTATIONS);
    }
}

/// Faults of owner references.
pub fn validate_owner_references(references: &[Value], path: &Path<'_>, faults: &mut Faults) {
    let mut controller: Option<String> = None;
    for reference in references {
        let api_version = text(reference, "apiVersion");
        let kind = text(reference, "kind");
        // More than one slash is no group and version at all.
        let version = match api_version.split('/').collect::<Vec<_>>().as_slice() {
            [version] | [_, version] => *version,
            _ => "",
        };
        if version.is_empty() {
            faults.invalid_str(&path.child("apiVersion"), api_version, "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            if text(reference, name).is_empty() {
                faults.invalid_str(&path.child(name), "", "must not be empty");
            }
        }
        if api_version == "v1" && kind == "Event" {
            faults.invalid_shown(path, &shown_owner(reference), "/v1, Kind=Event is disallowed from being an owner");
        }
        if reference["controller"] == json!(true) {
            let this = format!("{kind}/{}", text(reference, "name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let fault = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    let shown: Vec<String> = references.iter().map(shown_owner).collect();
                    faults.invalid_shown(path, &format!("[{}]", shown.join(",")), &fault);
                }
            }
        }
    }
}

/// An owner reference as messages show it, members in the order of upstream's type.
fn shown_owner(reference: &Value) -> String {
    let always = ["apiVersion", "kind", "name", "uid"];
    let members = always.iter().map(|key| format!("{}:{}", json!(key), json!(text(reference, key))));
    let flags = ["controller", "blockOwnerDeletion"].into_iter();
    let flags = flags.filter(|key| reference[*key].is_boolean()).map(|key| format!("{}:{}", json!(key), reference[key]));
    format!("{{{}}}", members.chain(flags).collect::<Vec<_>>().join(","))
}

/// Faults of finalizers.
pub fn validate_finalizers(finalizers: &[Value], path: &Path<'_>, faults: &mut Faults) {
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        for fault in qualified_name(finalizer) {
            faults.invalid_str(path, finalizer, &fault);
        }
    }
    let has = |name| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let fault = "finalizer orphan and foregroundDeletion cannot be both set";
        faults.invalid(path, &Value::Array(finalizers.to_vec()), fault);
    }
}

/// Faults of finalizers that appear while the object is being deleted.
pub fn validate_no_new_finalizers(new: &[Value], old: &[Value], path: &Path<'_>, faults: &mut Faults) {
    let mut extra: Vec<&str> = new.iter().filter(|name| !old.contains(name)).filter_map(Value::as_str).collect();
    extra.sort_unstable();
    extra.dedup();
    if extra.is_empty() {
        return;
    }
    let listed = extra.iter().map(|name| crate::field::quoted(name)).collect::<Vec<_>>().join(", ");
    let fault =
        format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}");
    faults.forbidden(path, &fault);
}

/// Faults of managed fields.
pub fn validate_managed_fields(entries: &[Value], path: &Path<'_>, faults: &mut Faults) {
    for (at, entry) in entries.iter().enumerate() {
        let path = path.index(at);
        let operation = text(entry, "operation");
        if operation != "Apply" && operation != "Update" {
            faults.invalid_str(&path.child("operation"), operation, "must be `Apply` or `Update`");
        }
        let fields_type = text(entry, "fieldsType");
        if !fields_type.is_empty() && fields_type != "FieldsV1" {
            faults.invalid_str(&path.child("fieldsType"), fields_type, "must be `FieldsV1`");
        }
        validate_field_manager(text(entry, "manager"), &path.child("manager"), faults);
        if text(entry, "subresource").len() > MAX_SUBRESOURCE {
            faults.too_long(&path.child("subresource"), MAX_SUBRESOURCE);
        }
    }
}

/// Faults of a field manager's name.
pub fn validate_field_manager(manager: &str, path: &Path<'_>, faults: &mut Faults) {
    if manager.len() > MAX_MANAGER {
        faults.too_long(path, MAX_MANAGER);
    }
    for (at, c) in manager.char_indices() {
        if c.is_control() || (c.is_whitespace() && c != ' ') {
            let shown = if c.is_control() { String::new() } else { format!(" '{c}'") };
            let fault = format!("invalid character U+{:04X}{shown} (at position {at})", u32::from(c));
            faults.invalid_str(path, manager, &fault);
        }
    }
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn number(object: &Value, name: &str) -> i64 {
    object[name].as_i64().unwrap_or_default()
}

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}

fn map<'a>(object: &'a Value, name: &str) -> &'a Map<String, Value> {
    object[name].as_object().unwrap_or(&EMPTY)
}
