//! Content negotiation: in which form a client wants its answer and in which form its body comes, with upstream's
//! refusals (406, 415) word for word.

mod clause;

use clause::{Clause, Restrictions, Wanted, choose, clauses};
pub use clause::{choose_offer, names_no_type};

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::Value;

use corten_api::facts::Types;
use corten_api::status::{Details, Status};

use crate::request::Query;
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

/// Which of the two versions of `meta.k8s.io` a Table or a partial object is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetaVersion {
    /// `meta.k8s.io/v1`
    #[default]
    V1,
    /// `meta.k8s.io/v1beta1`
    V1beta1,
}

impl MetaVersion {
    /// The `apiVersion` of its documents.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// On the wire.
    pub encoding: Encoding,
    /// Of the object.
    pub shape: Shape,
    /// Whether a partial object is wanted as a list of such.
    pub of_list: bool,
    /// Version of the shape, when it is another than the object's own.
    pub meta: MetaVersion,
    /// Whether JSON is indented.
    pub pretty: bool,
}

/// What an endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// One object.
    Object,
    /// A question or an action: what it answers is stored nowhere, and no table can show it.
    Action,
    /// A collection: lists, and watches too.
    List,
    /// A watch.
    Watch,
    /// A collection that is deleted: it answers as a list, but offers no streams.
    Deletion,
}

/// What documents and objects can be sent as.
pub const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const STREAM_TYPES: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// Picks the form of the answer from `Accept`. Whether an object can be shown in it is another question, which is asked once
/// there is an object: [`Form::fits`].
///
/// # Errors
/// 406, when none of the clauses can be fulfilled.
pub fn accept(accept: &str, endpoint: Endpoint, pretty: bool) -> Result<Form, Status> {
    is_offered(accept, endpoint)?;
    let Some((clause, encoding, shape)) = choose(accept, Restrictions::of(endpoint)) else {
        return Err(not_acceptable(MEDIA_TYPES));
    };
    let (shape, meta, of_list) = match shape {
        Wanted::Whole | Wanted::Discovery => (Shape::Whole, MetaVersion::V1, false),
        Wanted::Table(meta) => (Shape::Table, meta, false),
        Wanted::Partial(meta) => (Shape::Partial, meta, false),
        Wanted::PartialList(meta) => (Shape::Partial, meta, true),
    };
    if endpoint == Endpoint::Watch && encoding == Encoding::Yaml {
        return Err(not_acceptable(STREAM_TYPES));
    }
    let pretty = pretty || clause.parameter("pretty") == Some("1");
    Ok(Form { encoding, shape, of_list, meta, pretty })
}

/// Picks the form of a document that is no resource's, from `Accept`; whether it is the aggregated discovery (`None` where there
/// is no such thing).
///
/// # Errors
/// 406, when none of the clauses can be fulfilled.
pub fn accept_document(accept: &str, pretty: bool, has_aggregated: bool) -> Result<(Form, bool), Status> {
    let aggregated =
        choose(accept, Restrictions::Discovery).filter(|(_, _, wanted)| has_aggregated && *wanted == Wanted::Discovery);
    let Some((clause, encoding, wanted)) = aggregated.or_else(|| choose(accept, Restrictions::Plain)) else {
        return Err(not_acceptable(MEDIA_TYPES));
    };
    let pretty = pretty || clause.parameter("pretty") == Some("1");
    Ok((Form { encoding, pretty, ..Form::default() }, wanted == Wanted::Discovery))
}

/// The form of a page for debugging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Text for people.
    Text,
    /// A document of this version of `config.k8s.io`.
    Structured(Form, &'static str),
}

/// Picks the form of a page for debugging whose document is of `kind`, from `Accept`. A document is sent only to who names its
/// kind and version, so that nobody takes the text of one release for an interface.
///
/// # Errors
/// 406, when none of the clauses can be fulfilled.
pub fn accept_page(accept: &str, kind: &str, pretty: bool) -> Result<Page, Status> {
    if accept.trim().is_empty() {
        return Ok(Page::Text);
    }
    let page_of = |clause: &Clause<'_>| {
        if clause.has("stream") || clause.has("sv") {
            return None;
        }
        let version = match (clause.parameter("g"), clause.parameter("v"), clause.parameter("as")) {
            (None, None, None) => None,
            (Some("config.k8s.io"), Some("v1alpha1"), Some(wanted)) if wanted == kind => Some("v1alpha1"),
            (Some("config.k8s.io"), Some("v1beta1"), Some(wanted)) if wanted == kind => Some("v1beta1"),
            _ => return None,
        };
        let Some(version) = version else {
            let is_text = matches!((clause.kind, clause.sub), ("*", "*") | ("text", "*" | "plain"));
            return is_text.then_some(Page::Text);
        };
        let encoding = [Encoding::Json, Encoding::Yaml].into_iter().find(|encoding| clause.fits(*encoding))?;
        let pretty = pretty || clause.parameter("pretty") == Some("1");
        Some(Page::Structured(Form { encoding, pretty, ..Form::default() }, version))
    };
    let page = clauses(accept).iter().find_map(page_of);
    page.ok_or_else(|| not_acceptable("application/json, application/yaml, text/plain"))
}

/// An `Accept` for failures of what has no protobuf form: who wants that gets JSON.
#[must_use]
pub fn without_protobuf(accept: &str) -> &str {
    match choose(accept, Restrictions::Plain) {
        Some((_, Encoding::Protobuf, _)) => "none/none",
        _ => accept,
    }
}

impl Form {
    /// Refuses an object where a list was asked for, and the other way round. `type_name` is what upstream calls the type of
    /// the answer (`core.Pod`).
    ///
    /// # Errors
    /// 406
    pub fn fits(&self, is_list: bool, type_name: &dyn Fn() -> String) -> Result<(), Status> {
        if self.shape != Shape::Partial || self.of_list == is_list {
            return Ok(());
        }
        let (wanted, is) = match self.of_list {
            false => ("PartialObjectMetadata", "a list"),
            true => ("PartialObjectMetadataList", "not a list"),
        };
        let name = type_name();
        let why = format!("you requested {wanted}, but the requested object is {is} (*{name})");
        Err(Status::failure(406, "NotAcceptable", why))
    }
}

/// The router's own look at `Accept`, before any handler's: coarse, but in words of its own.
///
/// # Errors
/// 406
pub fn is_offered(accept: &str, endpoint: Endpoint) -> Result<(), Status> {
    let streams = match endpoint {
        Endpoint::Object | Endpoint::Action | Endpoint::Deletion => "",
        Endpoint::List | Endpoint::Watch => STREAM_TYPES,
    };
    offered(accept, MEDIA_TYPES.split(", ").chain(streams.split(", ").filter(|kind| !kind.is_empty())))
}

/// What upstream's router (go-restful) asks of every request to a route that answers with one of `types`.
///
/// # Errors
/// 406
fn offered<'a>(accept: &str, types: impl Iterator<Item = &'a str> + Clone) -> Result<(), Status> {
    let fits = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default().trim_matches(' ');
        media == "*/*" || types.clone().any(|kind| kind == media)
    };
    if accept.is_empty() || accept.split(',').any(fits) {
        return Ok(());
    }
    let types = types.collect::<Vec<_>>().join(", ");
    Err(unrouted(406, "NotAcceptable", &format!("406: Not Acceptable\n\nAvailable representations: {types}")))
}

/// A refusal of the router.
fn unrouted(code: u16, reason: &str, message: &str) -> Status {
    let mut status = Status::failure(code, reason, message);
    status.details = Some(Details::default());
    status
}

/// The router's look at a request for a document that can only be read: the method, the type of a body, what may come back.
///
/// # Errors
/// 405, 415 and 406, in this order.
pub fn route_document(method: &http::Method, content_type: &str, accept: &str, types: &str) -> Result<(), Status> {
    if *method != http::Method::GET {
        let why = "the server does not allow this method on the requested resource";
        return Err(unrouted(405, "MethodNotAllowed", why));
    }
    let types = types.split(", ");
    let consumed = |kind: &str| {
        let media = kind.split(';').next().unwrap_or_default().trim_matches(' ');
        types.clone().any(|kind| kind == media)
    };
    if !content_type.is_empty() && !content_type.split(',').any(consumed) {
        return Err(unrouted(415, "UnsupportedMediaType", "415: Unsupported Media Type"));
    }
    offered(accept, types)
}

fn not_acceptable(types: &str) -> Status {
    Status::failure(406, "NotAcceptable", format!("only the following media types are accepted: {types}"))
}

fn encoding(media: &str) -> Option<Encoding> {
    match media {
        "application/json" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
        _ => None,
    }
}

/// Whether JSON is indented: on demand, and for people at a terminal.
#[must_use]
pub fn wants_pretty(query: &Query, user_agent: &str) -> bool {
    match query.text("pretty") {
        "" => ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| user_agent.starts_with(known)),
        value => matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True"),
    }
}

/// How the body of a write is encoded, from `Content-Type`; JSON when it is absent.
pub fn content_type(header: &str) -> Result<Encoding, Status> {
    if header.is_empty() {
        return Ok(Encoding::Json);
    }
    let media = media_type(header).map(|media| media.to_ascii_lowercase());
    media.as_deref().and_then(encoding).ok_or_else(|| unsupported(MEDIA_TYPES))
}

/// The media type of a `Content-Type`; `None` when the header is not well-formed (RFC 2045), parameters included.
fn media_type(header: &str) -> Option<&str> {
    let is_token = |text: &str| {
        let is_special = |b: u8| b"()<>@,;:\\\"/[]?=".contains(&b);
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !is_special(b))
    };
    let (media, mut rest) = header.split_once(';').map_or((header, ""), |(media, rest)| (media, rest));
    let media = media.trim();
    if !media.split('/').all(is_token) || media.split('/').count() > 2 {
        return None;
    }
    let mut seen: Vec<String> = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(media);
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        if !is_token(&name) || seen.contains(&name) || seen.len() >= 16 {
            return None;
        }
        seen.push(name);
        let end = match after.strip_prefix('"') {
            Some(quoted) => quoted.find('"')? + 2,
            None => after.find([';', ' ', '\t']).unwrap_or(after.len()),
        };
        if end == 0 || (!after.starts_with('"') && !is_token(&after[..end])) {
            return None;
        }
        rest = after[end..].trim_start();
        match rest.strip_prefix(';') {
            Some(next) => rest = next,
            None if rest.is_empty() => {}
            None => return None,
        }
    }
}

fn unsupported(types: &str) -> Status {
    let message = format!("the body of the request was in an unknown format - accepted media types include: {types}");
    Status::failure(415, "UnsupportedMediaType", message)
}

/// 415 of a patch whose content type is none of the patch types. Of a built-in kind the router says it, of a custom one the
/// handler, which knows the types.
#[must_use]
pub fn unknown_patch_type(custom: bool) -> Status {
    if custom {
        return unsupported("application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml");
    }
    unrouted(415, "UnsupportedMediaType", "415: Unsupported Media Type")
}

/// A failure in the encoding that `Accept` prefers; when it prefers none that a Status has, as indented JSON.
#[must_use]
pub fn status(status: &Status, accept: &str, pretty: bool) -> Response {
    let document_of = status.to_document();
    let chosen = choose(accept, Restrictions::Plain);
    let encoded = chosen.and_then(|(clause, encoding, _)| {
        let pretty = pretty || clause.parameter("pretty") == Some("1");
        let form = Form { encoding, pretty, ..Form::default() };
        document(&document_of, form).ok().map(|body| response::bytes(status.code, content_type_of(encoding), body))
    });
    let mut answer = encoded.unwrap_or_else(|| {
        let text = serde_json::to_string_pretty(&document_of).unwrap_or_default();
        response::bytes(status.code, "application/json", text)
    });
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
        // For people, and without a line break at the end: upstream writes it after a document on one line only.
        Encoding::Json if form.pretty => serde_json::to_vec_pretty(value).map_err(|err| Status::internal(err.to_string()))?,
        Encoding::Json => {
            let mut text = serde_json::to_vec(value).map_err(|err| Status::internal(err.to_string()))?;
            text.push(b'\n');
            text
        }
        Encoding::Yaml => corten_schema::encode::yaml(value),
        // Of what this function is given, only a Status has a protobuf form without more being known.
        Encoding::Protobuf => match Types::get().named("meta.v1.Status").filter(|_| value["kind"] == "Status") {
            Some(ty) => corten_schema::proto::encode_object(value, ty),
            None => return Err(Status::internal("the document has no protobuf form")),
        },
    };
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
