//! What every cluster has from its first start: namespaces, bootstrap roles, priority classes, flow schemas, the
//! `kubernetes` Service and what belongs to it.
//!
//! Written through the same pipeline as a client's requests, all at once, so that one group commit takes them together.
//! What is there already is left alone, with upstream's exceptions: rules that a bootstrap role lost come back, and the
//! `kubernetes` endpoints follow this server's address.

mod api_services;
pub(crate) mod flow;
mod objects;
mod rbac;
mod service;

use std::sync::Arc;

use futures::future::try_join_all;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use corten_api::status::Status;

use crate::pipeline;
use crate::response::RequestBody;
use crate::state::State;
use crate::user::User;

const JSON: &str = "application/json";

/// Makes what is missing; runs before the server is ready.
///
/// # Errors
/// The first answer that is a failure.
pub async fn run(state: &Arc<State>) -> Result<(), Status> {
    // Everything else lives in a namespace, so these come first.
    try_join_all(objects::namespaces().into_iter().map(|object| ensure(state, object))).await?;
    let mut wanted = objects::others(state);
    wanted.extend(flow::objects());
    wanted.extend(rbac::objects());
    wanted.extend(api_services::objects(&state.catalogue()));
    let made = async {
        try_join_all(wanted.into_iter().map(|object| ensure(state, object))).await?;
        objects::tell_range_is_ready(state).await
    };
    let (made, service) = futures::future::join(made, service::ensure(state)).await;
    made.and(service)
}

/// An object that has to be there.
struct Wanted {
    group: &'static str,
    resource: &'static str,
    document: Value,
    /// Under which name its fields are owned; the server's own when it is empty.
    manager: &'static str,
    /// The document to put in the place of one that is there; `None` leaves that as it is.
    repair: Option<fn(&Value, &Value) -> Option<Value>>,
}

impl Wanted {
    fn new(group: &'static str, resource: &'static str, document: Value) -> Self {
        Self { group, resource, document, manager: "", repair: None }
    }

    fn text(&self, field: &str) -> &str {
        self.document["metadata"][field].as_str().unwrap_or_default()
    }

    fn collection(&self) -> String {
        let version = self.document["apiVersion"].as_str().unwrap_or_default();
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match self.text("namespace") {
            "" => format!("{root}/{version}/{}", self.resource),
            namespace => format!("{root}/{version}/namespaces/{namespace}/{}", self.resource),
        }
    }
}

async fn ensure(state: &Arc<State>, wanted: Wanted) -> Result<(), Status> {
    let (name, collection) = (wanted.text("name").to_owned(), wanted.collection());
    let owner = if wanted.manager.is_empty() { String::new() } else { format!("?fieldManager={}", wanted.manager) };
    let Some(found) = state.reader.document(wanted.group, wanted.resource, wanted.text("namespace"), &name) else {
        return match send(state, Method::POST, &format!("{collection}{owner}"), JSON, &wanted.document).await {
            Err(status) if status.reason == "AlreadyExists" => Ok(()), // another server was faster
            other => other,
        };
    };
    match wanted.repair.and_then(|repair| repair(&found, &wanted.document)) {
        Some(repaired) => send(state, Method::PUT, &format!("{collection}/{name}{owner}"), JSON, &repaired).await,
        None => Ok(()),
    }
}

/// One request in the server's own name.
pub(crate) async fn send(
    state: &Arc<State>,
    method: Method,
    path: &str,
    content_type: &'static str,
    document: &Value,
) -> Result<(), Status> {
    let body: RequestBody = Full::new(bytes::Bytes::from(document.to_string())).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder()
        .method(method)
        .uri(path.replace(' ', "%20"))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::USER_AGENT, "kube-apiserver/v1.36.0")
        .body(body)
        .map_err(|err| Status::internal(err.to_string()))?;
    let response = pipeline::serve_local(state.clone(), request, User::apiserver()).await;
    if response.status().is_success() {
        return Ok(());
    }
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let status = serde_json::from_slice::<Status>(&body).unwrap_or_else(|_| Status::internal(String::from_utf8_lossy(&body)));
    tracing::debug!(path, message = status.message, "a request of the server itself was refused");
    Err(status)
}
