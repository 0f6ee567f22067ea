//! Discovery: which groups, versions and resources there are, from the catalogue. Plain documents, and the aggregated form
//! (`apidiscovery.k8s.io`, KEP-3352) that answers everything at once, with an ETag. And `/version`.

mod documents;

use std::sync::Arc;

use http::{HeaderValue, Method, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use corten_api::status::{Details, Status};

use crate::negotiate::{self, Endpoint};
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

/// The `gitVersion` of `/version`: upstream's, with ours as build metadata.
pub const GIT_VERSION: &str = concat!("v1.36.0+corten-", env!("CARGO_PKG_VERSION"));

/// Answers `/`, `/api`, `/apis` and what is under them without a resource, and `/version`.
///
/// # Errors
/// 404 for groups and versions there are not, 405 for anything but reading.
pub async fn serve(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    if call.method != Method::GET && parts_of(&call.info().path).next().is_some() {
        return Err(not_allowed());
    }
    let catalogue = state.catalogue();
    let path = call.info().path.clone();
    let parts: Vec<&str> = parts_of(&path).collect();
    let aggregated = matches!(parts.as_slice(), ["api"] | ["apis"]).then(|| aggregated_version(call)).flatten();
    if let Some(version) = aggregated {
        return Ok(aggregated_response(call, &documents::aggregated(&catalogue, parts[0] == "api", version), version));
    }
    let document = match parts.as_slice() {
        [] => documents::paths(&catalogue),
        ["version"] => return Ok(response::json(200, &version())),
        ["api"] => documents::api_versions(state),
        ["apis"] => documents::groups(&catalogue),
        ["api", version] => documents::resources(&catalogue, "", version).ok_or_else(not_found)?,
        ["apis", group, ..] if documents::group(&catalogue, group).is_none() => return Ok(response::no_such_page()),
        ["apis", group] => documents::group(&catalogue, group).ok_or_else(not_found)?,
        ["apis", group, version] => documents::resources(&catalogue, group, version).ok_or_else(not_found)?,
        _ => return Ok(response::no_such_page()),
    };
    let pretty = negotiate::wants_pretty(&call.query, call.header(header::USER_AGENT));
    let form = negotiate::accept(call.header(header::ACCEPT), Endpoint::Object, pretty, &String::new)?;
    // There is no protobuf form of these here; clients that ask for it take JSON too.
    let form = negotiate::Form { shape: negotiate::Shape::Whole, encoding: json_or_yaml(form.encoding), ..form };
    Ok(response::bytes(200, negotiate::content_type_of(form.encoding), negotiate::document(&document, form)?))
}

fn parts_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn json_or_yaml(encoding: negotiate::Encoding) -> negotiate::Encoding {
    match encoding {
        negotiate::Encoding::Yaml => negotiate::Encoding::Yaml,
        _ => negotiate::Encoding::Json,
    }
}

/// The version of the aggregated form that comes first in `Accept` among those we know; `None` for the plain form.
fn aggregated_version(call: &Call) -> Option<&'static str> {
    for clause in call.header(header::ACCEPT).split(',') {
        let mut pieces = clause.split(';').map(str::trim);
        if pieces.next() != Some("application/json") {
            continue;
        }
        let parameters: Vec<&str> = pieces.collect();
        if !parameters.iter().any(|parameter| parameter.starts_with("as=")) {
            return None;
        }
        let wants = |parameter: &str| parameters.contains(&parameter);
        if wants("as=APIGroupDiscoveryList") && wants("g=apidiscovery.k8s.io") {
            if wants("v=v2") {
                return Some("v2");
            }
            if wants("v=v2beta1") {
                return Some("v2beta1");
            }
        }
    }
    None
}

fn aggregated_response(call: &Call, document: &Value, version: &str) -> Response {
    let body = document.to_string();
    let etag: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
    let etag = format!("\"{etag}\"");
    let mut response = if call.header(header::IF_NONE_MATCH) == etag {
        let mut unchanged = Response::new(response::Body::empty());
        *unchanged.status_mut() = http::StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        response::bytes(200, &kind, body)
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36",
        "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", architecture()),
    })
}

/// The machine's architecture by Go's name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn not_found() -> Status {
    let mut status = Status::failure(404, "NotFound", "the server could not find the requested resource");
    status.details = Some(Details::default());
    status
}

fn not_allowed() -> Status {
    let mut status = Status::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    status.details = Some(Details::default());
    status
}
