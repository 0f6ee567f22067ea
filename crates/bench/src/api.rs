//! The API server alone, under load.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::machine;
use crate::stats::Sample;
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
    /// Port for the server.
    #[arg(long, default_value_t = 16444)]
    port: u16,
    /// The server's process, once it runs.
    #[arg(skip)]
    server: u32,
}

const PODS: &str = "/api/v1/namespaces/bench/pods";
const JSON: &str = "application/json";

/// A server that ends with the benchmark.
struct Server(Child);

/// Where the server is, and as whom it is spoken to.
struct Target {
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

const TOKEN: &str = "bench-token";

impl Target {
    /// A server on loopback whose certificate `ca` has signed.
    fn new(port: u16, ca: &Path) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("read {}", ca.display()))? {
            roots.add(certificate?)?;
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { port, tls: Arc::new(tls) })
    }

    async fn connect(&self) -> anyhow::Result<Wire> {
        Wire::connect(self.port, TOKEN, self.tls.clone()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server on an empty store, runs every load, prints the table.
pub async fn run(corten: &Path, args: &Args) -> anyhow::Result<()> {
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
    let args = &Args { server: server.0.id(), ..args.clone() };
    let started = Instant::now();
    let target = wait_ready(&data, args.port).await?;
    println!(
        "API ready after {:.3} s, {:.1} MiB resident",
        started.elapsed().as_secs_f64(),
        machine::resident_mib(server.0.id())
    );

    let mut first = target.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    first.succeed("POST", "/api/v1/namespaces", Some((JSON, namespace.to_string().into()))).await?;

    let pods = args.pods;
    // Made before the load: the client is to cost as little as it can.
    let bodies: Arc<[Bytes]> = (0..pods).map(pod).collect();
    load("create", &target, args, pods, move |i| ("POST", PODS.to_owned(), Some((JSON, bodies[i].clone())))).await?.print();
    load("get", &target, args, pods * 4, move |i| ("GET", format!("{PODS}/pod-{}", i * 7919 % pods), None)).await?.print();
    load("list all", &target, args, 200, |_| ("GET", PODS.to_owned(), None)).await?.print();
    let groups = pods / 100;
    load("list 100 by label", &target, args, 4000, move |i| {
        ("GET", format!("{PODS}?labelSelector=group%3Dg{}", i % groups), None)
    })
    .await?
    .print();
    load("patch", &target, args, pods, |i| {
        let body = json!({"metadata": {"annotations": {"patched": i.to_string()}}}).to_string();
        ("PATCH", format!("{PODS}/pod-{i}"), Some(("application/merge-patch+json", body.into())))
    })
    .await?
    .print();
    fan_out(&target, args).await?;
    println!("{:<28} {:>10.1} MiB", "resident with all pods", machine::resident_mib(server.0.id()));
    let now = Bytes::from_static(br#"{"gracePeriodSeconds":0}"#);
    load("delete", &target, args, pods, move |i| ("DELETE", format!("{PODS}/pod-{i}"), Some((JSON, now.clone())))).await?.print();
    println!("{:<28} {:>10.1} MiB", "resident afterwards", machine::resident_mib(server.0.id()));
    Ok(())
}

async fn wait_ready(data: &Path, port: u16) -> anyhow::Result<Target> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let ca = data.join("pki/ca.crt");
    loop {
        if let Ok(target) = Target::new(port, &ca)
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
    let (start, cpu, client) = (Instant::now(), machine::cpu_seconds(args.server), machine::cpu_seconds(std::process::id()));
    let mut workers = JoinSet::new();
    for connection in connections {
        workers.spawn(worker(connection, next.clone(), count, make.clone()));
    }
    let mut latencies = Vec::with_capacity(count);
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    let elapsed = start.elapsed();
    let (cpu, client) = (machine::cpu_seconds(args.server) - cpu, machine::cpu_seconds(std::process::id()) - client);
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

/// Many watchers of all pods, and how many events a second reach them while pods are patched.
async fn fan_out(target: &Target, args: &Args) -> anyhow::Result<()> {
    let changes = 1000;
    let mut watchers = JoinSet::new();
    let mut list = Vec::new();
    target.connect().await?.call("GET", &format!("{PODS}?limit=1"), None, |piece| list.extend_from_slice(piece)).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?.to_owned();
    for _ in 0..args.watchers {
        let mut connection = target.connect().await?;
        connection.send("GET", &format!("{PODS}?watch=1&resourceVersion={revision}"), None).await?;
        watchers.spawn(async move {
            let (mut seen, all) = (0, Notify::new());
            let count = |piece: &[u8]| {
                seen += lines(piece);
                if seen >= changes {
                    all.notify_one();
                }
            };
            tokio::select! {
                status = connection.answer(count) => bail!("a watch ended: {status:?}"),
                () = all.notified() => Ok(()),
            }
        });
    }
    let (start, cpu, client) = (Instant::now(), machine::cpu_seconds(args.server), machine::cpu_seconds(std::process::id()));
    let pods = args.pods;
    load("", target, args, changes, move |i| {
        let body = json!({"metadata": {"annotations": {"fan-out": i.to_string()}}}).to_string();
        ("PATCH", format!("{PODS}/pod-{}", i % pods), Some(("application/merge-patch+json", body.into())))
    })
    .await?;
    while let Some(watcher) = watchers.join_next().await {
        watcher??;
    }
    let rate = (changes * args.watchers) as f64 / start.elapsed().as_secs_f64();
    let each = |seconds: f64| seconds / (changes * args.watchers) as f64 * 1e6;
    let cpu = each(machine::cpu_seconds(args.server) - cpu);
    let client = each(machine::cpu_seconds(std::process::id()) - client);
    let name = format!("fan-out to {} watchers", args.watchers);
    println!("{name:<28} {rate:>10.0} events/s   server CPU {cpu:.1} us each, client {client:.1}");
    Ok(())
}

/// Line ends in a piece of a watch. Counted in bytes first, which the compiler turns into a few wide instructions.
fn lines(piece: &[u8]) -> usize {
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    piece.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum()
}

/// A pod of about 3.3 kB as stored, like those of a real Deployment.
fn pod(i: usize) -> Bytes {
    let env: Vec<_> = (0..16)
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
                "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "cache", "mountPath": "/var/cache/app"}]
            }],
            "volumes": [{"name": "config", "configMap": {"name": "app"}}, {"name": "cache", "emptyDir": {}}]
        }
    })
    .to_string()
    .into()
}
