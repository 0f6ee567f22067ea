//! The endpoint over in-memory connections, with a fake runtime behind it.

use std::time::Duration;

use base64::Engine as _;
use corten_fakeapi::FakeApi;
use futures::{SinkExt, StreamExt};
use http_body_util::Empty;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::spdy::client::{Frames, read_stream};
use super::*;
use crate::clock::Clock;
use crate::config::{Config, Host, Server};
use crate::events::Events;
use crate::images::ImageManager;
use crate::machine::Machine;
use crate::test::runtime::FakeRuntime;

struct Served {
    endpoint: Arc<Endpoint>,
    api: FakeApi,
    runtime: FakeRuntime,
    dir: tempfile::TempDir,
    user: Option<auth::User>,
}

impl Served {
    /// An endpoint with the pod `default/web`, whose container `a` runs.
    async fn new() -> Self {
        let api = FakeApi::new();
        let runtime = FakeRuntime::new(Clock::System);
        let dir = tempfile::tempdir().expect("a directory");
        let tasks = Tasks::root("test");
        let config = Config {
            node_name: "n1".to_owned(),
            root: dir.path().join("kubelet"),
            pod_logs: dir.path().join("logs"),
            container_logs: None,
            host: Host { manage: false, ..Host::default() },
            server: Server { address: None, authorize: false, ..Server::default() },
            eviction: Vec::new(),
            ..Config::default()
        };
        let client = api.client();
        let shared = Arc::new(runtime.clone());
        let events = Events::new(corten_client::Recorder::new(client.clone(), "kubelet", "n1", &tasks), "n1");
        let informers = corten_client::Informers::new(client.clone(), &tasks);
        let node = tokio::sync::watch::channel(None).1;
        let images = ImageManager::new(shared.clone(), Clock::System, Arc::default());
        let ctx = Context::new(
            config,
            client,
            Clock::System,
            shared.clone(),
            shared.clone(),
            images,
            events,
            Machine::read(&Host::default()),
            node,
            informers.of(),
            tokio::sync::watch::channel(crate::eviction::Pressure::default()).1,
            tasks.clone(),
        );
        let ctx = Arc::new(ctx);
        let pods = Pods::new(ctx.clone());
        let receiver = corten_runtime::Runtime::events(&runtime);
        tasks.spawn("events", {
            let (ctx, pods) = (ctx.clone(), pods.clone());
            async move { ctx.cache.follow(receiver, |uid| pods.wake(uid)).await }
        });
        pods.take(Arc::new(crate::test::pod(
            "{containers: [{name: a, image: 'image:1'}, {name: b, image: 'missing:1', imagePullPolicy: Never}]}",
        )));
        let endpoint = Endpoint::new(&ctx, &pods, shared, &tasks);
        let running = || runtime.container("a").is_some_and(|a| a.state == corten_runtime::ContainerState::Running);
        while !running() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let user = Some(auth::User { name: "tester".to_owned(), ..auth::User::default() });
        Self { endpoint, api, runtime, dir, user }
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(64 << 10);
        tokio::spawn(self.endpoint.clone().serve(server, self.user.clone()));
        client
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> (Response<Incoming>, impl Sized) {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect())).await.expect("connected");
        let driving = tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.expect("answered");
        (response, (sender, driving))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "node").body(Empty::new()).expect("a request");
        let (response, _connection) = self.send(request).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn upgrade(&self, path: &str, protocol: &str) -> WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
        let request = Request::get(path)
            .header("host", "node")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol)
            .body(Empty::new())
            .expect("a request");
        let (response, connection) = self.send(request).await;
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"].to_str().ok(), protocol.split(',').next());
        std::mem::forget(connection);
        let upgraded = hyper::upgrade::on(response).await.expect("upgraded");
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
    }
}

/// Content by channel until the socket closes.
async fn collect<S>(socket: &mut S) -> [String; 5]
where
    S: futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let mut channels: [String; 5] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(data) => channels[usize::from(data[0])].push_str(&String::from_utf8_lossy(&data[1..])),
            Message::Text(text) => {
                let (channel, content) = text.as_str().split_at(1);
                let content = base64::engine::general_purpose::STANDARD.decode(content).expect("base64");
                channels[channel.parse::<usize>().expect("a channel")].push_str(&String::from_utf8_lossy(&content));
            }
            Message::Close(_) => break,
            _ => {}
        }
    }
    channels
}

#[tokio::test]
async fn exec_carries_streams_and_the_exit_code() {
    let served = Served::new().await;
    let path = "/exec/default/web/a?command=do&command=fail&input=1&output=1&error=1";
    let mut socket = served.upgrade(path, "v5.channel.k8s.io,v4.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\0hello\n"))).await.expect("sent");
    socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.expect("sent"); // no more input
    let channels = collect(&mut socket).await;
    assert_eq!(channels[1], "ran do fail\nhello\n");
    let status: Value = serde_json::from_str(&channels[3]).expect("a status");
    assert_eq!(
        (&status["reason"], &status["details"]["causes"][0]),
        (&json!("NonZeroExitCode"), &json!({"reason": "ExitCode", "message": "3"}))
    );
}

#[tokio::test]
async fn exec_resizes_a_terminal() {
    let served = Served::new().await;
    let mut socket = served.upgrade("/exec/default/web/a?command=sh&output=1&tty=1", "v4.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\x04{\"Width\":80,\"Height\":24}"))).await.expect("sent");
    let channels = collect(&mut socket).await;
    assert_eq!(channels[1], "80x24\nran sh\n");
    assert_eq!(serde_json::from_str::<Value>(&channels[3]).expect("a status")["status"], json!("Success"));
}

#[tokio::test]
async fn older_clients_speak_base64() {
    let served = Served::new().await;
    let mut socket = served.upgrade("/exec/default/web/a?command=ls&output=1", "v4.base64.channel.k8s.io").await;
    assert_eq!(collect(&mut socket).await[1], "ran ls\n");
}

#[tokio::test]
async fn the_oldest_clients_are_told_of_failures_alone_and_in_plain_text() {
    let served = Served::new().await;
    for (command, told) in [("ls", ""), ("fail", "command terminated with non-zero exit code: exit status 3")] {
        for protocol in ["channel.k8s.io", "base64.channel.k8s.io"] {
            let path = format!("/exec/default/web/a?command={command}&output=1");
            let mut socket = served.upgrade(&path, protocol).await;
            let channels = collect(&mut socket).await;
            assert_eq!((channels[1].clone(), channels[3].as_str()), (format!("ran {command}\n"), told), "{protocol}");
        }
    }
}

#[tokio::test]
async fn spdy_carries_an_exec() {
    let served = Served::new().await;
    let request = Request::post("/exec/default/web/a?command=cat&input=1&output=1")
        .header("host", "node")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Empty::new())
        .expect("a request");
    let (response, _connection) = served.send(request).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-stream-protocol-version"]),
        (101, &http::HeaderValue::from_static("v4.channel.k8s.io"))
    );
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.expect("upgraded"));
    let (mut from, mut to) = tokio::io::split(upgraded);
    let mut frames = Frames::new();
    for (id, name) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        to.write_all(&frames.open(id, &[("streamType", name)])).await.expect("sent");
    }
    to.write_all(&frames.data(3, "hello", true)).await.expect("sent");
    assert_eq!(read_stream(&mut from, 5).await, "ran cat\nhello");
    let status: Value = serde_json::from_str(&read_stream(&mut from, 1).await).expect("a status");
    assert_eq!(status["status"], json!("Success"));
}

#[tokio::test]
async fn ports_are_forwarded_through_a_tunnel() {
    let served = Served::new().await;
    let mut socket = served.upgrade("/portForward/default/web", "SPDY/3.1+portforward.k8s.io").await;
    let mut frames = Frames::new();
    let mut bytes = Vec::new();
    for (id, kind, request, port) in
        [(1, "error", "0", "80"), (3, "data", "0", "80"), (5, "error", "1", "1"), (7, "data", "1", "1")]
    {
        bytes.extend(frames.open(id, &[("streamType", kind), ("port", port), ("requestID", request)]));
    }
    bytes.extend(frames.data(3, "ping", false));
    // Message borders mean nothing.
    for part in bytes.chunks(7) {
        socket.send(Message::Binary(Bytes::copy_from_slice(part))).await.expect("sent");
    }
    let (near, far) = tokio::io::duplex(4096);
    let (mut answers, mut near) = (near, far);
    tokio::spawn(async move {
        while let Some(Ok(Message::Binary(data))) = socket.next().await {
            near.write_all(&data).await.expect("kept");
        }
    });
    let refused = read_stream(&mut answers, 5).await;
    assert!(refused.contains("connection refused"), "{refused}");
    // "PING" came or comes: a new tunnel has it alone.
    let mut socket = served.upgrade("/portForward/default/web", "SPDY/3.1+portforward.k8s.io").await;
    let mut frames = Frames::new();
    let mut bytes = frames.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
    bytes.extend(frames.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]));
    bytes.extend(frames.data(3, "ping", false));
    socket.send(Message::Binary(bytes.into())).await.expect("sent");
    let mut seen = Vec::new();
    while !seen.ends_with(b"PING") {
        match socket.next().await {
            Some(Ok(Message::Binary(data))) => seen.extend(data),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn logs_are_read_or_say_why_not() {
    let served = Served::new().await;
    let log = served.runtime.container("a").expect("there").log_path;
    std::fs::write(log, "2026-01-01T00:00:00.000000000Z stdout F a line\n").expect("writes the log");
    assert_eq!(served.get("/containerLogs/default/web/a").await, (200, "a line\n".to_owned()));
    for (path, status, expected) in [
        ("/containerLogs/default/none/a", 404, "pod \"none\" not found\n"),
        ("/containerLogs/default/web/none", 404, "container \"none\" not found in pod \"web\"\n"),
        ("/containerLogs/default/web/a?previous=true", 400, "previous terminated container \"a\" in pod \"web\" not found"),
        ("/containerLogs/default/web/b", 400, "container \"b\" in pod \"web\" is waiting to start: ErrImageNeverPull"),
    ] {
        assert_eq!(served.get(path).await, (status, expected.to_owned()));
    }
    assert!(served.dir.path().join("kubelet/pods/u1").exists());
}

#[tokio::test]
async fn the_node_tells_of_itself() {
    let served = Served::new().await;
    assert_eq!(served.get("/healthz").await, (200, "ok".to_owned()));
    let pods: Value = serde_json::from_str(&served.get("/pods").await.1).expect("JSON");
    assert_eq!(pods["items"][0]["metadata"]["name"], json!("web"));
    let summary: Value = serde_json::from_str(&served.get("/stats/summary").await.1).expect("JSON");
    assert_eq!(summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"], json!(7));
    let metrics = served.get("/metrics/resource").await.1;
    assert!(
        metrics.contains("container_memory_working_set_bytes{container=\"a\",namespace=\"default\",pod=\"web\"} 7\n"),
        "{metrics}"
    );
    assert!(served.get("/metrics").await.1.contains("kubelet_running_pods 1\n"));
    assert_eq!(served.get("/run/default/web/a?cmd=ls").await, (200, "output".to_owned()));
    assert_eq!(served.get("/logs/../../etc/passwd").await.0, 404);
    assert_eq!(served.get("/nothing").await.0, 404);
    assert!(Timestamp::now() > Timestamp::UNIX_EPOCH);
}

#[tokio::test]
async fn nobody_gets_in_without_credentials() {
    let mut served = Served::new().await;
    served.user = None;
    assert_eq!(served.get("/pods").await, (401, "Unauthorized".to_owned()));
    assert!(served.api.requests().iter().all(|request| !request.line().contains("tokenreviews")));
}
