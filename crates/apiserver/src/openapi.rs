//! OpenAPI: version 3 as an index and a document for each group version, version 2 as one document. `kubectl explain`,
//! `apply` and `create --validate` read them.
//!
//! The shape of types comes from the table of facts that decoding uses, the words from `k8s-openapi`, the operations from the
//! catalogue. A document is made when it is asked for and dropped afterwards; clients keep it under the hash in the index.

mod descriptions;
mod paths;
mod schemas;

use std::sync::Arc;

use http::{HeaderValue, Method, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use corten_api::catalogue::Catalogue;
use corten_api::status::Status;

use crate::discovery::GIT_VERSION;
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

use schemas::{Dialect, Schemas};

/// Answers `/openapi/v2` and `/openapi/v3` and what is under it.
///
/// # Errors
/// 500 when a document cannot be made.
pub async fn serve(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(response::text(405, "Method Not Allowed\n"));
    }
    let catalogue = state.catalogue();
    let path = call.info().path.clone();
    match path.trim_end_matches('/') {
        "/openapi/v2" => {
            let tag = hash(&catalogue, "v2");
            if is_fresh(call, &tag) {
                return Ok(not_modified(&tag));
            }
            // Hundreds of types: not on a thread that serves others.
            let body = blocking(move || version_2(&catalogue)).await?;
            Ok(tagged(response::bytes(200, "application/json", body), &tag))
        }
        "/openapi/v3" => Ok(response::json(200, &index(&catalogue))),
        other => match other.strip_prefix("/openapi/v3/").and_then(|name| find(&catalogue, name)) {
            Some((group, version)) => {
                let tag = hash(&catalogue, &format!("{group}/{version}"));
                if is_fresh(call, &tag) {
                    return Ok(not_modified(&tag));
                }
                let body = blocking(move || version_3(&catalogue, &group, &version)).await?;
                let mut response = tagged(response::bytes(200, "application/json", body), &tag);
                // The hash is in the URL: another content has another URL.
                if call.query.text("hash") == tag {
                    let forever = HeaderValue::from_static("public, immutable");
                    response.headers_mut().insert(header::CACHE_CONTROL, forever);
                }
                Ok(response)
            }
            None => {
                let mut response = Response::new(response::Body::empty());
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                Ok(response)
            }
        },
    }
}

async fn blocking(make: impl FnOnce() -> Value + Send + 'static) -> Result<Vec<u8>, Status> {
    let made = tokio::task::spawn_blocking(move || serde_json::to_vec(&make()));
    let body = made.await.map_err(|err| Status::internal(err.to_string()))?;
    body.map_err(|err| Status::internal(err.to_string()))
}

/// What tells one content of a document from another without making it: the program and what it serves.
fn hash(catalogue: &Catalogue, name: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(GIT_VERSION);
    digest.update(name);
    for resource in catalogue.all() {
        for version in resource.versions.iter().filter(|version| version.served) {
            digest.update(format!("{}/{}/{}", resource.group, version.name, resource.plural));
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn is_fresh(call: &Call, tag: &str) -> bool {
    call.header(header::IF_NONE_MATCH).split(',').any(|known| known.trim().trim_matches('"') == tag)
}

fn tagged(mut response: Response, tag: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn not_modified(tag: &str) -> Response {
    let mut response = Response::new(response::Body::empty());
    *response.status_mut() = http::StatusCode::NOT_MODIFIED;
    tagged(response, tag)
}

/// Group versions that are served: group, version, and the name in the index.
fn served(catalogue: &Catalogue) -> impl Iterator<Item = (String, String, String)> + '_ {
    catalogue.groups().iter().flat_map(|group| {
        let versions = group.versions.iter().filter(|version| version.served);
        versions.map(|version| {
            let name = match group.name.as_str() {
                "" => format!("api/{}", version.name),
                group => format!("apis/{group}/{}", version.name),
            };
            (group.name.clone(), version.name.clone(), name)
        })
    })
}

fn find(catalogue: &Catalogue, wanted: &str) -> Option<(String, String)> {
    served(catalogue).find(|(.., name)| name == wanted).map(|(group, version, _)| (group, version))
}

/// `/openapi/v3`: where the documents are, with their hashes.
fn index(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for (group, version, name) in served(catalogue) {
        let hash = hash(catalogue, &format!("{group}/{version}"));
        paths.insert(name.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{name}?hash={hash}")}));
    }
    json!({"paths": paths})
}

fn version_3(catalogue: &Catalogue, group: &str, version: &str) -> Value {
    let mut schemas = Schemas::new(Dialect::V3);
    schemas.describe(descriptions::of(group, version));
    let paths = paths::of(catalogue, group, version, &mut schemas);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": paths,
        "components": {
            "schemas": schemas.finish(catalogue),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
                "description": "Bearer Token authentication"}},
        },
    })
}

fn version_2(catalogue: &Catalogue) -> Value {
    let mut schemas = Schemas::new(Dialect::V2);
    let mut paths = Map::new();
    for (group, version, _) in served(catalogue) {
        schemas.describe(descriptions::of(&group, &version));
        paths.append(&mut paths::of(catalogue, &group, &version, &mut schemas));
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": paths,
        "definitions": schemas.finish(catalogue),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
}

#[cfg(test)]
mod tests;
