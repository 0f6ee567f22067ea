//! What is fuzzed: one function for each thing that reads bytes from outside. None may panic, hang or grow without bound, and
//! what they read must come back the same when it is written and read again. The fuzz targets and the tests share this file.

use corten_api::facts::{Type, Types};
use corten_api::selector::{FieldSelector, LabelSelector};
use corten_apiserver::registry::probe;
use corten_apiserver::request::{Query, RequestInfo};
use corten_schema::decode::{self, FieldValidation, Format};
use corten_schema::encode;
use corten_schema::patch::{Patch, PatchKind};
use corten_schema::proto;
use serde_json::Value;

/// Types with all that a type can have: lists of every kind, maps, quantities, times, raw values, deep nesting.
const TYPES: [&str; 8] = [
    "core.v1.Pod",
    "core.v1.ConfigMap",
    "core.v1.Secret",
    "apps.v1.Deployment",
    "batch.v1.CronJob",
    "networking.v1.Ingress",
    "autoscaling.v2.HorizontalPodAutoscaler",
    "meta.v1.DeleteOptions",
];

/// Types by the first byte; none is a custom resource.
fn chosen(byte: u8) -> Option<&'static Type> {
    let name = TYPES.get(usize::from(byte) % (TYPES.len() + 1))?;
    Some(Types::get().named(name).expect("the table has the types named here"))
}

/// The body of a write: its type, then its format, then the text.
pub fn body(data: &[u8]) {
    let [ty, format, text @ ..] = data else { return };
    let format = if format % 2 == 0 { Format::Json } else { Format::Yaml };
    let _ = decode::type_meta(text, format);
    let _ = decode::summary(text);
    let _ = decode::decode_any(text, format);
    let ty = chosen(*ty);
    let read = |text: &[u8], format| match ty {
        Some(ty) => decode::decode(text, format, ty),
        None => decode::decode_custom(text, format),
    };
    let Ok(decoded) = read(text, format) else { return };
    let _ = decoded.strict_error();
    let written = encode::json(&decoded.document);
    let again = read(&written, Format::Json).expect("what was written can be read");
    assert_eq!(again.document, decoded.document, "a document changes on its way");
}

/// A patch: its type, its kind, the object and the patch, with a NUL between.
pub fn patch(data: &[u8]) {
    let [ty, kind, rest @ ..] = data else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let (Some(object), Some(body)) = (parts.next(), parts.next()) else { return };
    let kind = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic][usize::from(kind % 3)];
    let ty = chosen(*ty);
    let Ok(patch) = Patch::read(kind, body, FieldValidation::Strict) else { return };
    let live = match ty {
        Some(ty) => decode::decode(object, Format::Json, ty),
        None => decode::decode_custom(object, Format::Json),
    };
    let Ok(live) = live else { return };
    let Ok(patched) = patch.apply(&live.document, ty) else { return };
    if let Some(ty) = ty {
        let _ = decode::normalize_changed(&live.document, &patched, ty);
        let _ = decode::normalize_as_sent(&patched, ty);
    }
    if kind == PatchKind::Merge {
        let again = patch.apply(&patched, ty).expect("a merge patch fits what it made");
        assert_eq!(again, patched, "a merge patch does more when it is applied twice");
    }
}

/// A protobuf body: its type, then the envelope.
pub fn protobuf(data: &[u8]) {
    let [ty, sealed @ ..] = data else { return };
    let Some(ty) = chosen(*ty) else { return };
    let _ = proto::decode(sealed, ty);
    let Ok(envelope) = proto::open(sealed) else { return };
    let Ok(document) = proto::decode(envelope.raw, ty) else { return };
    let written = proto::encode(&document, ty);
    let again = proto::decode(&written, ty).expect("what was written can be read");
    assert_eq!(normal(&again, ty), normal(&document, ty), "a message changes on its way");
}

/// The form in which two documents of the same content are equal.
fn normal(document: &Value, ty: &Type) -> Option<Value> {
    decode::normalize(document, ty).ok().map(|decoded| decoded.document)
}

/// Selectors of labels and fields.
pub fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).expect("what was written can be read");
        assert_eq!(again.to_string(), selector.to_string());
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let again = FieldSelector::parse(&selector.to_string()).expect("what was written can be read");
        // The order is that of the text that was read, which may be written in several ways.
        assert_eq!(terms(&again), terms(&selector));
    }
}

fn terms(selector: &FieldSelector) -> Vec<(&str, bool, &str)> {
    let mut terms: Vec<_> = selector.terms.iter().map(|term| (term.field.as_str(), term.equal, term.value.as_str())).collect();
    terms.sort_unstable();
    terms
}

/// A path with its query.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let query = Query::parse(query);
    for method in [http::Method::GET, http::Method::POST, http::Method::PATCH, http::Method::DELETE] {
        let Ok(info) = RequestInfo::parse(&method, path, &query) else { continue };
        probe::options(&query, &info);
    }
}

/// A continue token.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    probe::continuation(text);
}
