//! The endpoint's paths.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use corten_runtime::{AttachRequest, Container, ContainerEvent, ContainerState, ExecRequest};

use super::exec::{self, Wanted};
use super::websocket::{self, EXEC_PROTOCOLS, Tunnel};
use super::{Body, Endpoint, forward, json, text};
use crate::logs::read::Options;
use crate::pod::PodExt;
use crate::{logs, stats};

const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// Answers a request that is allowed.
pub async fn answer(endpoint: Arc<Endpoint>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match segments.as_slice() {
        ["healthz"] => text(StatusCode::OK, "ok"),
        ["healthz", "ping" | "log" | "syncloop"] => text(StatusCode::OK, "ok"),
        ["pods"] => pods(&endpoint, false),
        ["runningpods"] => pods(&endpoint, true),
        ["configz"] => json(&stats::configz(&endpoint.ctx.config)),
        ["metrics"] => metrics(stats::metrics(&endpoint.ctx, &endpoint.pods)),
        ["metrics", "resource"] => metrics(stats::resource_metrics(&endpoint.ctx, &endpoint.pods).await),
        ["metrics", "cadvisor"] => metrics(stats::cadvisor::metrics(&endpoint.ctx, &endpoint.pods).await),
        ["metrics", "probes"] => metrics(String::new()),
        ["stats", "summary"] => {
            let only = query.flag(&["only_cpu_and_memory"]);
            let Endpoint { ctx, pods, images, rates, .. } = &*endpoint;
            json(&stats::summary::summary(ctx, pods, images.as_ref(), rates, only).await)
        }
        ["logs", rest @ ..] => node_logs(rest),
        ["containerLogs", namespace, pod, container] => container_logs(&endpoint, namespace, pod, container, &query).await,
        ["run", namespace, pod, container] | ["run", namespace, pod, _, container] => {
            run(&endpoint, namespace, pod, container, &query).await
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            let (namespace, pod, container) = ((*namespace).to_owned(), (*pod).to_owned(), (*container).to_owned());
            stream(endpoint, request, &namespace, &pod, &container, &query, true).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            let (namespace, pod, container) = ((*namespace).to_owned(), (*pod).to_owned(), (*container).to_owned());
            stream(endpoint, request, &namespace, &pod, &container, &query, false).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            let (namespace, pod) = ((*namespace).to_owned(), (*pod).to_owned());
            port_forward(endpoint, request, &namespace, &pod).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// Query parameters in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }

    fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|name| matches!(self.get(name), Some("1" | "true" | "True" | "TRUE" | "t")))
    }
}

/// Percent-decoding, with `+` for a space.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn pods(endpoint: &Endpoint, running: bool) -> Response<Body> {
    let items: Vec<Pod> = endpoint
        .pods
        .list()
        .into_iter()
        .filter(|(_, status)| !running || status.phase.as_deref() == Some("Running"))
        .map(|(pod, status)| Pod { status: Some(status), ..(*pod).clone() })
        .collect();
    json(&serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

fn metrics(body: String) -> Response<Body> {
    super::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", body)
}

/// Files below `/var/log`.
fn node_logs(path: &[&str]) -> Response<Body> {
    let root = std::path::Path::new("/var/log");
    let relative: std::path::PathBuf = path.iter().map(|segment| decode(segment)).collect();
    let not_found = || text(StatusCode::NOT_FOUND, "404 page not found\n");
    // Links may lead anywhere; only what really lies below is shown.
    let Ok(real) = root.join(relative).canonicalize() else { return not_found() };
    if !real.starts_with(root) {
        return not_found();
    }
    if real.is_dir() {
        let entries = std::fs::read_dir(&real).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let slash = if entry.path().is_dir() { "/" } else { "" };
                Some(format!("{}{slash}", entry.file_name().to_str()?))
            })
            .collect();
        names.sort_unstable();
        let escape = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
        let lines: Vec<String> = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escape(name))).collect();
        return super::typed(StatusCode::OK, "text/html; charset=utf-8", format!("<pre>\n{}</pre>\n", lines.concat()));
    }
    std::fs::read(&real).map_or_else(|_| not_found(), |bytes| text(StatusCode::OK, bytes))
}

/// The newest container of a name, or the answer that says why there is none.
fn find(
    endpoint: &Endpoint,
    namespace: &str,
    name: &str,
    container: &str,
) -> Result<(Arc<Pod>, Option<Container>), Response<Body>> {
    let Some(pod) = endpoint.pods.find(namespace, name, None) else {
        return Err(text(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found\n")));
    };
    if pod.container(container).is_none() {
        return Err(text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {name:?}\n")));
    }
    let found = crate::plan::latest(&endpoint.ctx.cache.pod(pod.uid()).containers, container).cloned();
    Ok((pod, found))
}

async fn container_logs(endpoint: &Arc<Endpoint>, namespace: &str, name: &str, container: &str, query: &Query) -> Response<Body> {
    let (pod, latest) = match find(endpoint, namespace, name, container) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let options = match log_options(query, endpoint.ctx.clock.now()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let log = match log_of(endpoint, &pod, container, latest, query.flag(&["previous"])) {
        Ok(container) => container,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let (out, bytes) = mpsc::channel::<Bytes>(4);
    let (ctx, follow) = (endpoint.ctx.clone(), options.follow);
    endpoint.tasks.spawn("log", async move {
        let mut events = ctx.runtime.events();
        let ended = async {
            // Lagging events are as good as the event itself: the state is looked up.
            loop {
                let running = ctx.cache.owner(&log.id).is_some_and(|(_, container)| container.state == ContainerState::Running);
                if !running {
                    return;
                }
                loop {
                    match events.recv().await {
                        Ok(ContainerEvent::Changed { container, .. }) if container != log.id && !container.is_empty() => {}
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                        _ => break,
                    }
                }
                // The cache hears of it at the same time as we do.
                if let Some((uid, _)) = ctx.cache.owner(&log.id)
                    && ctx.cache.observe(&uid, &log.id).await.is_err()
                {
                    return;
                }
            }
        };
        if let Err(err) = logs::read::send(&log.log_path, &options, &out, ended).await {
            tracing::debug!(error = %err, path = %log.log_path.display(), "read a log");
            let message = format!("failed to try resolving symlinks in path {:?}: {err}", log.log_path.display().to_string());
            let _ = out.send(message.into()).await;
        }
    });
    let frames = futures::stream::unfold(bytes, |mut bytes| async move {
        let next = bytes.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Frame::data(next)), bytes))
    });
    let mut response = Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if follow {
        response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    response
}

/// The container whose log is meant, or upstream's words for why there is none.
fn log_of(endpoint: &Endpoint, pod: &Pod, name: &str, latest: Option<Container>, previous: bool) -> Result<Container, String> {
    if previous {
        let containers = endpoint.ctx.cache.pod(pod.uid()).containers;
        // The run before the newest one, or the newest one itself while it waits to be restarted.
        let status = endpoint.pods.status(pod.uid()).unwrap_or_default();
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let waits = statuses
            .clone()
            .any(|status| status.name == name && status.state.as_ref().is_some_and(|state| state.waiting.is_some()));
        let mut runs: Vec<_> = containers
            .into_iter()
            .filter(|container| container.name == name && container.state == ContainerState::Exited)
            .collect();
        runs.sort_by_key(|container| std::cmp::Reverse(container.attempt));
        let newest = latest.map_or(0, |latest| latest.attempt);
        let found = runs.into_iter().find(|container| waits || container.attempt < newest);
        return found.ok_or_else(|| format!("previous terminated container {name:?} in pod {:?} not found", pod.name()));
    }
    if let Some(container) = latest.filter(|container| container.state != ContainerState::Created) {
        return Ok(container);
    }
    let status = endpoint.pods.status(pod.uid()).unwrap_or_default();
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found = all.into_iter().flatten().flatten().find(|status| status.name == name).cloned();
    let waiting = found.and_then(|status| status.state?.waiting);
    let reason = waiting.as_ref().and_then(|waiting| waiting.reason.clone()).unwrap_or_else(|| "ContainerCreating".to_owned());
    if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff") {
        let why = if reason == "ErrImagePull" { "image can't be pulled" } else { "trying and failing to pull image" };
        return Err(format!("container {name:?} in pod {:?} is waiting to start: {why}", pod.name()));
    }
    Err(format!("container {name:?} in pod {:?} is waiting to start: {reason}", pod.name()))
}

fn log_options(query: &Query, now: jiff::Timestamp) -> Result<Options, String> {
    let number = |name: &str| match query.get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value.parse::<u64>().map(Some).map_err(|_| format!("invalid {name}: {value:?}")),
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime").filter(|value| !value.is_empty())) {
        (Some(seconds), _) => Some(now - std::time::Duration::from_secs(seconds)),
        (None, Some(time)) => Some(time.parse().map_err(|_| format!("invalid sinceTime: {time:?}"))?),
        _ => None,
    };
    Ok(Options {
        follow: query.flag(&["follow"]),
        timestamps: query.flag(&["timestamps"]),
        tail: number("tailLines")?.or(number("tail")?),
        limit: number("limitBytes")?,
        since,
        stream: match query.get("stream") {
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            _ => None,
        },
    })
}

async fn run(endpoint: &Endpoint, namespace: &str, pod: &str, container: &str, query: &Query) -> Response<Body> {
    let found = match find(endpoint, namespace, pod, container) {
        Ok((_, Some(found))) if found.state == ContainerState::Running => found,
        Ok(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})")),
        Err(refusal) => return refusal,
    };
    let command: Vec<String> = query.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    match endpoint.ctx.runtime.exec_sync(&found.id, &command, None).await {
        Ok(output) => {
            let mut all = output.stdout;
            all.extend(output.stderr);
            let status = if output.exit_code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            text(status, all)
        }
        Err(err) => text(StatusCode::INTERNAL_SERVER_ERROR, crate::chain(&err)),
    }
}

/// Exec and attach.
async fn stream(
    endpoint: Arc<Endpoint>,
    mut request: Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
    executes: bool,
) -> Response<Body> {
    let (pod, found) = match find(&endpoint, namespace, pod, container) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let Some(found) = found.filter(|found| found.state == ContainerState::Running) else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("unable to upgrade connection: container not found ({container:?})"),
        );
    };
    let wanted = Wanted {
        command: query.all("command"),
        stdin: query.flag(&["input", "stdin"]),
        stdout: query.flag(&["output", "stdout"]),
        stderr: query.flag(&["error", "stderr"]),
        tty: if executes {
            query.flag(&["tty"])
        } else {
            pod.container(container).is_some_and(|(_, spec)| spec.tty == Some(true))
        },
    };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let framing = match negotiate(request.headers(), &EXEC_PROTOCOLS, "v4.channel.k8s.io") {
        Ok(framing) => framing,
        Err(refusal) => return refusal,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let runtime = endpoint.ctx.runtime.clone();
    let response = framing.response();
    endpoint.tasks.spawn("exec", async move {
        let Ok(upgraded) = upgrade.await else { return };
        let open = async |wanted: &Wanted| {
            if executes {
                let request = ExecRequest {
                    command: wanted.command.clone(),
                    stdin: wanted.stdin,
                    stdout: wanted.stdout,
                    stderr: wanted.stderr && !wanted.tty,
                    tty: wanted.tty,
                };
                runtime.exec(&found.id, &request).await
            } else {
                let (stdin, stdout, tty) = (wanted.stdin, wanted.stdout, wanted.tty);
                let request = AttachRequest { stdin, stdout, stderr: wanted.stderr && !tty, tty };
                runtime.attach(&found.id, &request).await
            }
        };
        match framing {
            Framing::WebSocket { protocol, .. } => {
                let socket = websocket::accept(upgraded).await;
                let (remote, work) = websocket::channels(socket, &wanted, &protocol);
                let process = async { exec::run(open(&wanted).await, remote).await };
                tokio::join!(process, work);
            }
            Framing::Spdy { .. } => {
                let (streams, work) = forward::exec(TokioIo::new(upgraded), wanted.clone());
                let process = async {
                    if let Some(remote) = streams.await {
                        exec::run(open(&wanted).await, remote).await;
                    }
                };
                tokio::join!(process, work);
            }
        }
    });
    response
}

async fn port_forward(endpoint: Arc<Endpoint>, mut request: Request<Incoming>, namespace: &str, pod: &str) -> Response<Body> {
    let Some(pod) = endpoint.pods.find(namespace, pod, None) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} not found\n"));
    };
    let sandbox = endpoint.ctx.cache.pod(pod.uid()).sandboxes.into_iter().find(|sandbox| sandbox.ready);
    let Some(sandbox) = sandbox else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("unable to do port forwarding: pod {:?} has no running sandbox", pod.name()),
        );
    };
    let framing = match negotiate(request.headers(), &[TUNNELLED], PORT_FORWARD) {
        Ok(framing) => framing,
        Err(refusal) => return refusal,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let response = framing.response();
    let (runtime, tasks) = (endpoint.ctx.runtime.clone(), endpoint.tasks.clone());
    endpoint.tasks.spawn("port-forward", async move {
        let Ok(upgraded) = upgrade.await else { return };
        match framing {
            Framing::WebSocket { .. } => {
                let tunnel = Tunnel::new(websocket::accept(upgraded).await);
                forward::ports(tunnel, runtime, sandbox.id, tasks).await;
            }
            Framing::Spdy { .. } => forward::ports(TokioIo::new(upgraded), runtime, sandbox.id, tasks).await,
        }
    });
    response
}

/// How the upgraded connection is used.
enum Framing {
    WebSocket { accept: String, protocol: String },
    Spdy { protocol: &'static str },
}

impl Framing {
    fn response(&self) -> Response<Body> {
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
        let headers = response.headers_mut();
        headers.remove(http::header::CONTENT_TYPE);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::WebSocket { accept, protocol } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(http::header::SEC_WEBSOCKET_ACCEPT, accept);
                }
                if let Ok(protocol) = HeaderValue::from_str(protocol)
                    && !protocol.is_empty()
                {
                    headers.insert(http::header::SEC_WEBSOCKET_PROTOCOL, protocol);
                }
            }
            Self::Spdy { protocol } => {
                headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert("x-stream-protocol-version", HeaderValue::from_static(protocol));
            }
        }
        response
    }
}

/// Chooses framing and protocol: the first of the client's WebSocket protocols that is in `sockets`, or SPDY with `spdy`.
fn negotiate(headers: &HeaderMap, sockets: &[&str], spdy: &'static str) -> Result<Framing, Response<Body>> {
    let values = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        all.flat_map(|value| value.split(',')).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
    };
    let upgrade = values("upgrade");
    let refused = |message: String| Err(text(StatusCode::FORBIDDEN, message));
    if upgrade.iter().any(|value| value.eq_ignore_ascii_case("websocket")) {
        let Some(key) = headers.get(http::header::SEC_WEBSOCKET_KEY) else {
            return Err(text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"));
        };
        let offered = values("sec-websocket-protocol");
        let chosen = offered.iter().find(|protocol| sockets.contains(&protocol.as_str()));
        // Clients from before the negotiation offer nothing and mean plain channels.
        let protocol = match chosen {
            Some(protocol) => protocol.clone(),
            None if offered.is_empty() && sockets.len() > 1 => String::new(),
            None => {
                return refused(format!(
                    "unable to upgrade: none of the protocols {offered:?} is supported; server supports {sockets:?}"
                ));
            }
        };
        return Ok(Framing::WebSocket { accept: derive_accept_key(key.as_bytes()), protocol });
    }
    if upgrade.iter().any(|value| value.eq_ignore_ascii_case("spdy/3.1")) {
        let offered = values("x-stream-protocol-version");
        if !offered.is_empty() && !offered.iter().any(|protocol| protocol == spdy) {
            return refused(format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{spdy:?}]"
            ));
        }
        return Ok(Framing::Spdy { protocol: spdy });
    }
    Err(text(StatusCode::BAD_REQUEST, "Upgrade request required"))
}
