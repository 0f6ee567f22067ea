//! Requests that are passed on to a node, a pod or a service: log, exec, attach, portforward, proxy.
//!
//! The server is in between and understands nothing of what goes by: after a `101` (WebSocket, SPDY) it copies bytes both
//! ways until one side ends. Kubelets are reached over TLS with the server's client certificate and must show one of the
//! cluster's CA.

mod log;
mod rewrite;
mod target;
mod translated;
mod transport;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::response::{self, Body, RequestBody, Response, Tunnel};
use crate::socket;
use crate::state::State;

use target::Target;
pub use target::object_name;

/// Headers that are about one connection and go no further (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// HTML longer than this is passed on without rewriting its links.
const MAX_HTML: usize = 4 << 20;

/// Refuses options that make no sense, before anything is looked up.
///
/// # Errors
/// 400 for what cannot be read, 422 for what is out of range.
pub fn check_options(call: &Call) -> Result<(), Status> {
    match call.info().subresource.as_str() {
        "log" => log::check_options(call),
        "proxy" => target::check_name(call.info()),
        "portforward" => {
            let ports = call.query.all("ports").flat_map(|ports| ports.split(','));
            for port in ports.filter(|port| !port.is_empty()) {
                if let Err(err) = port.parse::<u16>() {
                    let overflows = matches!(err.kind(), std::num::IntErrorKind::PosOverflow);
                    let why = if overflows { "value out of range" } else { "invalid syntax" };
                    let shown = corten_api::field::quoted(port);
                    let why = format!("cannot convert to []int32: strconv.ParseUint: parsing {shown}: {why}");
                    return Err(Status::bad_request(why));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Serves a subresource of `object` (a Pod, Service or Node) that is a connection. Admission has agreed.
///
/// # Errors
/// In upstream's words: no node, no such container, nothing answers.
pub async fn serve(state: &Arc<State>, mut call: Call, object: Value) -> Result<Response, Status> {
    let info = call.info();
    if info.subresource == "proxy" {
        return proxy(state, call, &object).await;
    }
    let is_log = info.subresource == "log";
    let target = target::kubelet(state, &call, &object).map_err(of_pod)?;
    let Some(target) = target else {
        // The log of a pod that is nowhere has no content.
        return Ok(response::empty(StatusCode::NO_CONTENT));
    };
    if !is_log && !wants_upgrade(&call.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let is_exec = matches!(info.subresource.as_str(), "exec" | "attach");
    if let Some(socket) = is_exec.then(|| socket::wished(&call)).flatten().and_then(|wish| wish.speaking(translated::PROTOCOL)) {
        return translated::serve(state, call, &target, socket).await;
    }
    // A log may go to a browser; kubelets know nothing of that.
    let socket = if is_log { socket::wished(&call) } else { None };
    if is_log {
        // The server asks for itself: how the client wants to be answered is no business of the kubelet's.
        call.headers.clear();
    }
    let mut response = forward(state, call, &target, if is_log { For::Log } else { For::Upgrade }).await?;
    if let Some(mut socket) = socket
        && response.status().is_success()
    {
        let framing = socket.negotiate()?;
        return Ok(socket.fulfil(state, framing, response.into_body().into_data_stream()));
    }
    if is_log && response.status().is_success() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    Ok(response)
}

/// A node that is not there, as upstream tells it to those who asked for a pod.
fn of_pod(status: Status) -> Status {
    match &status.details {
        Some(details) if status.code == 404 => Status::not_found("", "pods", &details.name),
        _ => status,
    }
}

async fn proxy(state: &Arc<State>, call: Call, object: &Value) -> Result<Response, Status> {
    let path = call.uri.path().to_owned();
    let rest = target::rest(&path, &call.info().resource);
    let target = target::proxied(state, &call, object, rest).await?;
    // A browser resolves links against the directory: the proxied root has to look like one.
    if rest.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut response = response::empty(StatusCode::MOVED_PERMANENTLY);
        if let Ok(location) = HeaderValue::from_str(&format!("{path}/{query}")) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        return Ok(response);
    }
    let prefix = path[..path.len() - rest.len()].to_owned();
    let way = For::Proxy(format!("{prefix}{}", clean(rest)));
    let response = forward(state, call, &target, way).await?;
    rewritten(response, &prefix, &target).await
}

/// Changes what in an answer points to the target's own root.
async fn rewritten(mut response: Response, prefix: &str, target: &Target) -> Result<Response, Status> {
    if let Some(location) = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok())
        && let Some(location) = rewrite::location(location, prefix, &target.authority())
        && let Ok(location) = HeaderValue::from_str(&location)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    let headers = response.headers();
    let html = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || headers.contains_key(header::LOCATION) {
        return Ok(response);
    }
    if !html || headers.contains_key(header::CONTENT_ENCODING) || length.is_none_or(|length| length > MAX_HTML) {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|err| unreachable(&err.to_string()))?.to_bytes();
    let body = match std::str::from_utf8(&body) {
        Ok(text) => bytes::Bytes::from(rewrite::html(text, prefix, &target.authority())),
        Err(_) => body,
    };
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Asks the server of an API group version at `host` whether it answers to `path`. Nobody vouches for its certificate: the
/// answer says no more than that it is there.
///
/// # Errors
/// What went wrong, as the condition of the APIService says it.
pub(crate) async fn discover(state: &Arc<State>, host: String, port: u16, path: &str) -> Result<(), String> {
    /// The request should happen quickly.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
    let target = Target { security: target::Security::FrontProxy, host, port, path: path.to_owned() };
    let url = format!("https://{}{path}", target.authority());
    let body: RequestBody = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    // The group sees to it that rights are never in the way.
    let request = http::Request::get(path)
        .header(header::HOST, target.authority())
        .header("X-Remote-User", "system:kube-aggregator")
        .header("X-Remote-Group", "system:masters")
        .body(body)
        .map_err(|err| err.to_string())?;
    let missing = |why: &dyn std::fmt::Display| format!("failing or missing response from {url}: {why}");
    match tokio::time::timeout(PATIENCE, transport::send(state, &target, request)).await {
        Err(_) => Err(format!("timed out waiting for {url}")),
        Ok(Err(err)) => Err(missing(&err)),
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(missing(&format_args!("bad status from {url}: {}", answer.status().as_u16()))),
    }
}

/// What a request is passed on for.
enum For {
    /// A log, which the server asks for.
    Log,
    /// A connection of its own: exec, attach, portforward.
    Upgrade,
    /// The same, for a client that is connected already: it hears of failures over its connection.
    Translated,
    /// Whatever the client wants; with the path that it asked for.
    Proxy(String),
}

/// Passes a request on and its answer back; an upgrade becomes a tunnel.
async fn forward(state: &Arc<State>, mut call: Call, target: &Target, way: For) -> Result<Response, Status> {
    let upgrade = call.extensions.remove::<OnUpgrade>().filter(|_| wants_upgrade(&call.headers));
    let mut request = http::Request::builder()
        .method(call.method.clone())
        .uri(target.path.parse::<Uri>().map_err(|err| Status::bad_request(err.to_string()))?);
    if let Some(headers) = request.headers_mut() {
        *headers = passed_on(&call.headers, upgrade.is_some());
        let authority = HeaderValue::from_str(&target.authority()).map_err(|err| Status::bad_request(err.to_string()))?;
        headers.insert(header::HOST, authority);
        if !matches!(way, For::Log) {
            forwarded_for(headers, call.client);
        }
        if let For::Proxy(path) = &way
            && upgrade.is_none()
            && let Ok(path) = HeaderValue::from_str(path)
        {
            headers.insert("x-forwarded-uri", path);
        }
    }
    let empty: RequestBody = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    let body = if upgrade.is_some() { empty } else { call.take_body() };
    let request = request.body(body).map_err(|err| Status::bad_request(err.to_string()))?;

    let failed = |err: transport::TransportError| match &way {
        For::Log => {
            let url = corten_api::field::quoted(&format!("https://{}{}", target.authority(), target.path));
            Status::failure(500, "", format!("Get {url}: {err}"))
        }
        For::Translated => {
            let url = corten_api::field::quoted(&format!("https://{}{}", target.authority(), target.path.replace("%20", "+")));
            Status::internal(format!("error sending request: Post {url}: {err}"))
        }
        For::Proxy(_) if upgrade.is_none() => unreachable(&err.to_string()),
        _ => Status::failure(500, "", format!("error dialing backend: {err}")),
    };
    let mut answer = transport::send(state, target, request).await.map_err(failed)?;
    let is_translated = matches!(way, For::Translated);
    if upgrade.is_some() && !is_translated && answer.status() != StatusCode::SWITCHING_PROTOCOLS && answer.status().as_u16() < 400
    {
        let why = format!("invalid upgrade response: status code {}", answer.status().as_u16());
        return Err(Status::failure(500, "", why));
    }
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = answer.into_parts();
        for name in named_by_connection(&parts.headers) {
            parts.headers.remove(name);
        }
        for name in &HOP_BY_HOP {
            parts.headers.remove(name);
        }
        return Ok(Response::from_parts(parts, Body::wrap(body)));
    }
    let Some(client) = upgrade else { return Err(unreachable("the backend switched protocols without being asked")) };
    let backend = hyper::upgrade::on(&mut answer);
    let tunnel = Tunnel::default();
    let kept = tunnel.clone();
    state.tasks.spawn("tunnel", async move {
        let _kept = kept;
        match futures::future::try_join(client, backend).await {
            Ok((client, backend)) => {
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                // An end in disorder is an end: the client went, or the container did.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
            }
            Err(err) => tracing::debug!(error = %err, "an upgrade did not come about"),
        }
    });
    let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
    *response.headers_mut() = answer.headers().clone();
    response.extensions_mut().insert(tunnel);
    Ok(response)
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked = connection.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    asked && headers.contains_key(header::UPGRADE)
}

/// The headers that go on: no credentials of the client's, nothing about its connection to us.
fn passed_on(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut passed = HeaderMap::new();
    let named = named_by_connection(headers);
    for (name, value) in headers {
        let private = name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-");
        let hop = HOP_BY_HOP.contains(name) || named.contains(name) || name == header::HOST;
        if !private && !hop {
            passed.append(name.clone(), value.clone());
        }
    }
    if upgrade {
        passed.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        for value in headers.get_all(header::UPGRADE) {
            passed.append(header::UPGRADE, value.clone());
        }
    }
    passed
}

/// Headers that `Connection` says are about one connection.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// Adds the client to those through whom the request has come.
fn forwarded_for(headers: &mut HeaderMap, client: Option<std::net::IpAddr>) {
    let Some(client) = client else { return };
    let name = HeaderName::from_static("x-forwarded-for");
    let mut through: Vec<String> =
        headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    through.push(client.to_string());
    if let Ok(value) = HeaderValue::from_str(&through.join(", ")) {
        headers.insert(name, value);
    }
}

/// A path without empty parts and dots, as upstream tells it to who is proxied to.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') { "/" } else { "" };
    if parts.is_empty() { end.to_owned() } else { format!("/{}{end}", parts.join("/")) }
}

/// 503 `error trying to reach service: why`
fn unreachable(why: &str) -> Status {
    Status::failure(503, "ServiceUnavailable", format!("error trying to reach service: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn credentials_and_what_is_about_one_connection_go_no_further() {
        let sent = headers(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "eve"),
            ("connection", "x-own, keep-alive"),
            ("x-own", "1"),
            ("keep-alive", "1"),
            ("proxy-authorization", "y"),
            ("cookie", "a=b"),
        ]);
        assert_eq!(passed_on(&sent, false), headers(&[("cookie", "a=b")]));
    }

    #[test]
    fn who_is_proxied_to_is_told_of_the_client() {
        let mut sent = headers(&[("x-forwarded-for", "1.2.3.4")]);
        forwarded_for(&mut sent, Some([10, 0, 0, 1].into()));
        assert_eq!(sent["x-forwarded-for"], "1.2.3.4, 10.0.0.1");
        for (path, cleaned) in [("/a//b/../c", "/a/c"), ("/", "/"), ("", ""), ("/x/", "/x/"), ("/..", "")] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
