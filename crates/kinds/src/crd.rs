//! CustomResourceDefinitions: names, versions, subresources, columns, conversion. Schemas are in [`schema`] and [`structural`].
//!
//! The reference server checks an older form of the kind, in which what all versions share stands once beside them: schemas,
//! subresources, columns and selectable fields that are equal in every version are faulted at `spec.validation` and so on.

mod rules;
mod schema;
mod structural;
mod values;

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write, semantic_equal};
use crate::{Column, Context, Strategy, admission, check, internal, meta, names, table};

pub(crate) struct CustomResourceDefinitions;

const APPROVED: &str = "api-approved.kubernetes.io";
const PULL_REQUEST: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MAX_SELECTABLE: usize = 8;

impl Strategy for CustomResourceDefinitions {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        let names = spec.object("names");
        let kind = names.text("kind").to_owned();
        if names.text("singular").is_empty() && !kind.is_empty() {
            names.put("singular", kind.to_lowercase());
        }
        if names.text("listKind").is_empty() && !kind.is_empty() {
            names.put("listKind", format!("{kind}List"));
        }
        if !spec.has("conversion") {
            spec.put("conversion", json!({ "strategy": "None" }));
        }
        let conversion = spec.object("conversion");
        if let Some(service) =
            conversion.child("webhook").and_then(|hook| hook.child("clientConfig")).and_then(|client| client.child("service"))
            && !service.has("port")
        {
            service.put("port", 443);
        }
        if object["status"].list("storedVersions").is_empty()
            && let Some(version) = storage_version(object)
        {
            object.object("status").put("storedVersions", json!([version]));
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", empty_status());
        keep_stored(object);
        meta::set_generation(object, 1);
    }

    fn validate_name_of(&self, object: &Value, name: &str, prefix: bool) -> Vec<String> {
        let mut wrong = names::name_is_subdomain(name, prefix);
        let spec = &object["spec"];
        if name != format!("{}.{}", spec["names"].text("plural"), spec.text("group")) {
            wrong.push("must be spec.names.plural+\".\"+spec.group".into());
        }
        wrong
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        whole(&mut faults, object, None);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        meta::bump_generation(object, old, |object| &object["spec"]);
        keep_stored(object);
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let status = Path::new("status");
        kind_names(&mut faults, &status.child("acceptedNames"), &object["status"]["acceptedNames"]);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        whole(&mut faults, object, Some(old));
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let had = old.map(unknown_formats).unwrap_or_default();
        let now = unknown_formats(object).into_iter().filter(|format| !had.contains(format));
        now.map(|format| format!("unrecognized format {}", corten_api::field::quoted(&format))).collect()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, _: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), table::created(object)]
    }

    fn columns(&self) -> &'static [Column] {
        crate::columns::LIMITRANGES
    }
}

fn empty_status() -> Value {
    json!({ "acceptedNames": { "kind": "", "plural": "" }, "conditions": null, "storedVersions": null })
}

fn storage_version(object: &Value) -> Option<String> {
    object["spec"].list("versions").iter().find(|version| version.flag("storage")).map(|version| version.text("name").to_owned())
}

/// A version in which objects may be stored stays in the list until somebody has migrated them.
fn keep_stored(object: &mut Value) {
    let Some(version) = storage_version(object) else { return };
    let status = object.object("status");
    let mut stored = status.list("storedVersions").to_vec();
    if !stored.contains(&json!(version)) {
        stored.push(version.into());
        status.put("storedVersions", stored);
    }
}

/// What all versions share, and the versions without it.
struct Shared {
    schema: Value,
    subresources: Value,
    columns: Value,
    selectable: Value,
    versions: Vec<Value>,
}

fn share(spec: &Value) -> Shared {
    let mut versions = spec.list("versions").to_vec();
    let mut lift = |key: &str| -> Value {
        let Some(first) = versions.first().map(|version| version[key].clone()) else { return Value::Null };
        if !versions.iter().all(|version| semantic_equal(&version[key], &first)) {
            return Value::Null;
        }
        versions.iter_mut().for_each(|version| version.drop_key(key));
        first
    };
    let (schema, subresources) = (lift("schema"), lift("subresources"));
    let (columns, selectable) = (lift("additionalPrinterColumns"), lift("selectableFields"));
    Shared { schema, subresources, columns, selectable, versions }
}

fn whole(faults: &mut Faults, object: &Value, old: Option<&Value>) {
    let path = Path::new("spec");
    spec(faults, &path, &object["spec"]);
    if let Some(old) = old {
        let (now, before) = (&object["spec"], &old["spec"]);
        let names = path.child("names");
        let established = before_is(old, "Established");
        if established {
            check::immutable(faults, &path.child("scope"), &now["scope"], &before["scope"]);
            check::immutable(faults, &names.child("kind"), &now["names"]["kind"], &before["names"]["kind"]);
        }
        check::immutable(faults, &path.child("group"), &now["group"], &before["group"]);
        check::immutable(faults, &names.child("plural"), &now["names"]["plural"], &before["names"]["plural"]);
    }
    let status = Path::new("status");
    kind_names(faults, &status.child("acceptedNames"), &object["status"]["acceptedNames"]);
    stored_versions(faults, &status.child("storedVersions"), object);
    approval(faults, object, old);
    let was_open = old.is_some_and(|old| old["spec"].flag("preserveUnknownFields"));
    if object["spec"].flag("preserveUnknownFields") && !was_open {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        faults.invalid(&path.child("preserveUnknownFields"), &json!(true), detail);
    }
}

fn before_is(object: &Value, kind: &str) -> bool {
    object["status"]
        .list("conditions")
        .iter()
        .any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}

fn spec(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let group = spec.text("group");
    let group_at = path.child("group");
    if group.is_empty() {
        faults.required(&group_at, "");
    } else if !joined(faults, &group_at, group, "", &names::dns_subdomain(group)) && !group.contains('.') {
        faults.invalid_str(&group_at, group, "should be a domain with at least one dot");
    }
    check::required_one_of(faults, &path.child("scope"), spec.text("scope"), &["Cluster", "Namespaced"]);
    let shared = share(spec);
    let versions_at = path.child("versions");
    if !shared.schema.has("openAPIV3Schema") {
        for (i, version) in shared.versions.iter().enumerate() {
            if !version["schema"].has("openAPIV3Schema") {
                let at = versions_at.index(i);
                faults.required(&at.child("schema").child("openAPIV3Schema"), "");
            }
        }
    }
    let open = spec.flag("preserveUnknownFields");
    let defaults = |schema: &Value| schema::any(&schema["openAPIV3Schema"], &|schema| schema.has("default"));
    if open && (defaults(&shared.schema) || shared.versions.iter().any(|version| defaults(&version["schema"]))) {
        let detail = "must be false in order to use defaults in the schema";
        faults.invalid(&path.child("preserveUnknownFields"), &json!(true), detail);
    }
    versions(faults, &versions_at, &shared);
    let first = shared.versions.first().map_or("", |version| version.text("name"));
    if !first.is_empty() {
        joined(faults, &path.child("version"), first, "", &names::dns1035_label(first));
    }
    let names_at = path.child("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        if spec["names"].text(key).is_empty() {
            faults.required(&names_at.child(key), "");
        }
    }
    kind_names(faults, &names_at, &spec["names"]);
    let any_status =
        shared.subresources.has("status") || shared.versions.iter().any(|version| version["subresources"].has("status"));
    schema::validate(faults, &path.child("validation"), &shared.schema, any_status);
    subresources(faults, &path.child("subresources"), &shared.subresources);
    columns(faults, &path.child("additionalPrinterColumns"), &shared.columns);
    if let Some(fields) = shared.selectable.as_array().filter(|fields| !fields.is_empty()) {
        let at = path.child("selectableFields");
        if shared.schema.is_null() {
            faults.invalid_str(&at, "", "may only be set when validations.schema is included");
        } else {
            selectable(faults, &at, fields, &shared.schema["openAPIV3Schema"]);
        }
    }
    conversion(faults, &path.child("conversion"), &spec["conversion"], open);
}

fn versions(faults: &mut Faults, path: &Path<'_>, shared: &Shared) {
    let mut seen = HashSet::new();
    let mut unique = true;
    for (i, version) in shared.versions.iter().enumerate() {
        let at = path.index(i);
        let name = version.text("name");
        unique &= seen.insert(name);
        joined(faults, &at.child("name"), name, "", &names::dns1035_label(name));
        deprecation(faults, &at.child("deprecationWarning"), version);
        let with_status = shared.subresources.has("status") || version["subresources"].has("status");
        schema::validate(faults, &at.child("schema"), &version["schema"], with_status);
        subresources(faults, &at.child("subresources"), &version["subresources"]);
        columns(faults, &at.child("additionalPrinterColumns"), &version["additionalPrinterColumns"]);
        let fields = version.list("selectableFields");
        if !fields.is_empty() {
            let here = at.child("selectableFields");
            if version["schema"].has("openAPIV3Schema") {
                selectable(faults, &here, fields, &version["schema"]["openAPIV3Schema"]);
            } else {
                let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
                faults.invalid_str(&here, "", detail);
            }
        }
    }
    let shown = || internal::shown_list("CustomResourceDefinitionVersion", &json!(shared.versions));
    if !unique {
        check::invalid_shown(faults, path, &shown(), "must contain unique version names");
    }
    if shared.versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        check::invalid_shown(faults, path, &shown(), "must have exactly one version marked as storage version");
    }
}

fn deprecation(faults: &mut Faults, path: &Path<'_>, version: &Value) {
    let Some(text) = version.opt_text("deprecationWarning") else { return };
    if !version.flag("deprecated") {
        return faults.invalid_str(path, text, "can only be set for deprecated versions");
    }
    if text.len() > 256 {
        faults.invalid_str(path, text, "must be <= 256 characters long");
    }
    if text.is_empty() {
        faults.invalid_str(path, text, "must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        let detail = format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        faults.invalid_str(path, text, &detail);
    }
}

/// Reports all messages in one fault, and tells whether there were any.
fn joined(faults: &mut Faults, path: &Path<'_>, value: &str, lead: &str, messages: &[String]) -> bool {
    if !messages.is_empty() {
        faults.invalid_str(path, value, &format!("{lead}{}", messages.join(",")));
    }
    !messages.is_empty()
}

fn kind_names(faults: &mut Faults, path: &Path<'_>, found: &Value) {
    for key in ["plural", "singular"] {
        let name = found.text(key);
        if !name.is_empty() {
            joined(faults, &path.child(key), name, "", &names::dns1035_label(name));
        }
    }
    for key in ["kind", "listKind"] {
        let name = found.text(key);
        if !name.is_empty() {
            let lead = "may have mixed case, but should otherwise match: ";
            joined(faults, &path.child(key), name, lead, &names::dns1035_label(&name.to_lowercase()));
        }
    }
    let short = path.child("shortNames");
    for (i, name) in found.texts("shortNames").enumerate() {
        joined(faults, &short.index(i), name, "", &names::dns1035_label(name));
    }
    if !found.text("kind").is_empty() && found.text("kind") == found.text("listKind") {
        faults.invalid_str(&path.child("listKind"), found.text("listKind"), "kind and listKind may not be the same");
    }
    let categories = path.child("categories");
    for (i, name) in found.texts("categories").enumerate() {
        joined(faults, &categories.index(i), name, "", &names::dns1035_label(name));
    }
}

fn subresources(faults: &mut Faults, path: &Path<'_>, found: &Value) {
    let Some(scale) = found.opt("scale") else { return };
    for (key, root) in [("specReplicasPath", "spec"), ("statusReplicasPath", "status")] {
        let dotted = format!("scale.{key}");
        let at = path.child(&dotted);
        let text = scale.text(key);
        if text.is_empty() {
            faults.required(&at, "");
        } else if simple_path(faults, &at, text) && !text.starts_with(&format!(".{root}.")) {
            faults.invalid_str(&at, text, &format!("should be a json path under .{root}"));
        }
    }
    let text = scale.text("labelSelectorPath");
    if !text.is_empty() {
        let at = path.child("scale.labelSelectorPath");
        if simple_path(faults, &at, text) && !text.starts_with(".spec.") && !text.starts_with(".status.") {
            faults.invalid_str(&at, text, "should be a json path under either .spec or .status");
        }
    }
}

fn simple_path(faults: &mut Faults, path: &Path<'_>, text: &str) -> bool {
    let fits = text.starts_with('.');
    if !fits {
        faults.invalid_str(path, text, "must be a simple json path starting with .");
    }
    fits
}

fn columns(faults: &mut Faults, path: &Path<'_>, found: &Value) {
    for (i, column) in found.as_array().into_iter().flatten().enumerate() {
        let at = path.index(i);
        if column.text("name").is_empty() {
            faults.required(&at.child("name"), "");
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        match column.text("type") {
            "" => faults.required(&at.child("type"), &types),
            kind if !COLUMN_TYPES.contains(&kind) => faults.invalid_str(&at.child("type"), kind, &types),
            _ => {}
        }
        let format = column.text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            faults.invalid_str(&at.child("format"), format, &format!("must be one of {}", COLUMN_FORMATS.join(",")));
        }
        match column.text("jsonPath") {
            "" => faults.required(&at.child("JSONPath"), ""),
            text => {
                simple_path(faults, &at.child("JSONPath"), text);
            }
        }
    }
}

fn selectable(faults: &mut Faults, path: &Path<'_>, fields: &[Value], schema: &Value) {
    let mut seen = HashSet::new();
    for (i, field) in fields.iter().enumerate() {
        let item = path.index(i);
        let at = item.child("jsonPath");
        let text = field.text("jsonPath");
        if text.is_empty() {
            faults.required(&at, "");
            continue;
        }
        match schema::field_at(schema, text, false) {
            Err(why) => faults.invalid_str(&at, text, &format!("is an invalid path: {why}")),
            Ok(found) => {
                if text.starts_with(".metadata") {
                    faults.invalid_str(&at, text, "must not point to fields in metadata");
                }
                if !matches!(found.text("type"), "string" | "boolean" | "integer") {
                    let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                                  formats are allowed.";
                    faults.invalid_str(&at, text, detail);
                }
                if !seen.insert(text) {
                    check::duplicate(faults, &at, text);
                }
            }
        }
    }
    if seen.len() > MAX_SELECTABLE {
        faults.too_many(path, seen.len(), MAX_SELECTABLE);
    }
}

fn conversion(faults: &mut Faults, path: &Path<'_>, found: &Value, open: bool) {
    if found.is_null() {
        return;
    }
    let strategy = found.text("strategy");
    if strategy != "None" && open {
        let detail = "must be None if spec.preserveUnknownFields is true";
        faults.invalid_str(&path.child("strategy"), strategy, detail);
    }
    check::required_one_of(faults, &path.child("strategy"), strategy, &["None", "Webhook"]);
    let (client_at, versions_at) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    let client = &found["webhook"]["clientConfig"];
    let versions: Vec<&str> = found["webhook"].texts("conversionReviewVersions").collect();
    if strategy != "Webhook" {
        if !client.is_null() {
            faults.forbidden(&client_at, "should not be set when strategy is not set to Webhook");
        }
        if !versions.is_empty() {
            faults.forbidden(&versions_at, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    if client.is_null() {
        faults.required(&client_at, "required when strategy is set to Webhook");
    } else {
        admission::client(faults, &client_at, client);
    }
    if versions.is_empty() {
        return faults.required(&versions_at, "");
    }
    let mut seen = HashSet::new();
    for (i, version) in versions.iter().enumerate() {
        let at = versions_at.index(i);
        if seen.insert(version) {
            check::invalid_each(faults, &at, version, names::dns1035_label(version));
        } else {
            faults.invalid_str(&at, version, "duplicate version");
        }
    }
    if !versions.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
        faults.invalid(&versions_at, &found["webhook"]["conversionReviewVersions"], "must include at least one of v1, v1beta1");
    }
}

fn stored_versions(faults: &mut Faults, path: &Path<'_>, object: &Value) {
    let stored = &object["status"]["storedVersions"];
    let all: Vec<&str> = object["status"].texts("storedVersions").collect();
    if all.is_empty() {
        return faults.invalid(path, stored, "must have at least one stored version");
    }
    let versions = object["spec"].list("versions");
    // A name is found once; a version of the same name behind it is missing.
    let mut left: HashSet<&str> = all.iter().copied().collect();
    for version in versions {
        if !left.remove(version.text("name")) && version.flag("storage") {
            faults.invalid(path, stored, &format!("must have the storage version {}", version.text("name")));
        }
    }
    for (i, name) in all.iter().enumerate() {
        if !versions.iter().any(|version| version.text("name") == *name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            faults.invalid_str(&path.index(i), name, &detail);
        }
    }
}

/// Groups of the Kubernetes community need the mark of a review.
fn approval(faults: &mut Faults, object: &Value, old: Option<&Value>) {
    let group = object["spec"].text("group");
    let owned = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let state = |object: &Value| {
        let text = object["metadata"]["annotations"].text(APPROVED);
        let address = text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
        match text {
            "" => "missing",
            text if text.starts_with("unapproved") => "bypassed",
            _ if address => "approved",
            _ => "invalid",
        }
    };
    if !owned || old.is_some_and(|old| state(old) == state(object)) {
        return;
    }
    let metadata = Path::new("metadata");
    let annotations = metadata.child("annotations");
    let at = annotations.key(APPROVED);
    match state(object) {
        "missing" => {
            faults.required(&at, &format!("protected groups must have approval annotation \"{APPROVED}\", {PULL_REQUEST}"));
        }
        "invalid" => {
            let detail = format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \
                 \"unapproved\", {PULL_REQUEST}"
            );
            faults.invalid_str(&at, object["metadata"]["annotations"].text(APPROVED), &detail);
        }
        _ => {}
    }
}

fn unknown_formats(object: &Value) -> Vec<String> {
    let shared = share(&object["spec"]);
    let mut found = schema::unknown_formats(&shared.schema["openAPIV3Schema"]);
    for version in &shared.versions {
        found.extend(schema::unknown_formats(&version["schema"]["openAPIV3Schema"]));
    }
    found
}
