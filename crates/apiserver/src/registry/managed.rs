//! Managed fields: who owns which field, kept for every write; and server-side apply, which goes by them. The rules are
//! `corten_schema`'s; here they meet the versions of a kind and the endpoint of a request.

use corten_api::facts::Types;
use corten_api::status::Status;
use corten_schema::apply::{self, BuiltIn, Set, Versions, Writer};
use corten_schema::decode::{self, DecodeError, Decoded, Format};
use serde_json::{Value, json};

use super::codec;
use super::options::Validation;
use super::target::{Target, join};
use super::write::{self, Writing, meta_text, metadata};

pub(crate) use corten_schema::apply::keep_times_when_nothing_changed as keep_times;

/// The versions of a target's kind, as ownership needs them.
struct Kind<'t> {
    target: &'t Target,
    versions: Vec<(String, BuiltIn, &'t str)>,
}

impl<'t> Kind<'t> {
    fn of(target: &'t Target) -> Self {
        let known = target.resource.versions.iter().filter_map(|version| {
            let ty = Types::get().named(&version.type_name)?;
            Some((join(&target.resource.group, &version.name), BuiltIn::new(ty), version.type_name.as_str()))
        });
        Self { target, versions: known.collect() }
    }
}

impl Versions for Kind<'_> {
    type Schema = BuiltIn;

    fn schema(&self, api_version: &str) -> Option<&BuiltIn> {
        self.versions.iter().find(|(version, ..)| version == api_version).map(|(_, schema, _)| schema)
    }

    fn convert(&self, document: &Value, api_version: &str) -> Option<Value> {
        self.schema(api_version)?;
        let from = document["apiVersion"].as_str().unwrap_or_default();
        let mut document = document.clone();
        if from != api_version {
            codec::convert(self.target, from, api_version, &mut document).ok()?;
        }
        Some(document)
    }

    fn empty(&self, api_version: &str) -> Value {
        let ty =
            self.versions.iter().find(|(version, ..)| version == api_version).and_then(|(_, _, name)| Types::get().named(name));
        let mut document = ty.map_or_else(|| json!({}), decode::zero);
        document["apiVersion"] = api_version.into();
        document["kind"] = self.target.resource.kind.as_str().into();
        document
    }
}

/// What the endpoint of a write lets nobody own.
fn reset(writing: &Writing<'_>) -> Option<Set> {
    let target = writing.target;
    let subresource = match writing.subresource.as_str() {
        // Upstream builds this one on the strategy of the object itself. What `ephemeralcontainers` and `resize` do not change
        // is owned nevertheless: nothing says what they reset.
        "finalize" => "",
        subresource => subresource,
    };
    let paths = corten_kinds::reset_fields(&target.stored.group, &target.stored.plural, subresource);
    (!paths.is_empty()).then(|| Set::of(paths))
}

/// Records what this write changed under its manager's name. `old` and `document` are in the stored form; the managed fields of
/// `document` may be one text afterwards: see [`apply::unfold`].
pub(crate) fn track(writing: &Writing<'_>, old: Option<&Value>, document: &mut Value) -> Result<(), Status> {
    let target = writing.target;
    if target.resource.custom {
        return Ok(());
    }
    let kind = Kind::of(target);
    let api_version = target.api_version();
    let reset = reset(writing);
    let writer = writer(writing, &api_version, reset.as_ref());
    if target.is_stored_form() && !decode::has_empty_list(document) {
        *document = apply::update(&kind, old, document.take(), &writer);
        return Ok(());
    }
    let mut live = old.cloned();
    if let Some(live) = &mut live {
        codec::from_stored(target, live)?;
    }
    let mut new = document.clone();
    codec::from_stored(target, &mut new)?;
    if let Some(ty) = Types::get().named(&target.version().type_name) {
        decode::drop_unwritten(&mut new, ty);
    }
    let mut new = apply::update(&kind, live.as_ref(), new, &writer);
    let entries = new["metadata"]["managedFields"].take();
    let meta = metadata(document);
    if entries.is_null() {
        meta.remove("managedFields")
    } else {
        meta.insert("managedFields".into(), entries)
    };
    Ok(())
}

/// Records who made a document that is posted to a subresource and has a type of its own.
pub(crate) fn track_posted(writing: &Writing<'_>, expected: &codec::Expected<'_>, document: &mut Value) {
    let Some(ty) = Types::get().named(expected.type_name) else {
        return;
    };
    let api_version = join(expected.group, expected.version);
    let versions = apply::OneVersion::new(&api_version, ty);
    let writer = writer(writing, &api_version, None);
    *document = apply::update(&versions, None, document.take(), &writer);
    apply::unfold(document);
}

/// A configuration to be applied.
pub(crate) struct Configuration {
    pub document: Value,
    /// Questionable fields. They are told of only once the configuration has been applied.
    strict: Decoded,
}

impl Configuration {
    /// Reads the body of an apply request.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Status> {
        let refused = |err: DecodeError| match err {
            DecodeError::Yaml(_) => Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {err}")),
            err => Status::bad_request(format!("error decoding YAML: {err}")),
        };
        let mut decoded = decode::decode_any(body, Format::Yaml).map_err(refused)?;
        let document = decoded.document.take();
        let kind = match &document {
            Value::Object(_) => return Ok(Self { document, strict: decoded }),
            Value::Null => return Ok(Self { document: json!({}), strict: decoded }),
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
        };
        let why = format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}");
        Err(Status::bad_request(format!("error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}")))
    }

    /// What remains to be checked once it has been applied: questionable fields, then name and namespace.
    pub(crate) fn check(&self, writing: &mut Writing<'_>, merged: &Value, name: &str) -> Result<(), Status> {
        match writing.options.validation {
            Validation::Strict if !self.strict.strict.is_empty() => {
                let faults = self.strict.strict.join(", ");
                let why = format!("error strict decoding YAML: error converting YAML to JSON: {faults}");
                return Err(Status::bad_request(why));
            }
            Validation::Warn => codec::warn_of_strict(writing, &self.strict),
            _ => {}
        }
        // A configuration may leave both out where the object is there.
        write::check_place(writing, merged, name)
    }
}

/// The state that results from applying a configuration to the live object, both in the version of the path.
pub(crate) fn apply(writing: &mut Writing<'_>, live: Option<&Value>, applied: &Value, force: bool) -> Result<Value, Status> {
    let target = writing.target;
    let kind = Kind::of(target);
    let api_version = target.api_version();
    let reset = reset(writing);
    let writer = writer(writing, &api_version, reset.as_ref());
    let outcome = apply::apply(&kind, live, applied, &target.resource.kind, &writer, force)?;
    let mut merged = outcome.document;
    let decoded = match Types::get().named(&target.version().type_name) {
        Some(ty) => decode::normalize_as_sent(&merged, ty).or_else(|_| {
            decode::convert(&mut merged, ty)?;
            decode::normalize_as_sent(&merged, ty)
        }),
        None => decode::normalize_custom(&merged),
    };
    let mut decoded = decoded.map_err(|err| not_converted(applied, &err))?;
    decoded.document["kind"] = target.resource.kind.as_str().into();
    decoded.document["apiVersion"] = api_version.into();
    Ok(decoded.document)
}

/// What was merged does not fit into the type of its kind. Upstream's converter, which is not the decoder of requests, says so.
fn not_converted(applied: &Value, err: &DecodeError) -> Status {
    let (namespace, name) = (meta_text(applied, "namespace"), meta_text(applied, "name"));
    let (api_version, kind) = (applied["apiVersion"].as_str().unwrap_or_default(), applied["kind"].as_str().unwrap_or_default());
    let slash = if api_version.contains('/') { "" } else { "/" };
    let shown = format!("{slash}{api_version}, Kind={kind}");
    let why = err.converted();
    let what = format!("failed to convert new object ({namespace}/{name}; {shown}) to proper version");
    Status::failure(500, "", format!("{what}: unable to convert unstructured object to {shown}: {why}"))
}

/// A Scale that was applied, and what becomes of the managed fields of the object it scales.
pub(crate) struct AppliedScale {
    pub scale: Value,
    pub managed_fields: Value,
}

/// Applies a configuration to the Scale of an object. Who owns the replicas is recorded with the object.
pub(crate) fn apply_scale(
    writing: &Writing<'_>,
    object: &Value,
    scale: &Value,
    applied: &Value,
    force: bool,
) -> Result<AppliedScale, Status> {
    let versions = versions_of_scale()?;
    let parent = entries_of(object);
    let mut live = scale.clone();
    live["metadata"]["managedFields"] = apply::scale_from_parent(&parent, REPLICAS).into();
    let outcome = apply::apply(&versions, Some(&live), applied, "Scale", &writer(writing, SCALE, None), force)?;
    Ok(scale_of(writing, &parent, outcome.document))
}

/// Records who changed the Scale of an object from what it was (`live`) to what it will be.
pub(crate) fn track_scale(writing: &Writing<'_>, object: &Value, live: &Value, scale: Value) -> Result<AppliedScale, Status> {
    let versions = versions_of_scale()?;
    let parent = entries_of(object);
    let mut live = live.clone();
    live["metadata"]["managedFields"] = apply::scale_from_parent(&parent, REPLICAS).into();
    let mut scale = apply::update(&versions, Some(&live), scale, &writer(writing, SCALE, None));
    apply::unfold(&mut scale);
    Ok(scale_of(writing, &parent, scale))
}

/// Where the number of replicas is, in a Scale and in all that it scales.
const REPLICAS: &[&str] = &["spec", "replicas"];

/// The version of Scale.
const SCALE: &str = "autoscaling/v1";

fn versions_of_scale() -> Result<apply::OneVersion, Status> {
    let ty = Types::get().named("autoscaling.v1.Scale").ok_or_else(|| Status::internal("the type of Scale is unknown"))?;
    Ok(apply::OneVersion::new(SCALE, ty))
}

/// Who writes, with what the (sub)resource does not change.
fn writer<'w>(writing: &'w Writing<'_>, api_version: &'w str, reset: Option<&'w Set>) -> Writer<'w> {
    Writer { manager: &writing.manager, api_version, subresource: &writing.subresource, now: writing.now, reset }
}

fn entries_of(document: &Value) -> Vec<Value> {
    document["metadata"]["managedFields"].as_array().cloned().unwrap_or_default()
}

fn scale_of(writing: &Writing<'_>, parent: &[Value], scale: Value) -> AppliedScale {
    let managed_fields = apply::scale_to_parent(parent, &entries_of(&scale), &writing.target.api_version(), REPLICAS);
    AppliedScale { scale, managed_fields: managed_fields.into() }
}
