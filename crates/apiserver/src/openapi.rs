//! OpenAPI: version 3 as an index and a document for each group version, version 2 as one document. `kubectl explain`,
//! `apply` and `create --validate` read them.
//!
//! The shape of types comes from the table of facts that decoding uses, the words from `k8s-openapi`, the operations from the
//! catalogue. A document is made when it is asked for and dropped afterwards; clients keep it under the hash in the index.

mod descriptions;
mod enums;
mod fixed;
mod parameters;
mod paths;
mod schemas;
mod words;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use corten_api::catalogue::Catalogue;
use corten_api::status::Status;
use corten_schema::proto;

use crate::content::Content;
use crate::discovery::{GIT_VERSION, VERSION};
use crate::negotiate;
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

use schemas::{Dialect, Schemas};

/// For how long a document under its hash may be kept.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Answers `/openapi/v2` and `/openapi/v3` and what is under it.
///
/// # Errors
/// 500 when a document cannot be made.
pub async fn serve(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    let catalogue = state.catalogue();
    let path = call.info().path.clone();
    match path.as_str() {
        "/openapi/v2" => {
            let varies = HeaderValue::from_static("Accept-Encoding");
            let mut response = match Form::choose(call.header(header::ACCEPT), Dialect::V2) {
                None => bare(StatusCode::NOT_ACCEPTABLE),
                Some(form) => {
                    let tag = hash(&catalogue, "v2");
                    let kind = form.content_type(Dialect::V2);
                    let content = Content { tag: Some(&tag), made: state.began, kind, compressible: true };
                    // Hundreds of types: not on a thread that serves others.
                    let make = || blocking(move || form.write(&version_2(&catalogue), Dialect::V2));
                    varying(content.answer(call, make).await?)
                }
            };
            response.headers_mut().append(header::VARY, varies);
            Ok(response)
        }
        "/openapi/v3" => {
            let content = Content { tag: None, made: state.began, kind: "text/plain; charset=utf-8", compressible: false };
            content.answer(call, || async { Ok(index(&catalogue).to_string().into_bytes()) }).await
        }
        other => match other.strip_prefix("/openapi/v3/").map(|name| find(&catalogue, name)) {
            None => Ok(response::no_such_page()),
            Some(None) => {
                let mut response = bare(StatusCode::NOT_FOUND);
                response.headers_mut().remove(header::VARY);
                Ok(response)
            }
            Some(Some((name, document))) => version_3_of(state, call, catalogue, name, document).await,
        },
    }
}

/// Answers with a document of version 3, or with where it is now.
async fn version_3_of(
    state: &Arc<State>,
    call: &Call,
    catalogue: Arc<Catalogue>,
    name: String,
    document: Document,
) -> Result<Response, Status> {
    let accept = call.header(header::ACCEPT);
    let Some(form) = Form::choose(accept, Dialect::V3) else {
        // Who accepts nothing that is a media type gets nothing, and is not told why.
        if negotiate::names_no_type(accept) {
            return Ok(response::empty(StatusCode::OK));
        }
        return Ok(bare(StatusCode::NOT_ACCEPTABLE));
    };
    let tag = hash(&catalogue, &name);
    let content = Content { tag: Some(&tag), made: state.began, kind: form.content_type(Dialect::V3), compressible: false };
    let wanted = call.query.text("hash");
    if !wanted.is_empty() && wanted != tag {
        let mut response = bare(StatusCode::MOVED_PERMANENTLY);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content.kind));
        headers.extend(HeaderValue::from_str(&format!("\"{tag}\"")).ok().map(|tag| (header::ETAG, tag)));
        headers.extend(HeaderValue::from_str(&url(&name, &tag)).ok().map(|place| (header::LOCATION, place)));
        return Ok(response);
    }
    let make = || blocking(move || form.write(&version_3(&catalogue, &document), Dialect::V3));
    let mut response = varying(content.answer(call, make).await?);
    // The hash is in the URL: another content has another URL.
    if !wanted.is_empty() {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let in_a_year = httpdate::fmt_http_date(SystemTime::now() + YEAR);
        headers.extend(HeaderValue::from_str(&in_a_year).ok().map(|date| (header::EXPIRES, date)));
    }
    Ok(response)
}

/// What a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

impl Form {
    /// What suits a client best; the names with `@` are those of before they had to be media types.
    fn choose(accept: &str, dialect: Dialect) -> Option<Self> {
        let [old, new] = match dialect {
            Dialect::V2 => ["com.github.proto-openapi.spec.v2@v1.0+protobuf", "com.github.proto-openapi.spec.v2.v1.0+protobuf"],
            Dialect::V3 => ["com.github.proto-openapi.spec.v3@v1.0+protobuf", "com.github.proto-openapi.spec.v3.v1.0+protobuf"],
        };
        negotiate::choose_offer(accept, &[("json", Self::Json), (old, Self::Protobuf), (new, Self::Protobuf)])
    }

    fn content_type(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Json, _) => "application/json",
            (Self::Protobuf, Dialect::V2) => "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            (Self::Protobuf, Dialect::V3) => "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        }
    }

    fn write(self, document: &Value, dialect: Dialect) -> Result<Vec<u8>, serde_json::Error> {
        match (self, dialect) {
            (Self::Json, _) => serde_json::to_vec(document),
            (Self::Protobuf, Dialect::V2) => Ok(proto::openapi::encode_v2(document)),
            (Self::Protobuf, Dialect::V3) => Ok(proto::openapi::encode_v3(document)),
        }
    }
}

async fn blocking(write: impl FnOnce() -> Result<Vec<u8>, serde_json::Error> + Send + 'static) -> Result<Vec<u8>, Status> {
    let written = tokio::task::spawn_blocking(write).await.map_err(|err| Status::internal(err.to_string()))?;
    written.map_err(|err| Status::internal(err.to_string()))
}

/// What tells one content of a document from another without making it: the program and what it serves.
fn hash(catalogue: &Catalogue, name: &str) -> String {
    let mut digest = Sha512::new();
    digest.update(GIT_VERSION);
    digest.update(name);
    for resource in catalogue.all() {
        for version in resource.versions.iter().filter(|version| version.served) {
            digest.update(format!("{}/{}/{}", resource.group, version.name, resource.plural));
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn varying(mut response: Response) -> Response {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// An answer without a body.
fn bare(code: StatusCode) -> Response {
    varying(response::empty(code))
}

/// What a document of version 3 is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Document {
    Version { group: String, version: String },
    Group(String),
    Fixed(&'static str),
}

/// The documents there are, by their name in the index.
fn documents(catalogue: &Catalogue) -> impl Iterator<Item = (String, Document)> + '_ {
    let groups = catalogue.groups().iter().flat_map(|group| {
        let served = || group.versions.iter().filter(|version| version.served);
        let versions = served().map(|version| {
            let name = match group.name.as_str() {
                "" => format!("api/{}", version.name),
                group => format!("apis/{group}/{}", version.name),
            };
            (name, Document::Version { group: group.name.clone(), version: version.name.clone() })
        });
        let is_named = !group.name.is_empty() && served().next().is_some();
        let group = is_named.then(|| (format!("apis/{}", group.name), Document::Group(group.name.clone())));
        versions.chain(group)
    });
    groups.chain(fixed::DOCUMENTS.into_iter().map(|name| (name.to_owned(), Document::Fixed(name))))
}

fn find(catalogue: &Catalogue, wanted: &str) -> Option<(String, Document)> {
    documents(catalogue).find(|(name, _)| name == wanted)
}

/// `/openapi/v3`: where the documents are, with their hashes.
fn index(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for (name, _) in documents(catalogue) {
        let url = url(&name, &hash(catalogue, &name));
        paths.insert(name, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// Where a document of version 3 is while its content has the hash.
fn url(name: &str, hash: &str) -> String {
    format!("/openapi/v3/{name}?hash={hash}")
}

/// The paths of a document; what they speak of is added to `schemas`.
fn paths_of(catalogue: &Catalogue, document: &Document, schemas: &mut Schemas) -> Map<String, Value> {
    match document {
        Document::Fixed(name) => {
            schemas.describe(descriptions::of("", "v1"));
            fixed::of(name, schemas)
        }
        Document::Group(group) => {
            schemas.describe(descriptions::of(group, "v1"));
            fixed::of_group(group, schemas)
        }
        Document::Version { group, version } => {
            // Before those of the version itself: what all versions share keeps its words.
            if version != "v1" {
                schemas.describe(descriptions::of("", "v1"));
            }
            schemas.describe(descriptions::of(group, version));
            let mut paths = fixed::of_version(group, version, schemas);
            paths.append(&mut paths::of(catalogue, group, version, schemas));
            paths
        }
    }
}

fn version_3(catalogue: &Catalogue, document: &Document) -> Value {
    let mut schemas = Schemas::new(Dialect::V3);
    let paths = paths_of(catalogue, document, &mut schemas);
    let about = match document {
        Document::Version { group, version } => (group.as_str(), version.as_str()),
        Document::Group(_) | Document::Fixed(_) => ("", "v1"),
    };
    let schemas = schemas.finish(catalogue, Some(about));
    let mut components = json!({"securitySchemes": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
        "description": "Bearer Token authentication"}}});
    if schemas.as_object().is_some_and(|schemas| !schemas.is_empty()) {
        components["schemas"] = schemas;
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION}, "paths": paths, "components": components})
}

fn version_2(catalogue: &Catalogue) -> Value {
    let mut schemas = Schemas::new(Dialect::V2);
    let mut paths = Map::new();
    for (_, document) in documents(catalogue) {
        paths.append(&mut paths_of(catalogue, &document, &mut schemas));
    }
    let parameters = parameters::share(&mut paths);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": schemas.finish(catalogue, None),
        "parameters": parameters,
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
