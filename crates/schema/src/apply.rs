//! Server-side apply and field ownership (KEP-555), after the semantics of structured-merge-diff v6.
//!
//! Every write goes through one of two functions: [`apply`] merges a configuration into an object, and [`update`] only
//! notes who changed what. Both work on documents of the version of the request; other versions that managers have used
//! come in through [`Versions`].

use corten_api::facts::{Type, Types};
use corten_api::status::{Cause, Details, Status};
use jiff::Timestamp;
use serde_json::{Map, Value};

mod last_applied;
mod managers;
mod merge;
mod scale;
pub mod schema;
pub mod set;
mod text;
mod timestamps;
mod updater;
mod walk;

pub use scale::{scale_from_parent, scale_to_parent};
pub use schema::{BuiltIn, Schema, Shape};
pub use set::Set;
pub use timestamps::keep_times_when_nothing_changed;
pub use walk::{Comparison, compare};

use managers::{Id, Managers};

/// The manager of fields that were set before anything was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Metadata that nobody owns.
const UNOWNED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// The versions of a kind.
pub trait Versions {
    /// The shape of a document.
    type Schema: Schema;

    /// The shape of this version, such as `apps/v1`; nothing when it is not known any more.
    fn schema(&self, api_version: &str) -> Option<&Self::Schema>;

    /// The document in another version; nothing when it cannot be had.
    fn convert(&self, document: &Value, api_version: &str) -> Option<Value>;

    /// What an object of this version is before anything is set.
    fn empty(&self, api_version: &str) -> Value;
}

/// A built-in kind that has been known in one version only.
#[derive(Debug)]
pub struct OneVersion {
    api_version: String,
    kind: String,
    type_name: &'static str,
    schema: BuiltIn,
}

/// Who writes what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager; for updates without one, what the user agent says before the first slash.
    pub manager: &'a str,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource of the request, empty for none.
    pub subresource: &'a str,
    /// The time of the request.
    pub now: Timestamp,
    /// Fields that the request's (sub)resource does not change whatever the body says, and so does not own, with all below them:
    /// `status` for most resources, everything but `status` for their status.
    pub reset: Option<&'a Set>,
}

/// The body of an apply request.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is applied.
    pub document: Value,
    /// That keys are doubled, in upstream's words. Under strict field validation the request is refused with
    /// [`Config::strict_error`], but only after the apply itself has succeeded; otherwise it is a warning.
    pub doubled: Option<String>,
}

/// The outcome of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object with the configuration merged into it and its new managed fields. It has still to be normalized,
    /// defaulted and validated.
    pub document: Value,
    /// Whether anything but managed fields differs from the object as it was.
    pub changed: bool,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else owns fields that would change. 409.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration is not about this resource. 400.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the schema, or the object's managed fields cannot be read. 500.
    #[error("{0}")]
    Schema(String),
}

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, such as `"kubectl" using apps/v1`.
    pub manager: String,
    /// The field, such as `.spec.replicas`.
    pub field: String,
}

/// Notes who changed what in a create, an update or a patch. `live` is the object as it is, nothing on create; `new` is the
/// object as it will be, with the managed fields that the client sent. The result is `new` with its managed fields
/// replaced. Never fails: managed fields that cannot be read are started anew.
///
/// Unless the client sent them, the managed fields of the result are one text (see [`unfold`]), and so may be those of `live` and
/// `new`.
pub fn update<V: Versions>(versions: &V, live: Option<&Value>, mut new: Value, writer: &Writer<'_>) -> Value {
    let sent = take_entries(&mut new);
    let (managers, form) = starting_point(live, sent.as_ref(), writer.subresource);
    let exists = live.is_some_and(|live| live["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty()));
    if managers.owned.is_empty() && exists {
        // Nobody has tracked this object so far: tracking begins with its first apply.
        return new;
    }
    let id = Id::updater(writer.manager, writer.api_version, writer.subresource);
    let managers = updated(versions, live, &new, managers, &id, writer);
    put_entries(&mut new, &managers, form);
    new
}

/// Gives managed fields the form that the API knows. While a document is on its way to the store they may be one text, a
/// string in the place of the list, which costs nothing to carry along; nobody outside gets to see that.
pub fn unfold(document: &mut Value) {
    let Some(entries) = document.get_mut("metadata").and_then(|meta| meta.get_mut("managedFields")) else { return };
    if let Value::String(text) = entries {
        *entries = serde_json::from_str(text).expect("the text was written here or is a part of a document");
    }
}

/// Merges a configuration into an object. `live` is the object as it is, nothing when it does not exist yet.
///
/// # Errors
///
/// [`ApplyError`]; conflicts are no error when `force` is set: the fields change hands.
pub fn apply<V: Versions>(
    versions: &V,
    live: Option<&Value>,
    config: &Value,
    kind: &str,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    check_config(config, kind, writer)?;
    let empty = versions.empty(writer.api_version);
    let live = live.unwrap_or(&empty);
    let schema = versions
        .schema(writer.api_version)
        .ok_or_else(|| ApplyError::Schema(format!("no corresponding type for {}", shown_kind(writer.api_version, kind))))?;
    walk::check(schema, config).map_err(|faults| {
        let (namespace, name) = (text(&config["metadata"], "namespace"), text(&config["metadata"], "name"));
        let kind = shown_kind(text(config, "apiVersion"), text(config, "kind"));
        ApplyError::Schema(format!("failed to create typed patch object ({namespace}/{name}; {kind}): {faults}"))
    })?;
    let mut live = live.clone();
    let entries = take_entries(&mut live).unwrap_or_default();
    let mut managers =
        Managers::of(&entries).map_err(|err| ApplyError::Schema(format!("failed to decode managed fields: {err}")))?;
    if managers.owned.is_empty() {
        // Whoever made the object so far owns it from here on.
        let id = Id::updater(BEFORE_FIRST_APPLY, writer.api_version, writer.subresource);
        managers = updated(versions, None, &live, managers, &id, writer);
    }
    let id = Id::applier(writer.manager, writer.subresource);
    let attempt = |force: bool| updater::apply(versions, &live, config, managers.clone(), &id, writer, force);
    let outcome = match attempt(force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == "kubectl" => {
            last_applied::resolve(schema, &live, conflicts, writer.api_version).map_or_else(|| attempt(true), Err)
        }
        other => other,
    };
    let (merged, mut managers) = outcome?;
    let changed = merged.is_some();
    if changed {
        managers.times.insert(id, writer.now);
    }
    let mut document = merged.unwrap_or(live);
    if writer.manager == "kubectl" {
        last_applied::refresh(&mut document, config);
    }
    put_entries(&mut document, &managers, Form::List);
    Ok(Applied { document, changed })
}

/// Merges what an admission policy sets into an object; nobody comes to own anything by it. What is owned as a whole may not be
/// set, so that nothing is lost that the policy does not name.
///
/// # Errors
///
/// Why not, in upstream's words.
pub fn merge_patch(ty: &corten_api::facts::Type, live: &Value, patch: &Value) -> Result<Value, String> {
    let schema = BuiltIn::new(ty);
    walk::check(&schema, patch).map_err(|faults| format!("failed to convert patch object to typed object: {faults}"))?;
    let atomic = walk::atomics(&schema, patch);
    if !atomic.is_empty() {
        let paths = atomic.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"));
    }
    Ok(merge::merge(&schema, live, patch))
}

/// Notes an update by `id` in the managers of an object.
fn updated<V: Versions>(
    versions: &V,
    live: Option<&Value>,
    new: &Value,
    managers: Managers,
    id: &Id,
    writer: &Writer<'_>,
) -> Managers {
    let empty;
    let live = match live {
        Some(live) => live,
        None => {
            empty = versions.empty(writer.api_version);
            &empty
        }
    };
    let mut managers = updater::update(versions, live, new, managers, id, writer);
    managers.cap();
    managers
}

/// How managed fields are written.
#[derive(Clone, Copy)]
enum Form {
    List,
    Text,
}

/// The managers that an update starts from: those the client sent, unless it sent none or they cannot be read; none at all
/// when it sent an empty list, or a list of one empty entry. What a client sent has still to be validated, and stays a list.
fn starting_point(live: Option<&Value>, sent: Option<&Value>, subresource: &str) -> (Managers, Form) {
    let of_live = || {
        let entries = live.map(|live| &live["metadata"]["managedFields"]);
        (entries.and_then(|entries| Managers::of(entries).ok()).unwrap_or_default(), Form::Text)
    };
    let Some(sent) = sent.filter(|_| subresource.is_empty()) else { return of_live() };
    let is_reset = match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    };
    if is_reset {
        return (Managers::default(), Form::Text);
    }
    match Managers::of(sent) {
        Ok(managers) if !managers.owned.is_empty() => (managers, if sent.is_string() { Form::Text } else { Form::List }),
        _ => of_live(),
    }
}

fn check_config(config: &Value, kind: &str, writer: &Writer<'_>) -> Result<(), ApplyError> {
    let (api_version, found) = (text(config, "apiVersion"), text(config, "kind"));
    if api_version != writer.api_version || found != kind {
        let shown = shown_kind(api_version, found);
        return Err(ApplyError::BadRequest(format!("invalid object type: {shown}")));
    }
    if config["metadata"].get("managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    Ok(())
}

/// `apps/v1, Kind=Deployment`; the core group shows as `/v1`.
///
/// What is no group and version names no kind.
fn shown_kind(api_version: &str, kind: &str) -> String {
    if api_version.split('/').count() > 2 {
        return "/, Kind=".into();
    }
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

fn take_entries(document: &mut Value) -> Option<Value> {
    let entries = document.get_mut("metadata")?.as_object_mut()?.remove("managedFields")?;
    (entries.is_array() || entries.is_string()).then_some(entries)
}

fn put_entries(document: &mut Value, managers: &Managers, form: Form) {
    let Some(document) = document.as_object_mut().filter(|_| !managers.owned.is_empty()) else { return };
    let meta = document.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(meta) = meta.as_object_mut() {
        let entries = match form {
            Form::List => managers.write().into(),
            Form::Text => managers.write_text().into(),
        };
        meta.insert("managedFields".into(), entries);
    }
}

fn text<'v>(document: &'v Value, name: &str) -> &'v str {
    document[name].as_str().unwrap_or_default()
}

// === impl Config ===

impl Config {
    /// Reads a body, which is YAML and so may be JSON.
    ///
    /// # Errors
    ///
    /// [`ApplyError::BadRequest`] when it is neither, or no object.
    pub fn read(bytes: &[u8]) -> Result<Self, ApplyError> {
        use crate::decode::{Format, decode_any, yaml_to_json};
        let bad = |text: String| ApplyError::BadRequest(format!("error decoding YAML: {text}"));
        let converted = yaml_to_json(bytes).map_err(|err| bad(format!("error converting YAML to JSON: {err}")))?;
        let decoded = decode_any(&converted.json, Format::Json).map_err(|err| bad(err.to_string()))?;
        let kind = match &decoded.document {
            Value::Object(_) | Value::Null => None,
            Value::Array(_) => Some("array"),
            Value::String(_) => Some("string"),
            Value::Bool(_) => Some("bool"),
            Value::Number(_) => Some("number"),
        };
        if let Some(kind) = kind {
            let text = format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}");
            return Err(bad(format!("error unmarshaling JSON: while decoding JSON: {text}")));
        }
        let document = if decoded.document.is_null() { Value::Object(Map::new()) } else { decoded.document };
        let doubled = converted.duplicates.map(|text| format!("error converting YAML to JSON: {text}"));
        Ok(Self { document, doubled })
    }

    /// The refusal of doubled keys under strict field validation.
    #[must_use]
    pub fn strict_error(&self) -> Option<ApplyError> {
        self.doubled.as_ref().map(|text| ApplyError::BadRequest(format!("error strict decoding YAML: {text}")))
    }
}

// === impl OneVersion ===

impl OneVersion {
    /// The kind of this type; `api_version` is such as `apps/v1`.
    #[must_use]
    pub fn new(api_version: &str, ty: &Type) -> Self {
        let (api_version, kind) = (api_version.into(), ty.short_name().into());
        Self { api_version, kind, type_name: ty.name, schema: BuiltIn::new(ty) }
    }
}

impl Versions for OneVersion {
    type Schema = BuiltIn;

    fn schema(&self, api_version: &str) -> Option<&BuiltIn> {
        (api_version == self.api_version).then_some(&self.schema)
    }

    fn convert(&self, document: &Value, api_version: &str) -> Option<Value> {
        (api_version == self.api_version).then(|| document.clone())
    }

    fn empty(&self, api_version: &str) -> Value {
        let mut document = Types::get().named(self.type_name).map(crate::decode::zero).unwrap_or_default();
        if let Some(map) = document.as_object_mut() {
            map.insert("apiVersion".into(), api_version.into());
            map.insert("kind".into(), self.kind.as_str().into());
        }
        document
    }
}

// === impl Writer ===

impl Writer<'_> {
    /// What of `set` this write may change.
    fn filter(&self, set: Set) -> Set {
        match self.reset {
            Some(reset) => set.recursive_difference(reset),
            None => set,
        }
    }
}

// === impl ApplyError ===

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.field);
    }
    let mut lines = Vec::new();
    let mut managers: Vec<&str> = conflicts.iter().map(|conflict| conflict.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        let theirs = conflicts.iter().filter(|conflict| conflict.manager == manager);
        lines.extend(theirs.map(|conflict| format!("- {}", conflict.field)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

impl From<ApplyError> for Status {
    fn from(err: ApplyError) -> Self {
        let message = err.to_string();
        match err {
            ApplyError::Conflicts(conflicts) => {
                let cause = |conflict: Conflict| Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {}", conflict.manager),
                    field: conflict.field,
                };
                let causes = conflicts.into_iter().map(cause).collect();
                let details = Some(Details { causes, ..Details::default() });
                Self { details, ..Self::failure(409, "Conflict", message) }
            }
            ApplyError::BadRequest(_) => Self::bad_request(message),
            ApplyError::Schema(_) => Self::failure(500, "", message),
        }
    }
}

#[cfg(test)]
mod tests;
