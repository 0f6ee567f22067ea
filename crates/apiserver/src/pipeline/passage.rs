//! A request on its way through the server: the steps it takes, and what has to be known of it at its end, however it ends.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;

use super::refusal::{Answers, Refusal, panic_text, timed_out};
use super::{Call, Caller, route};
use crate::audit::{self, Stage, Trail};
use crate::flowcontrol::Seat;
use crate::metrics::RequestFacts;
use crate::proof::{Authenticated, Authorized};
use crate::request::{Query, RequestInfo};
use crate::response::{self, RequestBody, Response, Tunnel};
use crate::state::State;
use crate::user::User;
use crate::warnings::Warnings;
use crate::{authn, cors};

/// How a request ended: answered, refused, or with a panic.
type Outcome = Result<Result<Response, Refusal>, Box<dyn Any + Send>>;

pub(super) struct Passage<'s> {
    state: &'s Arc<State>,
    since: Instant,
    info: Arc<RequestInfo>,
    answers: Answers,
    facts: RequestFacts,
    /// Under which it is audited.
    id: String,
    client: Option<IpAddr>,
    /// The page that asks, when it may.
    origin: Option<HeaderValue>,
    is_preflight: bool,
    /// Whether the path means something to this server.
    is_understood: bool,
    warnings: Warnings,
    /// What its trail begins with, when requests are audited and it has not begun.
    recorded: Option<audit::Request>,
    trail: Option<Arc<Trail>>,
    /// Whether it came past authentication.
    is_received: bool,
    /// Whether it came as far as a handler: what has not is counted by those who ended it.
    is_served: bool,
    /// How long it waited for a seat.
    queued: Duration,
}

impl<'s> Passage<'s> {
    pub(super) fn new(
        state: &'s Arc<State>,
        since: Instant,
        parts: &Parts,
        query: &Query,
        info: &RequestInfo,
        caller: &Caller,
    ) -> Self {
        let origin = state.cors.as_ref().and_then(|cors| cors.origin(&parts.headers));
        let id = audit_id(&parts.headers);
        Self {
            state,
            since,
            info: Arc::new(info.clone()),
            answers: Answers::of(parts, query),
            facts: RequestFacts::of(query, &parts.headers),
            client: match caller {
                Caller::Peer(peer) => peer.address.map(|address| address.ip()),
                Caller::Known(_) => None,
            },
            is_preflight: origin.is_some() && cors::is_preflight(&parts.method),
            origin,
            is_understood: true,
            warnings: Warnings::default(),
            recorded: state.audit.is_on().then(|| recorded(&id, parts, caller)),
            id,
            trail: None,
            is_received: false,
            is_served: false,
            queued: Duration::ZERO,
        }
    }

    /// Of a request that means nothing to this server.
    pub(super) fn not_understood(&mut self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Response(_) => self.is_understood = false,
            _ => self.begin_trail(None),
        }
        refusal
    }

    /// Of a request that was given up in the middle of its steps.
    pub(super) fn out_of_time(&self) -> Refusal {
        self.state.metrics.requests.terminated(&self.info, 504);
        timed_out(&self.info)
    }

    /// Who, in whose name, a seat, may they, and the handler.
    pub(super) async fn steps(
        &mut self,
        caller: Caller,
        info: RequestInfo,
        parts: Parts,
        query: Query,
        body: RequestBody,
        limit: Option<Duration>,
    ) -> Result<Response, Refusal> {
        if self.is_preflight {
            return Ok(response::empty(StatusCode::NO_CONTENT));
        }
        let who = self.authenticate(caller, &parts.headers).await?;
        self.is_received = true;
        if let Some(trail) = &self.trail
            && !trail.stage(Stage::RequestReceived).await
        {
            return Err(Refusal::internal_error(&parts.uri, "failed to store audit event"));
        }
        let who = self.state.authz.impersonate(who, &parts.headers, &info).await.map_err(Refusal::denied)?;
        if let (Some(trail), Some(_)) = (&self.trail, who.impersonator()) {
            trail.impersonated(who.user(), who.constraint());
        }
        // As upstream: a flood costs its seats before anybody looks at what it may do.
        let seat = self.seat(who.user(), &query, limit).await?;
        let mut response = match self.authorize(who, info) {
            Ok(auth) => self.serve(auth, parts, query, body).await,
            Err(denied) => denied.answer(&self.answers, &self.info, self.trail.as_deref()),
        };
        seat.mark(response.headers_mut());
        Ok(response)
    }

    async fn authenticate(&mut self, caller: Caller, headers: &HeaderMap) -> Result<Authenticated, Refusal> {
        let who = match caller {
            Caller::Known(who) => Ok(who),
            Caller::Peer(peer) => {
                if let Some(text) = authn::warning(headers) {
                    self.warnings.add(text.to_owned());
                }
                let who = self.state.authn.authenticate(headers, &peer).await;
                let took = self.since.elapsed();
                let metrics = &self.state.metrics;
                metrics.access.authenticated(who.as_ref().ok().map(|who| who.user().name.as_str()), took);
                metrics.filters.authenticated(took);
                who
            }
        };
        self.begin_trail(who.as_ref().ok().map(Authenticated::user));
        Ok(who?)
    }

    async fn seat(&mut self, user: &User, query: &Query, limit: Option<Duration>) -> Result<Seat, Refusal> {
        let started = Instant::now();
        let patience = self.state.flow.patience(limit.map(|limit| limit.saturating_sub(self.since.elapsed())));
        let seat = self.state.flow.seat(user, &self.info, query, patience).await;
        self.queued = started.elapsed();
        self.state.metrics.filters.queued(self.queued);
        seat.map_err(|rejected| {
            self.state.metrics.requests.terminated(&self.info, 429);
            Refusal::Response(Box::new(rejected.response()))
        })
    }

    fn authorize(&self, who: Authenticated, info: RequestInfo) -> Result<Authorized, Refusal> {
        let started = Instant::now();
        let auth = self.state.authz.judge(who, info);
        let took = started.elapsed();
        self.state.metrics.access.authorized(auth.is_ok(), took);
        self.state.metrics.filters.authorized(took);
        if let Some(trail) = &self.trail {
            let (decision, reason) = match &auth {
                Ok(auth) => ("allow", auth.reason()),
                Err(denied) => ("forbid", denied.reason.as_str()),
            };
            trail.annotate("authorization.k8s.io/decision", decision);
            trail.annotate("authorization.k8s.io/reason", reason);
        }
        auth.map_err(|denied| Refusal::denied(denied.status))
    }

    async fn serve(&mut self, auth: Authorized, parts: Parts, query: Query, body: RequestBody) -> Response {
        let watching = self.state.flow.watching(auth.info(), &query);
        let Parts { method, uri, headers, extensions, .. } = parts;
        let call = Call {
            auth,
            method,
            uri,
            headers,
            query,
            body: Mutex::new(body),
            extensions,
            client: self.client,
            since: self.since,
            trail: self.trail.clone(),
            warnings: self.warnings.clone(),
        };
        self.is_served = true;
        let mut response = match route(self.state, call).await {
            Ok(response) => response,
            Err(status) => self.answers.refuse(&self.info, &status, self.trail.as_deref()),
        };
        match response.extensions().get::<Tunnel>() {
            Some(tunnel) => tunnel.keep(watching),
            None => response.body_mut().watched(watching),
        }
        response
    }

    fn begin_trail(&mut self, user: Option<&User>) {
        self.trail = self.recorded.take().and_then(|recorded| self.state.audit.trail(recorded, &self.info, user));
    }

    /// The answer, with what every answer has, counted and recorded.
    pub(super) async fn end(self, outcome: Outcome) -> Response {
        let Self { state, info, .. } = &self;
        // The trail of a panic ends with it.
        let trail = self.trail.as_ref().filter(|_| outcome.is_ok());
        let mut response = self.response(outcome).await;
        self.write_headers(response.headers_mut());
        let (code, took) = (response.status().as_u16(), self.since.elapsed());
        if self.is_served {
            state.metrics.requests.answered(info, &self.facts, code, took, self.queued);
        }
        let held = (info.is_long_running() && code < 400).then(|| state.metrics.requests.long_running(info));
        let ending = match trail {
            Some(trail) => self.answered(trail, code).await,
            None => None,
        };
        let sizes = state.metrics.requests.response_size(info, code);
        if let Some(tunnel) = response.extensions_mut().remove::<Tunnel>() {
            // What is connected goes on after its answer.
            tunnel.keep((held, ending));
            tracing::debug!(verb = info.verb, path = info.path, code, "a connection was taken over");
            return response;
        }
        let body = response.body_mut();
        if body.whole().is_none() {
            let (aborts, info) = (Arc::clone(state), info.clone());
            body.on_abort(move || aborts.metrics.requests.aborted(&info));
        }
        body.counted(held, sizes, ending);
        tracing::debug!(verb = info.verb, path = info.path, code, took_us = took.as_micros() as u64, "request");
        response
    }

    async fn response(&self, outcome: Outcome) -> Response {
        match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(refusal)) => refusal.answer(&self.answers, &self.info, self.trail.as_deref()),
            Err(panic) => {
                let text = panic_text(&*panic).to_owned();
                drop(panic);
                tracing::error!(path = self.info.path, panic = text, "a handler panicked");
                if let Some(trail) = &self.trail {
                    trail.panicked(&text).await;
                }
                self.answers.panicked(&self.info)
            }
        }
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        if let Some(origin) = &self.origin {
            cors::tell(headers, origin.clone());
        }
        self.warnings.write(headers);
        // What a proxied answer says of these is said besides.
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            put_first(headers, HeaderName::from_static("audit-id"), id, self.info.is_proxied());
        }
        let transport = &self.state.config.strict_transport_security;
        if !transport.is_empty()
            && let Ok(directives) = HeaderValue::from_str(&transport.join("; "))
        {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, directives);
        }
        if self.is_understood {
            put_first(headers, header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"), self.info.is_proxied());
        }
    }

    /// Tells the audit log of an answer. What is returned tells it of its end, when that is still to come.
    async fn answered(&self, trail: &Arc<Trail>, code: u16) -> Option<audit::Ending> {
        trail.code(code);
        // Who does not get past authentication is recorded once.
        if !self.is_received || self.info.is_long_running() {
            let _ = trail.stage(Stage::ResponseStarted).await;
        }
        if self.is_received && !self.info.is_long_running() && trail.is_waited_for() {
            // Who asked has to wait for this: the answer is complete, and goes out when that is known.
            let _ = trail.stage(Stage::ResponseComplete).await;
            return None;
        }
        self.is_received.then(|| audit::Ending(trail.clone()))
    }
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
fn recorded(id: &str, parts: &Parts, caller: &Caller) -> audit::Request {
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

/// The id under which a request is audited: the client's own, or a new one.
fn audit_id(headers: &HeaderMap) -> String {
    match headers.get("audit-id").and_then(|id| id.to_str().ok()) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => response::random_id(),
    }
}
