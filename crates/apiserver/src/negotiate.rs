//! Content negotiation: in which form a client wants its answer and in which form its body comes, with upstream's
//! refusals (406, 415) word for word.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::Value;

use corten_api::facts::Types;
use corten_api::status::{Details, Status};

use crate::response::{self, Response};

/// How a document is written on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What a client wants to see of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The object itself.
    #[default]
    Whole,
    /// `meta.k8s.io/v1 Table`
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`, or its list for a list.
    Partial,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// On the wire.
    pub encoding: Encoding,
    /// Of the object.
    pub shape: Shape,
    /// Whether JSON is indented.
    pub pretty: bool,
}

/// What an endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// One object.
    Object,
    /// A collection: lists, and watches too.
    List,
    /// A watch.
    Watch,
}

const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const STREAM_TYPES: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// Picks the form of the answer from `Accept`, in the client's order of preference.
pub fn accept(accept: &str, endpoint: Endpoint, pretty: bool) -> Result<Form, Status> {
    let accept = if accept.trim().is_empty() { "*/*" } else { accept };
    let clauses = clauses(accept);
    if !clauses.iter().any(|clause| clause.media == "*/*" || encoding(&clause.media).is_some()) {
        let streams = if endpoint == Endpoint::Object { String::new() } else { format!(", {STREAM_TYPES}") };
        let message = format!("406: Not Acceptable\n\nAvailable representations: {MEDIA_TYPES}{streams}");
        let mut status = Status::failure(406, "NotAcceptable", message);
        status.details = Some(Details::default());
        return Err(status);
    }
    for clause in &clauses {
        let Some(encoding) = matching(&clause.media) else {
            continue;
        };
        if endpoint == Endpoint::Watch && encoding == Encoding::Yaml {
            continue;
        }
        let Some(shape) = clause.shape(endpoint) else {
            continue;
        };
        let pretty = pretty || clause.parameter("pretty").is_some_and(|value| value == "1" || value == "true");
        return Ok(Form { encoding, shape, pretty });
    }
    Err(Status::failure(406, "NotAcceptable", format!("only the following media types are accepted: {MEDIA_TYPES}")))
}

struct Clause {
    media: String,
    parameters: Vec<(String, String)>,
    quality: f32,
}

impl Clause {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The shape that `as`, `g` and `v` ask for; `None` when this endpoint cannot give it.
    fn shape(&self, endpoint: Endpoint) -> Option<Shape> {
        let Some(kind) = self.parameter("as") else {
            return Some(Shape::Whole);
        };
        let known = self.parameter("g") == Some("meta.k8s.io") && matches!(self.parameter("v"), Some("v1" | "v1beta1"));
        match kind {
            "Table" if known => Some(Shape::Table),
            "PartialObjectMetadata" if known && endpoint != Endpoint::List => Some(Shape::Partial),
            "PartialObjectMetadataList" if known && endpoint == Endpoint::List => Some(Shape::Partial),
            _ => None,
        }
    }
}

/// The alternatives of an `Accept` header, best first.
fn clauses(accept: &str) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = Vec::new();
    for part in accept.split(',') {
        let mut pieces = part.split(';').map(str::trim);
        let media = pieces.next().unwrap_or_default().to_ascii_lowercase();
        if media.is_empty() {
            continue;
        }
        let parameters: Vec<(String, String)> = pieces
            .filter_map(|piece| piece.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
            .collect();
        let quality = parameters.iter().find(|(key, _)| key == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
        clauses.push(Clause { media, parameters, quality });
    }
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn encoding(media: &str) -> Option<Encoding> {
    match media {
        "application/json" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
        _ => None,
    }
}

fn matching(media: &str) -> Option<Encoding> {
    match media {
        "*/*" | "application/*" => Some(Encoding::Json),
        media => encoding(media),
    }
}

/// How the body of a write is encoded, from `Content-Type`; JSON when it is absent.
pub fn content_type(header: &str) -> Result<Encoding, Status> {
    let media = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media.is_empty() {
        return Ok(Encoding::Json);
    }
    encoding(&media).ok_or_else(|| {
        let message = format!("the body of the request was in an unknown format - accepted media types include: {MEDIA_TYPES}");
        Status::failure(415, "UnsupportedMediaType", message)
    })
}

/// 415 of a patch whose content type is none of the patch types.
#[must_use]
pub fn unknown_patch_type() -> Status {
    let mut status = Status::failure(415, "UnsupportedMediaType", "415: Unsupported Media Type");
    status.details = Some(Details::default());
    status
}

/// A Status in the encoding that `Accept` prefers, or JSON when that is none we know.
#[must_use]
pub fn status(status: &Status, accept_header: &str) -> Response {
    let form = accept(accept_header, Endpoint::Object, false).unwrap_or_default();
    let form = Form { shape: Shape::Whole, ..form };
    let mut answer = match document(&status.to_document(), form) {
        Ok(body) => response::bytes(status.code, content_type_of(form.encoding), body),
        Err(_) => response::json(status.code, &status.to_document()),
    };
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// The `Content-Type` of an encoding.
#[must_use]
pub const fn content_type_of(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "application/json",
        Encoding::Yaml => "application/yaml",
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
    }
}

/// A document as bytes.
pub fn document(value: &Value, form: Form) -> Result<Bytes, Status> {
    let bytes = match form.encoding {
        Encoding::Json if form.pretty => {
            let mut text = serde_json::to_vec_pretty(value).map_err(|err| Status::internal(err.to_string()))?;
            text.push(b'\n');
            text
        }
        Encoding::Json => {
            let mut text = serde_json::to_vec(value).map_err(|err| Status::internal(err.to_string()))?;
            text.push(b'\n');
            text
        }
        Encoding::Yaml => serde_yaml_ng::to_string(value).map_err(|err| Status::internal(err.to_string()))?.into_bytes(),
        // Of what this function is given, only a Status has a protobuf form without more being known.
        Encoding::Protobuf => match Types::get().named("meta.v1.Status").filter(|_| value["kind"] == "Status") {
            Some(ty) => corten_schema::proto::encode_object(value, ty),
            None => return Err(Status::internal("the document has no protobuf form")),
        },
    };
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_acceptable_clause_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(accept(table, Endpoint::List, false).unwrap().shape, Shape::Table);
        let unknown = "application/json;as=Nope;v=v1;g=meta.k8s.io";
        assert_eq!(accept(unknown, Endpoint::List, false).unwrap_err().code, 406);
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf, */*", Endpoint::Object, false).unwrap().encoding,
            Encoding::Protobuf
        );
        assert_eq!(accept("application/json;q=0.1, application/yaml", Endpoint::Object, false).unwrap().encoding, Encoding::Yaml);
        assert_eq!(accept("", Endpoint::List, true).unwrap(), Form { pretty: true, ..Form::default() });
        let status = accept("text/html", Endpoint::List, false).unwrap_err();
        assert!(status.message.starts_with("406: Not Acceptable"), "{status}");
    }
}
