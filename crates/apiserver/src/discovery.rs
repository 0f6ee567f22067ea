//! Discovery: which groups, versions and resources there are, from the catalogue. Plain documents, and the aggregated form
//! (`apidiscovery.k8s.io`, KEP-3352) that answers everything at once, with an ETag. And `/version`.

mod documents;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use corten_api::catalogue::Catalogue;
use corten_api::facts::Types;
use corten_api::status::{Details, Status};
use corten_schema::proto;

use crate::health;
use crate::negotiate::{self, Encoding, Form};
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

/// The version of Kubernetes that the API is of.
pub const VERSION: &str = "1.36";

/// The `gitVersion` of `/version`: upstream's, with ours as build metadata.
pub const GIT_VERSION: &str = concat!("v1.36.0+corten-", env!("CARGO_PKG_VERSION"));

/// Answers `/`, `/api`, `/apis` and what is under them without a resource, and `/version`.
///
/// # Errors
/// 404 for versions there are not; 405, 415 and 406 by the rules of each path: the lists of groups take any method.
pub async fn serve(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    let catalogue = state.catalogue();
    let parts: Vec<&str> = parts_of(&call.info().path).collect();
    match parts.as_slice() {
        [] | ["index.html"] => Ok(response::indented(200, &json!({"paths": paths(&catalogue)}))),
        ["version", _, ..] => Err(not_found()),
        ["version"] => {
            routed(call, "application/json")?;
            Ok(response::indented(200, &version()))
        }
        ["api"] => {
            routed(call, negotiate::MEDIA_TYPES)?;
            let plain = || documents::api_versions(state);
            listed(call, "APIVersions", &plain, &|| documents::aggregated(&catalogue, true))
        }
        ["apis"] => {
            let plain = || documents::groups(&catalogue);
            // With a slash at its end, the path is that of the plain list alone.
            if call.info().path.ends_with('/') {
                let (form, _) = negotiated(call, false)?;
                return encoded(call, 200, &plain(), "meta.v1.APIGroupList", form);
            }
            listed(call, "APIGroupList", &plain, &|| documents::aggregated(&catalogue, false))
        }
        ["api", version] => one_version(call, documents::resources(&catalogue, "", version)),
        ["apis", group, ..] if documents::group(&catalogue, group).is_none() => Ok(response::no_such_page()),
        ["apis", group] => {
            let document = documents::group(&catalogue, group).ok_or_else(not_found)?;
            // The one group that the aggregator serves itself, not as the list of what others serve.
            if *group == "apiregistration.k8s.io" {
                routed(call, negotiate::MEDIA_TYPES)?;
            }
            let (form, _) = negotiated(call, false)?;
            encoded(call, 200, &document, "meta.v1.APIGroup", form)
        }
        ["apis", group, version] => one_version(call, documents::resources(&catalogue, group, version)),
        _ => Ok(response::no_such_page()),
    }
}

/// The paths there are, in order.
#[must_use]
pub fn paths(catalogue: &Catalogue) -> Vec<String> {
    let mut paths = documents::paths(catalogue);
    paths.extend(health::paths());
    paths.sort_unstable();
    paths
}

fn parts_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn one_version(call: &Call, document: Option<Value>) -> Result<Response, Status> {
    let document = document.ok_or_else(not_found)?;
    routed(call, negotiate::MEDIA_TYPES)?;
    let (form, _) = negotiated(call, false)?;
    encoded(call, 200, &document, "meta.v1.APIResourceList", form)
}

/// A list of versions or groups, or all there is to know of them when the client prefers that.
fn listed(call: &Call, kind: &str, plain: &dyn Fn() -> Value, all: &dyn Fn() -> Value) -> Result<Response, Status> {
    match negotiated(call, true)? {
        (form, false) => encoded(call, 200, &plain(), &format!("meta.v1.{kind}"), form),
        (form, true) => aggregated(call, &all(), form),
    }
}

fn routed(call: &Call, types: &str) -> Result<(), Status> {
    negotiate::route_document(&call.method, call.header(header::CONTENT_TYPE), call.header(header::ACCEPT), types)
}

fn negotiated(call: &Call, has_aggregated: bool) -> Result<(Form, bool), Status> {
    let pretty = negotiate::wants_pretty(&call.query, call.header(header::USER_AGENT));
    negotiate::accept_document(call.header(header::ACCEPT), pretty, has_aggregated)
}

fn encoded(call: &Call, code: u16, document: &Value, type_name: &str, form: Form) -> Result<Response, Status> {
    if let Some(trail) = call.trail().filter(|trail| trail.wants_response()) {
        trail.response_object(document.clone());
    }
    let body = match form.encoding {
        Encoding::Protobuf => in_protobuf(document, type_name)?,
        _ => negotiate::document(document, form)?,
    };
    Ok(response::bytes(code, negotiate::content_type_of(form.encoding), body))
}

fn in_protobuf(document: &Value, type_name: &str) -> Result<Bytes, Status> {
    let ty = Types::get().named(type_name).ok_or_else(|| Status::internal("the document has no protobuf form"))?;
    Ok(proto::encode_object(document, ty).into())
}

fn aggregated(call: &Call, document: &Value, form: Form) -> Result<Response, Status> {
    let etag: String = Sha512::digest(document.to_string()).iter().map(|byte| format!("{byte:02X}")).collect();
    let etag = format!("\"{etag}\"");
    let mut response = if call.header(header::IF_NONE_MATCH) == etag {
        response::empty(http::StatusCode::NOT_MODIFIED)
    } else {
        let mut response = encoded(call, 200, document, "apidiscovery.v2.APIGroupDiscoveryList", form)?;
        let kind = format!("{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", negotiate::content_type_of(form.encoding));
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
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
