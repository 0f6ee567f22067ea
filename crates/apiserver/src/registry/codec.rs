//! Between bytes and documents: decoding bodies, converting between versions, encoding answers.

mod kinds;

pub(crate) use kinds::{internal_group, known_type, known_versions, why_other_kind, wrong_kind};
use kinds::{known_type_of, other_kind};

use bytes::Bytes;
use http::header;
use serde_json::{Value, json};

use corten_api::catalogue::Resource;
use corten_api::facts::{Type, Types};
use corten_api::status::Status;
use corten_kinds::Strategy;
use corten_schema::decode::{self, DecodeError, Decoded, Format, TypeMeta};
use corten_schema::proto;

use super::options::Validation;
use super::target::{Target, join};
use super::write::Writing;
use crate::cache::Entry;
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

pub(crate) fn convert(target: &Target, from: &str, to: &str, document: &mut Value) -> Result<(), Status> {
    corten_kinds::convert(&target.resource.group, &target.resource.plural, from, to, document);
    document["apiVersion"] = to.into();
    Ok(())
}

/// An object of which nothing is set but `metadata`, in the stored form, with what the kind's encoder writes even then. Bookmarks
/// are such objects.
pub(crate) fn empty(resource: &Resource, strategy: Option<&dyn Strategy>, metadata: Value) -> Value {
    let version = join(&resource.storage.group, &resource.storage.version);
    let mut object = known_type_of(&version, &resource.kind).map_or_else(|| json!({}), decode::zero);
    object["kind"] = resource.kind.as_str().into();
    object["apiVersion"] = version.into();
    object["metadata"] = metadata;
    if let Some(strategy) = strategy {
        strategy.complete_empty(&mut object);
    }
    object
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

/// [`decode_body`] of an object that is to be stored: empty lists are kept until [`settle`].
pub(crate) fn decode_object(writing: &mut Writing<'_>, call: &Call, body: &[u8]) -> Result<Value, Status> {
    let subresource = writing.subresource.clone();
    let expected = Expected::of(writing.target, &subresource);
    decode_whole(writing, &expected, call.header(header::CONTENT_TYPE), body, true)
}

/// Gives empty lists the form they have once stored.
pub(crate) fn settle(target: &Target, document: &mut Value) {
    let version = target.stored.version(&target.resource.storage.version);
    if let Some(ty) = version.and_then(|version| Types::get().named(&version.type_name)) {
        decode::settle(document, ty);
    }
}

/// Reads a body as a document of the expected kind. Missing kind and version are filled in, others are refused.
pub(crate) fn decode_as(
    writing: &mut Writing<'_>,
    expected: &Expected<'_>,
    content_type: &str,
    body: &[u8],
) -> Result<Value, Status> {
    decode_whole(writing, expected, content_type, body, false)
}

fn decode_whole(
    writing: &mut Writing<'_>,
    expected: &Expected<'_>,
    content_type: &str,
    body: &[u8],
    as_sent: bool,
) -> Result<Value, Status> {
    let kind = expected.kind;
    let encoding = negotiate::content_type(content_type)?;
    let api_version = join(expected.group, expected.version);
    let decoded = read(body, encoding, Types::get().named(expected.type_name), as_sent);
    // A body that says of itself what it is needs no look for that. All others get it first, so that faults are told in its words.
    let says = |decoded: &Decoded| {
        decoded.strict.is_empty() && decoded.document["kind"] == kind && decoded.document["apiVersion"] == *api_version
    };
    if !decoded.as_ref().is_ok_and(says) {
        let meta = type_meta(body, encoding).map_err(|why| unrecognized(kind, &why, body))?;
        if meta.api_version.split('/').count() > 2 {
            let why = format!("unexpected GroupVersion string: {}", meta.api_version);
            return Err(unrecognized(kind, &why, body));
        }
        let given_kind = if meta.kind.is_empty() { kind } else { meta.kind.as_str() };
        let given_version = if meta.api_version.is_empty() { api_version.as_str() } else { meta.api_version.as_str() };
        if given_kind != kind || given_version != api_version {
            // It is read as what it says it is, and only then found to be something else.
            let (_, version) = given_version.split_once('/').unwrap_or(("", given_version));
            let given = known_type(&writing.state.catalogue(), given_version, given_kind);
            if let Some(Err(why)) = given.map(|given| read(body, encoding, Some(given), false)) {
                let why = format!("{given_kind} in version {version:?} cannot be handled as a {kind}: {why}");
                return Err(Status::bad_request(why));
            }
            return Err(other_kind(writing, expected, given_kind, given_version));
        }
    }
    let cannot =
        |why: &str| Status::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {why}", expected.version));
    let decoded = decoded.map_err(|why| cannot(&why))?;
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
    if let Some(trail) = writing.trail {
        // What is recorded has its defaults, which are filled in later here.
        let is_main = expected.kind == writing.target.resource.kind && writing.target.is_stored_form();
        let defaulted = (is_main && trail.wants_request()).then(|| {
            let mut document = document.clone();
            writing.default(&mut document);
            document
        });
        trail.request_object(defaulted.as_ref().unwrap_or(&document));
    }
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

fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Status {
    let shown = decode::summary(body);
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown})"))
}

/// The version that a body says it has; empty when it says nothing or cannot be read.
pub(crate) fn version_of(content_type: &str, body: &[u8]) -> String {
    let encoding = negotiate::content_type(content_type).ok();
    encoding.and_then(|encoding| type_meta(body, encoding).ok()).map(|meta| meta.api_version).unwrap_or_default()
}

/// Kind and version of a body.
fn type_meta(body: &[u8], encoding: Encoding) -> Result<TypeMeta, String> {
    match encoding {
        Encoding::Json => decode::type_meta(body, Format::Json).map_err(|err| err.to_string()),
        Encoding::Yaml => decode::type_meta(body, Format::Yaml).map_err(|err| err.to_string()),
        Encoding::Protobuf => {
            let envelope = proto::open(body).map_err(|err| err.to_string())?;
            Ok(TypeMeta { api_version: envelope.api_version, kind: envelope.kind })
        }
    }
}

/// A body as a document of a type, or of a custom resource when there is none.
fn read(body: &[u8], encoding: Encoding, ty: Option<&Type>, as_sent: bool) -> Result<Decoded, String> {
    let text = |err: DecodeError| err.to_string();
    match (encoding, ty) {
        (Encoding::Json, Some(ty)) if as_sent => decode::decode_as_sent(body, Format::Json, ty).map_err(text),
        (Encoding::Yaml, Some(ty)) if as_sent => decode::decode_as_sent(body, Format::Yaml, ty).map_err(text),
        (Encoding::Json, Some(ty)) => decode::decode(body, Format::Json, ty).map_err(text),
        (Encoding::Json, None) => decode::decode_custom(body, Format::Json).map_err(text),
        (Encoding::Yaml, Some(ty)) => decode::decode(body, Format::Yaml, ty).map_err(text),
        (Encoding::Yaml, None) => decode::decode_custom(body, Format::Yaml).map_err(text),
        (Encoding::Protobuf, Some(ty)) => {
            let envelope = proto::open(body).map_err(|err| err.to_string())?;
            let document = proto::decode(envelope.raw, ty).map_err(|err| err.to_string())?;
            Ok(Decoded { document, strict: Vec::new() })
        }
        (Encoding::Protobuf, None) => Err("the kind has no protobuf form".into()),
    }
}

/// Kinds of `v1` that are the same in all versions, and so are known wherever anything is.
const WITHOUT_VERSION: [&str; 5] = ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"];

/// Reads the body of a deletion.
pub(crate) fn decode_delete_options(content_type: &str, body: &[u8]) -> Result<Value, Status> {
    let encoding = negotiate::content_type(content_type)?;
    let meta = type_meta(body, encoding).map_err(Status::bad_request)?;
    if meta.api_version.matches('/').count() > 1 {
        return Err(Status::bad_request(format!("unexpected GroupVersion string: {}", meta.api_version)));
    }
    if !matches!(meta.kind.as_str(), "" | "DeleteOptions") {
        let version = if meta.api_version.is_empty() { "meta.k8s.io/v1" } else { &meta.api_version };
        let (kind, version_shown) = (corten_api::field::quoted(&meta.kind), corten_api::field::quoted(version));
        let why = if version == "v1" && WITHOUT_VERSION.contains(&meta.kind.as_str()) {
            format!("converting (v1.{}) to (v1.DeleteOptions): unknown conversion", meta.kind)
        } else {
            format!(
                "no kind {kind} is registered for version {version_shown} in scheme \
                 \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
            )
        };
        return Err(Status::bad_request(why));
    }
    let ty = Types::get().named("meta.v1.DeleteOptions");
    Ok(read(body, encoding, ty, false).map_err(Status::bad_request)?.document)
}

/// The type of a document that a target answers with: its kind, its list, a subresource's kind, or one of `meta.k8s.io`.
fn type_of_answer(target: Option<&Target>, document: &Value) -> Option<&'static Type> {
    let kind = document["kind"].as_str()?;
    let types = Types::get();
    if document["apiVersion"].as_str().is_some_and(|version| version.starts_with("meta.k8s.io/")) || kind == "Status" {
        return types.named(&format!("meta.v1.{kind}"));
    }
    let target = target?;
    let version = target.version();
    if kind == target.resource.kind {
        return types.named(&version.type_name);
    }
    if kind == target.resource.list_kind {
        return types.named(&format!("{}List", version.type_name));
    }
    let sub = version.subresources.iter().find(|sub| sub.kind == kind)?;
    types.named(&sub.type_name)
}

/// A document as bytes, and their content type. What has no protobuf form is sent as JSON.
pub(crate) fn encode(target: Option<&Target>, document: &Value, form: Form) -> Result<(Bytes, &'static str), Status> {
    let encoding = match form.encoding {
        Encoding::Protobuf => match type_of_answer(target, document).filter(|ty| ty.name != "meta.v1.Table") {
            Some(ty) => {
                let is_old = document["apiVersion"] == "meta.k8s.io/v1beta1" && document["kind"] == "PartialObjectMetadataList";
                let bytes = if is_old { proto::encode_old_partial_list(document) } else { proto::encode_object(document, ty) };
                return Ok((bytes.into(), negotiate::content_type_of(Encoding::Protobuf)));
            }
            None => Encoding::Json,
        },
        encoding => encoding,
    };
    let bytes = negotiate::document(document, Form { encoding, ..form })?;
    Ok((bytes, negotiate::content_type_of(encoding)))
}

/// A list of entries in protobuf, for a kind that has that form.
pub(crate) fn encode_list<'e>(
    target: &Target,
    metadata: &Value,
    entries: impl Iterator<Item = &'e Entry>,
) -> Option<Result<Bytes, Status>> {
    let ty = Types::get().named(&target.version().type_name)?;
    let messages: Result<Vec<Vec<u8>>, Status> = entries
        .map(|entry| {
            let mut document = entry.decode();
            from_stored(target, &mut document)?;
            Ok(proto::encode(&document, ty))
        })
        .collect();
    let empty = serde_json::Map::new();
    let metadata = metadata.as_object().unwrap_or(&empty);
    Some(messages.map(|messages| {
        let items = messages.iter().map(Vec::as_slice);
        proto::encode_list(&target.api_version(), &target.resource.list_kind, metadata, items).into()
    }))
}

/// One event of a protobuf watch.
pub(crate) fn frame(target: &Target, out: &mut Vec<u8>, kind: &str, object: &Value) -> Result<(), Status> {
    let sealed = match type_of_answer(Some(target), object).filter(|ty| ty.name != "meta.v1.Table") {
        Some(ty) => proto::encode_object(object, ty),
        None => return Err(Status::internal("the kind has no protobuf form")),
    };
    out.extend_from_slice(&proto::watch_frame(kind, &sealed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use corten_api::catalogue::Catalogue;

    use super::*;

    #[test]
    fn an_empty_object_has_what_the_encoder_always_writes() {
        let empty = |group: &str, plural: &str, kind: &str| {
            let resource = Catalogue::builtin().kind(group, kind).expect("the kind is built in");
            empty(resource, corten_kinds::strategy(group, plural), json!({"resourceVersion": "7"}))
        };
        let deployment = empty("apps", "deployments", "Deployment");
        let template = json!({"metadata": {}, "spec": {"containers": null}});
        assert_eq!(deployment["spec"], json!({"replicas": 0, "selector": null, "strategy": {}, "template": template}));
        assert_eq!((&deployment["status"], &deployment["apiVersion"]), (&json!({}), &json!("apps/v1")));
        // A controller of the first version holds its replicas as a pointer inside as well.
        let controller = empty("", "replicationcontrollers", "ReplicationController");
        assert_eq!((&controller["spec"], &controller["status"]), (&json!({}), &json!({"replicas": 0})));
        let annotations = &empty("apps", "daemonsets", "DaemonSet")["metadata"]["annotations"];
        assert_eq!(annotations, &json!({"deprecated.daemonset.template.generation": "0"}));
        assert_eq!(empty("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler")["apiVersion"], "autoscaling/v2");
    }
}
