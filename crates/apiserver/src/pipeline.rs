//! What happens to every request, in order: an id, who, in whose name, may they, a seat, the handler; and whatever goes
//! wrong on the way, one answer. The same for requests from the network and from inside the process.

mod limit;
mod passage;
mod refusal;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use corten_api::status::{Details, Status};

use crate::audit::Trail;
use crate::authn::Peer;
use crate::proof::{Authenticated, Authorized};
use crate::request::{Query, RequestInfo};
use crate::response::{self, RequestBody, Response};
use crate::state::State;
use crate::user::User;
use crate::warnings::Warnings;
use crate::{discovery, health, metrics, openapi, registry, tokens, zpages};

use limit::time_limit;
use passage::Passage;
use refusal::Refusal;

/// A request that may run, with all that a handler needs of it.
pub struct Call {
    /// Who may do what.
    pub auth: Authorized,
    /// The HTTP method.
    pub method: Method,
    /// The URL as it came.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The parameters.
    pub query: Query,
    /// The body, not read yet. Behind a lock only because it is not `Sync`; nobody waits for it.
    body: Mutex<RequestBody>,
    /// What the transport adds, such as the right to upgrade the connection.
    pub extensions: Extensions,
    /// Address of the client; none for requests from inside the process.
    pub client: Option<std::net::IpAddr>,
    /// When it came.
    pub since: Instant,
    /// What is recorded of it, if anything is.
    trail: Option<Arc<Trail>>,
    warnings: Warnings,
}

impl Call {
    /// What is asked for.
    #[must_use]
    pub fn info(&self) -> &RequestInfo {
        self.auth.info()
    }

    /// In whose name.
    #[must_use]
    pub fn user(&self) -> &User {
        self.auth.user()
    }

    /// A header as text; empty when it is absent or no text.
    #[must_use]
    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What is recorded of the request, if anything is.
    #[must_use]
    pub fn trail(&self) -> Option<&Arc<Trail>> {
        self.trail.as_ref()
    }

    /// What the client is told beside the answer.
    #[must_use]
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The body, to be passed on as it comes. A second call gets an empty one.
    pub fn take_body(&mut self) -> RequestBody {
        let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        std::mem::replace(self.body.get_mut(), empty)
    }

    /// Reads the whole body; 413 when it is longer than `limit` bytes.
    pub async fn read_body(&mut self, limit: usize) -> Result<Bytes, Status> {
        let mut body = self.take_body();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            // Upstream has no name for it: whatever breaks a body off is the server's fault by its code.
            let frame = frame.map_err(|err| Status::failure(500, "", err.to_string()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if whole.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }
}

/// A request from the network.
pub async fn serve(state: Arc<State>, request: http::Request<RequestBody>, peer: Arc<Peer>) -> Response {
    // A ping of the server as a whole (RFC 9110, 9.3.7), which Go's answers before anybody else is asked.
    if request.method() == Method::OPTIONS && request.uri().path() == "*" {
        return response::empty(StatusCode::OK);
    }
    run(&state, request, Caller::Peer(peer)).await
}

/// A request from inside the process, in the name of `user`. Authorization and admission apply as to everyone.
pub async fn serve_local(state: Arc<State>, request: http::Request<RequestBody>, user: User) -> Response {
    run(&state, request, Caller::Known(Authenticated::new(user))).await
}

enum Caller {
    Peer(Arc<Peer>),
    Known(Authenticated),
}

async fn run(state: &Arc<State>, request: http::Request<RequestBody>, caller: Caller) -> Response {
    let since = Instant::now();
    let (parts, body) = request.into_parts();
    if !crate::request::is_well_escaped(parts.uri.path()) {
        return response::malformed();
    }
    let _inside = match (&caller, state.config.shutdown_send_retry_after) {
        (Caller::Peer(_), true) => match state.departure.enter(parts.uri.path(), &parts.headers) {
            Ok(inside) => Some(inside),
            Err(response) => return *response,
        },
        _ => None,
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let (info, limit) = understand(state, &parts, &query);
    let _counted = (!info.is_long_running()).then(|| state.metrics.requests.inflight(&info));
    let mut passage = Passage::new(state, since, &parts, &query, &info, &caller);
    let outcome = match limit {
        Err(refusal) => Ok(Err(passage.not_understood(refusal))),
        Ok(limit) => {
            // Boxed, since it is large: connections keep room for the future of a request also while there is none, and a watch is
            // none once it is answered.
            let steps = Box::pin(AssertUnwindSafe(passage.steps(caller, info, parts, query, body, limit)).catch_unwind());
            match limit {
                Some(limit) => tokio::time::timeout(limit, steps).await.unwrap_or_else(|_| Ok(Err(passage.out_of_time()))),
                None => steps.await,
            }
        }
    };
    passage.end(outcome).await
}

/// What is asked for and how long it may take, if there is a limit.
fn understand(state: &State, parts: &Parts, query: &Query) -> (RequestInfo, Result<Option<Duration>, Refusal>) {
    match RequestInfo::parse(&parts.method, parts.uri.path(), query) {
        Ok(info) if info.is_long_running() => (info, Ok(None)),
        Ok(info) => {
            let limit = time_limit(query, &info, state.config.request_timeout);
            (info, limit.map(Some).map_err(Refusal::from))
        }
        Err(err) => {
            let why = format!("failed to create RequestInfo: {err}");
            (RequestInfo::default(), Err(Refusal::internal_error(&parts.uri, &why)))
        }
    }
}

/// The handler by the first segment of the path.
async fn route(state: &Arc<State>, call: Call) -> Result<Response, Status> {
    let path = call.info().path.clone();
    // What is cleaned up elsewhere is another path here.
    if path.starts_with("//") {
        return Ok(response::no_such_page());
    }
    if call.info().is_resource {
        return registry::serve(state, call).await;
    }
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "" | "api" | "apis" | "version" => discovery::serve(state, &call).await,
        "index.html" if path == "/index.html" => discovery::serve(state, &call).await,
        "openid" | ".well-known" => tokens::serve(state, &call).await,
        "openapi" => openapi::serve(state, &call).await,
        "healthz" | "livez" | "readyz" => health::serve(state, &call).await,
        "metrics" if path == "/metrics" => metrics::serve(state, &call).await,
        "metrics" if path == "/metrics/slis" => health::slis(state),
        "flagz" if path == "/flagz" => zpages::flagz(state, &call).await,
        "statusz" if path == "/statusz" => zpages::statusz(state, &call).await,
        "debug" => Ok(state.flow.dump(&path, &call.query).unwrap_or_else(response::no_such_page)),
        _ => Ok(response::no_such_page()),
    }
}

fn too_large(limit: usize) -> Status {
    Status::failure(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
}

/// 404 for a resource, version or subresource that does not exist, as a Status. A path of no known group gets
/// [`response::no_such_page`] instead.
#[must_use]
pub fn no_such_path() -> Status {
    let mut status = Status::failure(404, "NotFound", "the server could not find the requested resource");
    status.details = Some(Details::default());
    status
}
