//! What happens to every request, in order: an id, who, in whose name, may they, a seat, the handler; and whatever goes
//! wrong on the way, one answer. The same for requests from the network and from inside the process.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use corten_api::status::{Details, Status};

use crate::audit::Record;
use crate::authn::Peer;
use crate::negotiate;
use crate::proof::{Authenticated, Authorized};
use crate::request::{Query, RequestInfo};
use crate::response::{self, RequestBody, Response};
use crate::state::State;
use crate::user::User;
use crate::{discovery, health, metrics, openapi, registry, tokens};

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
    /// When it came.
    pub since: Instant,
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
            let frame = frame.map_err(|err| Status::bad_request(format!("unable to read the request body: {err}")))?;
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
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let accept = parts.headers.get(header::ACCEPT).cloned();
    let (info, parsed) = match RequestInfo::parse(&parts.method, parts.uri.path(), &query) {
        Ok(info) => (info, Ok(())),
        Err(err) => (RequestInfo::default(), Err(Status::internal(format!("failed to create RequestInfo: {err}")))),
    };
    let _counted = (!info.is_long_running()).then(|| state.metrics.inflight(&info));
    let limit = (!info.is_long_running()).then(|| time_limit(&query, state.config.request_timeout));
    let logged = info.clone();
    let facts = metrics::RequestFacts::of(&query, &parts.headers);
    let queued = Mutex::new(Duration::ZERO);
    let recorded = state.audit.is_on().then(|| Recorded::of(&parts, &caller));
    let identity = Mutex::new(None);
    let work = async {
        parsed?;
        let who = match caller {
            Caller::Peer(peer) => {
                let who = state.authn.authenticate(&parts.headers, &peer).await;
                let user = who.as_ref().ok().map(|who| who.user().name.as_str());
                state.metrics.access.authenticated(user, since.elapsed());
                who?
            }
            Caller::Known(who) => who,
        };
        let who = state.authz.impersonate(who, &parts.headers, &info).await?;
        if state.audit.is_on() {
            *identity.lock() = Some(who.clone());
        }
        let started = Instant::now();
        let auth = state.authz.authorize(who, info).await;
        state.metrics.access.authorized(auth.is_ok(), started.elapsed());
        let auth = auth?;
        let started = Instant::now();
        let seat = state.flow.seat(&auth, &query).await;
        *queued.lock() = started.elapsed();
        let seat = seat?;
        let http::request::Parts { method, uri, headers, extensions, .. } = parts;
        let call = Call { auth, method, uri, headers, query, body: Mutex::new(body), extensions, since };
        let mut response = route(state, call).await;
        if let Ok(response) = &mut response {
            seat.mark(response.headers_mut());
        }
        drop(seat);
        response
    };
    let work = AssertUnwindSafe(work).catch_unwind();
    let outcome = match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Ok(Err(timed_out()))),
        None => work.await,
    };
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => refuse(&logged, &status, accept.as_ref()),
        Err(panic) => {
            tracing::error!(path = logged.path, panic = panic_text(&*panic), "a handler panicked");
            let status = Status::internal("This request caused apiserver to panic. Look in the logs for details.");
            refuse(&logged, &status, accept.as_ref())
        }
    };
    let headers = response.headers_mut();
    let id = response::random_id();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("audit-id", id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    let (code, took) = (response.status().as_u16(), since.elapsed());
    let waited = *queued.lock();
    state.metrics.request(&logged, &facts, code, took, waited);
    let held = (logged.is_long_running() && code < 400).then(|| state.metrics.long_running(&logged));
    response.body_mut().counted(held, state.metrics.response_size(&logged, code));
    if let Some(recorded) = recorded {
        recorded.answered(state, &id, &logged, identity.lock().as_ref(), code);
    }
    tracing::debug!(verb = logged.verb, path = logged.path, code, took_us = took.as_micros() as u64, "request");
    response
}

/// What the audit log wants to know of a request, kept until it is answered.
struct Recorded {
    uri: String,
    user_agent: String,
    source: String,
    received: jiff::Timestamp,
}

impl Recorded {
    fn of(parts: &http::request::Parts, caller: &Caller) -> Self {
        let source = match caller {
            Caller::Peer(peer) => peer.address.map(|address| address.ip().to_string()).unwrap_or_default(),
            Caller::Known(_) => String::new(),
        };
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self { uri: parts.uri.to_string(), user_agent: user_agent.to_owned(), source, received: jiff::Timestamp::now() }
    }

    fn answered(&self, state: &State, id: &str, info: &RequestInfo, who: Option<&Authenticated>, code: u16) {
        let record = Record {
            id,
            info,
            uri: &self.uri,
            user: who.map(Authenticated::user),
            impersonator: who.and_then(Authenticated::impersonator),
            user_agent: &self.user_agent,
            source: &self.source,
            code,
            received: self.received,
        };
        state.audit.answered(&record, &state.metrics.audited);
    }
}

/// The handler by the first segment of the path.
async fn route(state: &Arc<State>, call: Call) -> Result<Response, Status> {
    if call.info().is_resource {
        return registry::serve(state, call).await;
    }
    let path = call.info().path.clone();
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "" | "api" | "apis" | "version" => discovery::serve(state, &call).await,
        "openid" | ".well-known" => tokens::serve(state, &call).await,
        "openapi" => openapi::serve(state, &call).await,
        "healthz" | "livez" | "readyz" => health::serve(state, &call).await,
        "metrics" => metrics::serve(state, &call).await,
        _ => Ok(response::no_such_page()),
    }
}

fn refuse(info: &RequestInfo, status: &Status, accept: Option<&HeaderValue>) -> Response {
    if status.code >= 500 {
        let because = status.because.as_deref().map(chain).unwrap_or_default();
        tracing::warn!(verb = info.verb, path = info.path, code = status.code, because, "{}", status.message);
    }
    negotiate::status(status, accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default())
}

fn chain(err: &(dyn std::error::Error + Send + Sync)) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text.push_str(": ");
        text.push_str(&err.to_string());
        source = err.source();
    }
    text
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// The `timeout` parameter, within the server's own limit.
fn time_limit(query: &Query, most: Duration) -> Duration {
    query.get("timeout").and_then(seconds).filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most))
}

/// A duration such as `30s` or `1m30s`, or a number of seconds.
fn seconds(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        rest = &rest[letters..];
        total += Duration::try_from_secs_f64(number * unit).ok()?;
    }
    Some(total)
}

fn timed_out() -> Status {
    let mut status = Status::failure(504, "Timeout", "Timeout: request did not complete within the allotted timeout");
    status.details = Some(Details::default());
    status
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_go_writes_them() {
        assert_eq!(seconds("34s"), Some(Duration::from_secs(34)));
        assert_eq!(seconds("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(seconds("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(seconds("7"), Some(Duration::from_secs(7)));
        assert_eq!(seconds("soon"), None);
    }
}
