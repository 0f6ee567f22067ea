//! The API server alone, under load: one of our own, started on an empty store, or any other by its URL.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::machine;
use crate::stats::Sample;
use crate::target::Target;
use crate::wire::Wire;

/// What to measure.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// Pods in the cluster.
    #[arg(long, default_value_t = 5000)]
    pods: usize,
    /// Connections that send at the same time.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Watchers of the fan-out.
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// Changes that the fan-out's watchers are told of.
    #[arg(long, default_value_t = 3000)]
    changes: usize,
    /// Loads to run, by the first word of their names (create, get, list, label, patch, fan-out, delete); all without. The pods
    /// have to be there for all but create.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Port for the server that is started.
    #[arg(long, default_value_t = 16444)]
    port: u16,
    /// A server that runs already, instead of one that is started. It gets a namespace named bench.
    #[arg(long, requires = "token")]
    server: Option<String>,
    /// The bearer token of an administrator of that server.
    #[arg(long)]
    token: Option<String>,
    /// What that server's certificate is signed by; any certificate is taken without.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The processes of that server, for what it costs.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
}

const PODS: &str = "/api/v1/namespaces/bench/pods";
const JSON: &str = "application/json";

const TOKEN: &str = "bench-token";

/// A server that ends with the benchmark.
struct Server(Child);

impl Server {
    /// Lets it stop in order: an instrumented binary writes its profile then.
    fn stop(mut self) -> anyhow::Result<()> {
        machine::terminate(self.0.id())?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs every load and prints the table.
pub async fn run(corten: &Path, args: &Args) -> anyhow::Result<()> {
    if let (Some(url), Some(token)) = (&args.server, &args.token) {
        let target = Target::new(url, token, args.ca.as_deref(), args.pid.clone())?;
        return loads(&target, args).await;
    }
    let directory = tempfile::tempdir()?;
    let tokens = directory.path().join("tokens.csv");
    std::fs::write(&tokens, format!("{TOKEN},bench,bench,system:masters\n"))?;
    let data = directory.path().join("data");
    let server = Command::new(corten)
        .arg("apiserver")
        .arg("--data-dir")
        .arg(&data)
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--service-cluster-ip-range=10.96.0.0/16"])
        .arg(format!("--secure-port={}", args.port))
        .arg("--token-auth-file")
        .arg(&tokens)
        .args(["--disable-admission-plugins=ServiceAccount"])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("start {}", corten.display()))?;
    let server = Server(server);
    let started = Instant::now();
    let target = wait_ready(&data, args.port, server.0.id()).await?;
    println!("API ready after {:.3} s, {:.1} MiB resident", started.elapsed().as_secs_f64(), target.resident_mib());
    loads(&target, args).await?;
    server.stop()
}

async fn loads(target: &Target, args: &Args) -> anyhow::Result<()> {
    prepare(target).await?;
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let pods = args.pods;
    if wanted("create") {
        // Made before the load: the client is to cost as little as it can.
        let bodies: Arc<[Bytes]> = (0..pods).map(pod).collect();
        load("create", target, args, pods, move |i| ("POST", PODS.to_owned(), Some((JSON, bodies[i].clone())))).await?.print();
    }
    if wanted("get") {
        let path = move |i| format!("{PODS}/pod-{}", i * 7919 % pods);
        load("get", target, args, pods * 4, move |i| ("GET", path(i), None)).await?.print();
    }
    if wanted("list") {
        let length = target.connect().await?.succeed("GET", PODS, None).await?;
        let name = format!("list all ({:.1} MB)", length as f64 / 1e6);
        load(&name, target, args, 200, |_| ("GET", PODS.to_owned(), None)).await?.print();
    }
    if wanted("label") {
        let groups = pods / 100;
        let path = move |i| format!("{PODS}?labelSelector=group%3Dg{}", i % groups);
        load("list 100 by label", target, args, 4000, move |i| ("GET", path(i), None)).await?.print();
    }
    if wanted("patch") {
        load("patch", target, args, pods, |i| annotate("patched", i, i)).await?.print();
    }
    if wanted("fan-out") {
        fan_out(target, args).await?;
    }
    println!("{:<28} {:>10.1} MiB", "resident with all pods", target.resident_mib());
    if wanted("delete") {
        let now = Bytes::from_static(br#"{"gracePeriodSeconds":0}"#);
        let delete = move |i| ("DELETE", format!("{PODS}/pod-{i}"), Some((JSON, now.clone())));
        load("delete", target, args, pods, delete).await?.print();
        println!("{:<28} {:>10.1} MiB", "resident afterwards", target.resident_mib());
    }
    Ok(())
}

/// Makes what pods need: a namespace, and the account that a controller would make in it. Its token is not mounted, so that pods
/// have their size on every server.
async fn prepare(target: &Target) -> anyhow::Result<()> {
    let mut first = target.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
        "automountServiceAccountToken": false});
    for (path, document) in [("/api/v1/namespaces", namespace), ("/api/v1/namespaces/bench/serviceaccounts", account)] {
        let status = first.call("POST", path, Some((JSON, document.to_string().into())), |_| ()).await?;
        ensure!(status == 201 || status == 409, "POST {path}: {status}");
    }
    Ok(())
}

/// A small change of a pod.
fn annotate(name: &str, pod: usize, value: usize) -> Request {
    // Another run on the same server has other values: what changes nothing is no event.
    let value = format!("{value}-{}", std::process::id());
    let body = json!({"metadata": {"annotations": {name: value}}}).to_string();
    ("PATCH", format!("{PODS}/pod-{pod}"), Some(("application/merge-patch+json", body.into())))
}

async fn wait_ready(data: &Path, port: u16, pid: u32) -> anyhow::Result<Target> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let ca = data.join("pki/ca.crt");
    let url = format!("https://localhost:{port}");
    loop {
        if let Ok(target) = Target::new(&url, TOKEN, Some(&ca), vec![pid])
            && let Ok(mut connection) = target.connect().await
            && connection.succeed("GET", "/readyz", None).await.is_ok()
        {
            return Ok(target);
        }
        if Instant::now() > deadline {
            bail!("the API server did not become ready in 30 s");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

type Request = (&'static str, String, Option<(&'static str, Bytes)>);

/// Sends `count` requests over all connections, each connection one at a time.
async fn load(
    name: &str,
    target: &Target,
    args: &Args,
    count: usize,
    make: impl Fn(usize) -> Request + Clone + Send + 'static,
) -> anyhow::Result<Sample> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for _ in 0..args.connections {
        connections.push(target.connect().await?);
    }
    let (start, cpu, client) = (Instant::now(), target.cpu_seconds(), client_cpu());
    let mut workers = JoinSet::new();
    for connection in connections {
        workers.spawn(worker(connection, next.clone(), count, make.clone()));
    }
    let mut latencies = Vec::with_capacity(count);
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    let elapsed = start.elapsed();
    let (cpu, client) = (target.cpu_seconds() - cpu, client_cpu() - client);
    Ok(Sample { name: name.to_owned(), latencies, elapsed, cpu, client })
}

async fn worker(
    mut connection: Wire,
    next: Arc<AtomicUsize>,
    count: usize,
    make: impl Fn(usize) -> Request,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    loop {
        let i = next.fetch_add(1, Ordering::Relaxed);
        if i >= count {
            return Ok(latencies);
        }
        let (method, path, body) = make(i);
        let start = Instant::now();
        connection.succeed(method, &path, body).await?;
        latencies.push(start.elapsed());
    }
}

/// Many watchers of all pods, and how many events a second reach them while pods are patched. The patches are part of what it
/// costs: one for each event of a watcher.
///
/// The watchers count the line ends of what they decrypt and do not parse it, as any fair load client: this is about what a server
/// can send.
async fn fan_out(target: &Target, args: &Args) -> anyhow::Result<()> {
    let changes = args.changes;
    let mut watchers = JoinSet::new();
    let mut list = Vec::new();
    target.connect().await?.call("GET", &format!("{PODS}?limit=1"), None, |piece| list.extend_from_slice(piece)).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?.to_owned();
    let bytes = Arc::new(AtomicUsize::new(0));
    for _ in 0..args.watchers {
        let mut connection = target.connect().await?;
        connection.send("GET", &format!("{PODS}?watch=1&resourceVersion={revision}"), None).await?;
        let bytes = bytes.clone();
        watchers.spawn(async move {
            let (mut seen, mut length, all) = (0, 0, Notify::new());
            let count = |piece: &[u8]| {
                seen += lines(piece);
                length += piece.len();
                if seen >= changes {
                    all.notify_one();
                }
            };
            tokio::select! {
                status = connection.answer(count) => bail!("a watch ended: {status:?}"),
                () = all.notified() => {}
            }
            bytes.fetch_add(length, Ordering::Relaxed);
            Ok(())
        });
    }
    let pods = args.pods;
    // Its clock starts when its connections are made: their handshakes are no part of this.
    let patches = load("", target, args, changes, move |i| annotate("fan-out", i % pods, i)).await?;
    let (rest, cpu, client) = (Instant::now(), target.cpu_seconds(), client_cpu());
    while let Some(watcher) = watchers.join_next().await {
        watcher??;
    }
    let events = (changes * args.watchers) as f64;
    let seconds = (patches.elapsed + rest.elapsed()).as_secs_f64();
    let each = |cpu: f64| cpu / events * 1e6;
    let (cpu, client) = (each(patches.cpu + target.cpu_seconds() - cpu), each(patches.client + client_cpu() - client));
    let name = format!("fan-out to {} watchers", args.watchers);
    let half = crate::stats::millis(patches.quantile(0.5));
    let bytes = bytes.load(Ordering::Relaxed) as f64;
    println!(
        "{name:<28} {:>10.0}/s   {:.2} GB/s, {:.0} bytes each, patch p50 {half}   server CPU {cpu:.2} us each, client {client:.2}",
        events / seconds,
        bytes / seconds / 1e9,
        bytes / events,
    );
    Ok(())
}

/// Processor time of this client, in seconds.
pub fn client_cpu() -> f64 {
    machine::cpu_seconds(std::process::id())
}

/// Line ends in a piece of a watch.
pub fn lines(piece: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', piece).count()
}

/// A pod of 3.3 kB as a list has it, managed fields and all, like those of a real Deployment: 5,000 are a list of 16.4 MB.
fn pod(i: usize) -> Bytes {
    let env: Vec<_> = (0..4)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value-{n}-of-an-ordinary-length-{i}")}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{i}"), "labels": {"app": "bench", "group": format!("g{}", i / 100), "pod-template-hash": "5d89bdfbf9"}},
        "spec": {
            "containers": [{
                "name": "main",
                "image": "registry.example/team/application:1.2.3",
                "args": ["--listen=:8080", "--log-level=info"],
                "env": env,
                "ports": [{"name": "http", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}]
            }],
            "volumes": [{"name": "config", "configMap": {"name": "app"}}]
        }
    })
    .to_string()
    .into()
}
