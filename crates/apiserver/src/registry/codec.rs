//! Between bytes and documents: decoding bodies, converting between versions, encoding answers.

use bytes::Bytes;
use http::header;
use serde_json::Value;

use corten_api::facts::Types;
use corten_api::status::Status;
use corten_schema::decode::{self, DecodeError, Decoded, Format};

use super::options::Validation;
use super::target::{Target, join};
use super::write::Writing;
use crate::negotiate::{self, Encoding, Form};
use crate::pipeline::Call;

/// Brings a stored document into the version of the path.
pub(crate) fn from_stored(target: &Target, document: &mut Value) -> Result<(), Status> {
    if target.is_stored_form() {
        return Ok(());
    }
    convert(target, &target.stored_version(), &target.api_version(), document)
}

/// Brings a document of the path's version into the stored one.
pub(crate) fn to_stored(target: &Target, document: &mut Value) -> Result<(), Status> {
    if target.is_stored_form() {
        return Ok(());
    }
    convert(target, &target.api_version(), &target.stored_version(), document)
}

pub(crate) fn convert(_target: &Target, _from: &str, to: &str, document: &mut Value) -> Result<(), Status> {
    document["apiVersion"] = to.into();
    Ok(())
}

/// What a kind's encoder writes even into an empty object (bookmarks are such objects).
pub(crate) fn bare(target: &Target, object: &mut Value) {
    let Some(ty) = Types::get().named(&target.version().type_name) else {
        return;
    };
    let mut zero = decode::zero(ty);
    if let (Some(zero), Some(object)) = (zero.as_object_mut(), object.as_object_mut()) {
        for (key, value) in std::mem::take(zero) {
            object.entry(key).or_insert(value);
        }
    }
}

/// The type of a target's documents in the table of types; empty for custom resources.
pub(crate) fn type_of<'t>(target: &'t Target, subresource: &str) -> &'t str {
    match target.version().subresource(subresource) {
        Some(sub) => &sub.type_name,
        None => &target.version().type_name,
    }
}

/// What a body should be.
pub(crate) struct Expected<'t> {
    pub group: &'t str,
    pub version: &'t str,
    pub kind: &'t str,
    pub type_name: &'t str,
}

impl<'t> Expected<'t> {
    pub(crate) fn of(target: &'t Target, subresource: &str) -> Self {
        match target.version().subresource(subresource) {
            Some(sub) => Self { group: &sub.group, version: &sub.version, kind: &sub.kind, type_name: &sub.type_name },
            None => Self {
                group: &target.resource.group,
                version: &target.version().name,
                kind: &target.resource.kind,
                type_name: &target.version().type_name,
            },
        }
    }
}

/// Reads the body of a write as a document in the version of the path, or of its subresource.
pub(crate) fn decode_body(writing: &mut Writing<'_>, call: &Call, body: &[u8]) -> Result<Value, Status> {
    let subresource = writing.subresource.clone();
    let expected = Expected::of(writing.target, &subresource);
    decode_as(writing, &expected, call.header(header::CONTENT_TYPE), body)
}

/// Reads a body as a document of the expected kind. Missing kind and version are filled in, others are refused.
pub(crate) fn decode_as(
    writing: &mut Writing<'_>,
    expected: &Expected<'_>,
    content_type: &str,
    body: &[u8],
) -> Result<Value, Status> {
    let format = match negotiate::content_type(content_type)? {
        Encoding::Json => Format::Json,
        Encoding::Yaml => Format::Yaml,
        Encoding::Protobuf => return Err(Status::internal("protobuf")),
    };
    let kind = expected.kind;
    let meta = decode::type_meta(body, format).map_err(|err| unrecognized(kind, &err, body))?;
    let api_version = join(expected.group, expected.version);
    let given_kind = if meta.kind.is_empty() { kind } else { meta.kind.as_str() };
    let given_version = if meta.api_version.is_empty() { api_version.as_str() } else { meta.api_version.as_str() };
    if given_kind != kind || given_version != api_version {
        return Err(other_kind(writing, expected, given_kind, given_version));
    }
    let decoded = match Types::get().named(expected.type_name) {
        Some(ty) => decode::decode(body, format, ty),
        None => decode::decode_custom(body, format),
    };
    let cannot =
        |why: &str| Status::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {why}", expected.version));
    let decoded = decoded.map_err(|err| cannot(&err.to_string()))?;
    match writing.options.validation {
        Validation::Strict => {
            if let Some(fault) = decoded.strict_error() {
                return Err(cannot(&fault));
            }
        }
        Validation::Warn => warn_of_strict(writing, &decoded),
        Validation::Ignore => {}
    }
    let mut document = decoded.document;
    document["kind"] = kind.into();
    document["apiVersion"] = api_version.into();
    Ok(document)
}

/// One warning for each questionable field.
pub(crate) fn warn_of_strict(writing: &mut Writing<'_>, decoded: &Decoded) {
    for text in &decoded.strict {
        // YAML's faults come as one text with a heading.
        match text.strip_prefix("yaml: unmarshal errors:\n") {
            Some(lines) => lines.lines().for_each(|line| writing.warn(line.trim_start().to_owned())),
            None => writing.warn(text.clone()),
        }
    }
}

fn unrecognized(kind: &str, err: &DecodeError, body: &[u8]) -> Status {
    let shown = decode::summary(body);
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {err} ({shown})"))
}

/// Groups and versions that upstream can still read and nobody serves any more.
const RETIRED: [(&str, &str, &[&str]); 3] = [
    ("apps", "v1beta1", &["ControllerRevision", "Deployment", "StatefulSet", "Scale"]),
    ("apps", "v1beta2", &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet", "Scale"]),
    ("extensions", "v1beta1", &["DaemonSet", "Deployment", "Ingress", "NetworkPolicy", "ReplicaSet", "Scale"]),
];

/// Why a body of another kind is refused, in upstream's words: no such kind, another version of this kind, another kind.
fn other_kind(writing: &Writing<'_>, expected: &Expected<'_>, kind: &str, api_version: &str) -> Status {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let catalogue = writing.state.catalogue();
    let known = catalogue.kind(group, kind).is_some_and(|resource| resource.version(version).is_some())
        || RETIRED.iter().any(|(g, v, kinds)| *g == group && *v == version && kinds.contains(&kind));
    let wanted = expected.kind;
    if !known {
        return Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {wanted}: no kind {kind:?} is registered for version \
             {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        ));
    }
    if kind == wanted && group == expected.group {
        let expected = join(expected.group, expected.version);
        return Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        ));
    }
    let internal = match expected.group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    };
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {wanted}: converting ({version}.{kind}) to ({internal}.{wanted}): \
         unknown conversion"
    ))
}

/// Why a patch that changes kind or version is refused.
pub(crate) fn wrong_kind(writing: &Writing<'_>, document: &Value) -> Status {
    let expected = Expected::of(writing.target, &writing.subresource);
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    other_kind(writing, &expected, &text("kind"), &text("apiVersion"))
}

/// Reads the body of a deletion.
pub(crate) fn decode_delete_options(content_type: &str, body: &[u8]) -> Result<Value, Status> {
    let format = match negotiate::content_type(content_type)? {
        Encoding::Json => Format::Json,
        Encoding::Yaml => Format::Yaml,
        Encoding::Protobuf => return Err(Status::internal("protobuf")),
    };
    let bad = |err: DecodeError| Status::bad_request(err.to_string());
    let meta = decode::type_meta(body, format).map_err(bad)?;
    if !matches!(meta.kind.as_str(), "" | "DeleteOptions") {
        return Err(Status::bad_request(format!(
            "no kind {:?} is registered for version {:?} in scheme \
             \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
            meta.kind, meta.api_version
        )));
    }
    match Types::get().named("meta.v1.DeleteOptions") {
        Some(ty) => Ok(decode::decode(body, format, ty).map_err(bad)?.document),
        None => Ok(decode::decode_any(body, format).map_err(bad)?.document),
    }
}

/// A document as bytes.
pub(crate) fn encode(document: &Value, form: Form) -> Result<Bytes, Status> {
    negotiate::document(document, form)
}

/// The `Content-Type` of an encoded document.
pub(crate) fn content_type(_document: &Value, encoding: Encoding) -> &'static str {
    negotiate::content_type_of(encoding)
}

/// One event of a protobuf watch.
pub(crate) fn frame(_out: &mut Vec<u8>, _kind: &str, _object: &Value) -> Result<(), Status> {
    Err(Status::internal("protobuf"))
}
