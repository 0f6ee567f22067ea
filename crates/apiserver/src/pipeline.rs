//! What happens to every request, in order: an id, who, in whose name, may they, a seat, the handler; and whatever goes
//! wrong on the way, one answer. The same for requests from the network and from inside the process.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use corten_api::status::{Details, Status};

use crate::audit::{self, Stage, Trail};
use crate::authn::{self, Peer};
use crate::negotiate;
use crate::proof::{Authenticated, Authorized};
use crate::request::{Query, RequestInfo};
use crate::response::{self, Body, RequestBody, Response, Tunnel};
use crate::state::State;
use crate::user::User;
use crate::warnings::Warnings;
use crate::{cors, discovery, duration, health, metrics, openapi, registry, tokens, zpages};

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
        return Response::new(response::Body::empty());
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
    let origin = state.cors.as_ref().and_then(|cors| cors.origin(&parts.headers));
    let preflight = origin.is_some() && cors::is_preflight(&parts.method);
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let answers = Answers::of(&parts, &query);
    let (info, parsed) = match RequestInfo::parse(&parts.method, parts.uri.path(), &query) {
        Ok(info) => {
            let limit = match info.is_long_running() {
                true => Ok(None),
                false => time_limit(&query, &info, state.config.request_timeout).map(Some),
            };
            (info, limit.map_err(|status| Refusal::Status(Box::new(status))))
        }
        Err(err) => {
            let text = internal_error(&parts.uri, &format!("failed to create RequestInfo: {err}"));
            (RequestInfo::default(), Err(Refusal::Response(Box::new(response::plain(500, text)))))
        }
    };
    let understood = !matches!(parsed, Err(Refusal::Response(_)));
    let limit = *parsed.as_ref().unwrap_or(&None);
    let id = audit_id(&parts.headers);
    let _counted = (!info.is_long_running()).then(|| state.metrics.inflight(&info));
    let logged = Arc::new(info.clone());
    let facts = metrics::RequestFacts::of(&query, &parts.headers);
    let queued = Mutex::new(Duration::ZERO);
    let received = AtomicBool::new(false);
    // Whether it has come as far as a handler: what has not is counted by those who ended it.
    let served = AtomicBool::new(false);
    let recorded = state.audit.is_on().then(|| recorded(&id, &parts, &caller));
    let trail: OnceLock<Option<Arc<Trail>>> = OnceLock::new();
    let begin = |user: Option<&User>| {
        let trail = trail.get_or_init(|| state.audit.trail(recorded.clone()?, &logged, user));
        trail.as_ref()
    };
    let warnings = Warnings::default();
    let client = match &caller {
        Caller::Peer(peer) => peer.address.map(|address| address.ip()),
        Caller::Known(_) => None,
    };
    let work = async {
        if let Err(refusal) = parsed {
            if let Refusal::Status(_) = refusal {
                begin(None);
            }
            return Err(refusal);
        }
        if preflight {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        let who = match caller {
            Caller::Peer(peer) => {
                if let Some(text) = authn::warning(&parts.headers) {
                    warnings.add(text.to_owned());
                }
                let who = state.authn.authenticate(&parts.headers, &peer).await;
                let user = who.as_ref().ok().map(|who| who.user().name.as_str());
                let took = since.elapsed();
                state.metrics.access.authenticated(user, took);
                state.metrics.filters.authenticated(took);
                if who.is_err() {
                    begin(None);
                }
                who?
            }
            Caller::Known(who) => who,
        };
        let trail = begin(Some(who.user())).cloned();
        received.store(true, Ordering::Relaxed);
        if let Some(trail) = &trail
            && !trail.stage(Stage::RequestReceived).await
        {
            let text = internal_error(&parts.uri, "failed to store audit event");
            return Err(Refusal::Response(Box::new(response::plain(500, text))));
        }
        let who = state.authz.impersonate(who, &parts.headers, &info).await.map_err(Refusal::denied)?;
        if let (Some(trail), Some(_)) = (&trail, who.impersonator()) {
            trail.impersonated(who.user(), who.constraint());
        }
        // As upstream: a flood costs its seats before anybody looks at what it may do.
        let started = Instant::now();
        let patience = state.flow.patience(limit.map(|limit| limit.saturating_sub(since.elapsed())));
        let seat = state.flow.seat(who.user(), &logged, &query, patience).await;
        let waited = started.elapsed();
        *queued.lock() = waited;
        state.metrics.filters.queued(waited);
        let seat = seat.map_err(|rejected| {
            state.metrics.terminated(&logged, 429);
            Refusal::Response(Box::new(rejected.response()))
        })?;
        let started = Instant::now();
        let auth = state.authz.judge(who, info);
        let took = started.elapsed();
        state.metrics.access.authorized(auth.is_ok(), took);
        state.metrics.filters.authorized(took);
        if let Some(trail) = &trail {
            let (decision, reason) = match &auth {
                Ok(auth) => ("allow", auth.reason()),
                Err(denied) => ("forbid", denied.reason.as_str()),
            };
            trail.annotate("authorization.k8s.io/decision", decision);
            trail.annotate("authorization.k8s.io/reason", reason);
        }
        let auth = match auth {
            Ok(auth) => auth,
            Err(denied) => {
                let mut response = Refusal::denied(denied.status).answer(&answers, &logged, trail.as_deref());
                seat.mark(response.headers_mut());
                return Ok(response);
            }
        };
        let watching = state.flow.watching(auth.info(), &query);
        let http::request::Parts { method, uri, headers, extensions, .. } = parts;
        let body = Mutex::new(body);
        let call = Call {
            auth,
            method,
            uri,
            headers,
            query,
            body,
            extensions,
            client,
            since,
            trail: trail.clone(),
            warnings: warnings.clone(),
        };
        served.store(true, Ordering::Relaxed);
        let mut response = match route(state, call).await {
            Ok(response) => response,
            Err(status) => answers.refuse(&logged, &status, trail.as_deref()),
        };
        seat.mark(response.headers_mut());
        match response.extensions().get::<Tunnel>() {
            Some(tunnel) => tunnel.keep(watching),
            None => response.body_mut().watched(watching),
        }
        drop(seat);
        Ok::<_, Refusal>(response)
    };
    // Boxed, since it is large: connections keep room for the future of a request also while there is none, and a watch is none once
    // it is answered.
    let work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    let outcome = match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            state.metrics.terminated(&logged, 504);
            Ok(Err(timed_out(&logged)))
        }),
        None => work.await,
    };
    let trail = trail.get().and_then(Option::as_ref);
    let mut panicked = false;
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.answer(&answers, &logged, trail.map(Arc::as_ref)),
        Err(panic) => {
            tracing::error!(path = logged.path, panic = panic_text(&*panic), "a handler panicked");
            if let Some(trail) = trail {
                trail.panicked(panic_text(&*panic)).await;
            }
            panicked = true;
            let status = Status::internal("This request caused apiserver to panic. Look in the logs for details.");
            answers.refuse(&logged, &status, None)
        }
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        cors::tell(headers, origin);
    }
    warnings.write(headers);
    // What a proxied answer says of these is said besides.
    if let Ok(id) = HeaderValue::from_str(&id) {
        put_first(headers, HeaderName::from_static("audit-id"), id, logged.is_proxied());
    }
    if !state.config.strict_transport_security.is_empty()
        && let Ok(directives) = HeaderValue::from_str(&state.config.strict_transport_security.join("; "))
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, directives);
    }
    if understood {
        put_first(headers, header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"), logged.is_proxied());
    }
    let (code, took) = (response.status().as_u16(), since.elapsed());
    let waited = *queued.lock();
    if served.load(Ordering::Relaxed) {
        state.metrics.request(&logged, &facts, code, took, waited);
    }
    let held = (logged.is_long_running() && code < 400).then(|| state.metrics.long_running(&logged));
    let trail = trail.filter(|_| !panicked);
    let ending = match trail {
        Some(trail) => answered(trail, code, received.load(Ordering::Relaxed), logged.is_long_running()).await,
        None => None,
    };
    let sizes = state.metrics.response_size(&logged, code);
    if let Some(tunnel) = response.extensions_mut().remove::<Tunnel>() {
        // What is connected goes on after its answer.
        tunnel.keep((held, ending));
        tracing::debug!(verb = logged.verb, path = logged.path, code, "a connection was taken over");
        return response;
    }
    let body = response.body_mut();
    if body.whole().is_none() {
        let (aborts, info) = (state.clone(), logged.clone());
        body.on_abort(move || aborts.metrics.aborted(&info));
    }
    body.counted(held, sizes, ending);
    tracing::debug!(verb = logged.verb, path = logged.path, code, took_us = took.as_micros() as u64, "request");
    response
}

/// Sets a header that is not there; where others' headers are passed on, before theirs.
fn put_first(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue, proxied: bool) {
    if !headers.contains_key(&name) {
        headers.insert(name, value);
    } else if proxied {
        let others: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        headers.insert(name.clone(), value);
        others.into_iter().for_each(|other| {
            headers.append(name.clone(), other);
        });
    }
}

/// What the audit log wants to know of a request.
fn recorded(id: &str, parts: &http::request::Parts, caller: &Caller) -> audit::Request {
    let sources = match caller {
        Caller::Peer(peer) => audit::sources(&parts.headers, peer.address.map(|address| address.ip())),
        Caller::Known(_) => Vec::new(),
    };
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    audit::Request {
        id: id.to_owned(),
        uri: parts.uri.to_string(),
        user_agent: user_agent.to_owned(),
        sources,
        received: jiff::Timestamp::now(),
    }
}

/// Tells the audit log of an answer. What is returned tells it of its end, when that is still to come.
async fn answered(trail: &Arc<Trail>, code: u16, received: bool, long: bool) -> Option<audit::Ending> {
    trail.code(code);
    // Who does not get past authentication is recorded once.
    if !received || long {
        let _ = trail.stage(Stage::ResponseStarted).await;
    }
    if received && !long && trail.is_waited_for() {
        // Who asked has to wait for this: the answer is complete, and goes out when that is known.
        let _ = trail.stage(Stage::ResponseComplete).await;
        return None;
    }
    received.then(|| audit::Ending(trail.clone()))
}

/// The text of a failure before anything can be negotiated.
fn internal_error(uri: &Uri, why: &str) -> String {
    let uri = corten_api::field::quoted(&uri.to_string());
    sanitized(&format!("Internal Server Error: {uri}: {why}\n"))
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

/// In which form the client wants to hear of failures.
struct Answers {
    accept: String,
    pretty: bool,
}

impl Answers {
    fn of(parts: &http::request::Parts, query: &Query) -> Self {
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        Self { accept: text(header::ACCEPT).to_owned(), pretty: negotiate::wants_pretty(query, text(header::USER_AGENT)) }
    }

    fn refuse(&self, info: &RequestInfo, status: &Status, trail: Option<&Trail>) -> Response {
        if let Some(trail) = trail {
            trail.response_status(&status.to_document());
        }
        if status.code >= 500 {
            let because = status.because.as_deref().map(chain).unwrap_or_default();
            tracing::warn!(verb = info.verb, path = info.path, code = status.code, because, "{}", status.message);
        }
        negotiate::status(status, &self.accept, self.pretty)
    }
}

/// Why a request does not get to its handler.
enum Refusal {
    Status(Box<Status>),
    /// The user may not do this.
    Denied(Box<Status>),
    /// What is answered already.
    Response(Box<Response>),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Refusal {
    fn denied(status: Status) -> Self {
        Self::Denied(Box::new(status))
    }

    fn answer(self, answers: &Answers, info: &RequestInfo, trail: Option<&Trail>) -> Response {
        match self {
            Self::Status(status) => answers.refuse(info, &status, trail),
            Self::Denied(status) => {
                let mut response = answers.refuse(info, &status, trail);
                response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                response
            }
            Self::Response(response) => *response,
        }
    }
}

/// The id under which a request is audited: the client's own, or a new one.
fn audit_id(headers: &HeaderMap) -> String {
    match headers.get("audit-id").and_then(|id| id.to_str().ok()) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => response::random_id(),
    }
}

/// Without what a browser could take for markup.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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

/// The `timeout` parameter, within the server's own limits.
fn time_limit(query: &Query, info: &RequestInfo, most: Duration) -> Result<Duration, Status> {
    /// Of writes: whoever asked has often given up by then.
    const MOST_OF_WRITES: Duration = Duration::from_secs(34);
    let most = if is_write(info) { most.min(MOST_OF_WRITES) } else { most };
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(most);
    }
    let asked = duration::parse(text)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    Ok(asked.filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most)))
}

/// Whether it changes one object.
fn is_write(info: &RequestInfo) -> bool {
    info.is_resource && matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete")
}

fn timed_out(info: &RequestInfo) -> Refusal {
    if is_write(info) {
        let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        let mut status = Status::failure(504, "Timeout", why);
        status.details = Some(Details::default());
        return status.into();
    }
    // Whoever gives up on a read does not ask in which form the client wants to hear of it, nor says what kind of document it is.
    let text = "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete within the allotted timeout\",\
                \"reason\":\"Timeout\",\"details\":{},\"code\":504}\n";
    Refusal::Response(Box::new(response::text(504, text)))
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
    fn a_read_that_takes_too_long_is_given_up_in_text_and_a_write_in_a_status() {
        let of = |verb: &str| timed_out(&RequestInfo { is_resource: true, verb: verb.into(), ..RequestInfo::default() });
        let Refusal::Response(read) = of("list") else { panic!("not in the client's form") };
        assert_eq!(
            (read.status().as_u16(), &read.headers()["content-type"]),
            (504, &HeaderValue::from_static("text/plain; charset=utf-8"))
        );
        let Refusal::Status(write) = of("update") else { panic!("in the client's form") };
        assert!(write.message.ends_with("context deadline exceeded"));
    }

    #[test]
    #[rustfmt::skip]
    fn requests_have_the_time_they_ask_for_within_limits() {
        //    verb                timeout    seconds
        check("get",              "",        60);
        check("get",              "10s",     10);
        check("get",              "0",       60);
        check("get",              "-1s",     60);
        check("list",             "5m",      60);
        check("deletecollection", "",        60);
        check("create",           "",        34);
        check("patch",            "1m",      34);
        check("delete",           "3s",      3);
        #[track_caller]
        fn check(verb: &str, timeout: &str, seconds: u64) {
            let info = RequestInfo { is_resource: true, verb: verb.into(), ..RequestInfo::default() };
            let query = Query::parse(&format!("timeout={timeout}"));
            let limit = time_limit(&query, &info, Duration::from_secs(60)).unwrap();
            assert_eq!(limit, Duration::from_secs(seconds), "{verb} {timeout}");
        }
    }
}
