//! How long pods take from their creation to Running, seen by a client inside the cluster's network namespace: a connection
//! that creates them, and another that watches.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::http::{Connection, Target};

const PODS: &str = "/api/v1/namespaces/default/pods";
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured.
pub struct Starts {
    /// From before the request to the event that says Running, of pods created one after the other.
    pub single: Vec<Duration>,
    /// From before the first request until all of the pods created at once are Running.
    pub many: Duration,
}

/// Creates `single` pods one after the other, then `many` at once, as a client in the network namespace `network`.
pub fn starts(network: &Path, target: Target, single: usize, many: usize) -> anyhow::Result<Starts> {
    let network = File::open(network).with_context(|| format!("open {}", network.display()))?;
    // A thread of its own, which stays in that namespace until it ends.
    let client = std::thread::spawn(move || {
        setns(&network, CloneFlags::CLONE_NEWNET).context("enter the cluster's network namespace")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, create_and_watch(target, single, many)).await })?
    });
    client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn create_and_watch(target: Target, single: usize, many: usize) -> anyhow::Result<Starts> {
    let mut writer = target.connect().await?;
    let (status, body) = target.connect().await?.start("GET", &format!("{PODS}?watch=1&allowWatchBookmarks=true"), None).await?;
    anyhow::ensure!(status.is_success(), "watch pods: {status}");
    let mut watch = Watch { body, buffer: BytesMut::new(), running: HashMap::new() };

    let mut latencies = Vec::with_capacity(single);
    for i in 0..single {
        let name = format!("single-{i}");
        let start = Instant::now();
        create(&mut writer, &name).await?;
        latencies.push(watch.until_running(&name).await? - start);
    }
    // A node takes 110 pods.
    for i in 0..single {
        writer.call("DELETE", &format!("{PODS}/single-{i}"), None).await?;
    }
    while watch.running.keys().any(|name| name.starts_with("single-")) {
        watch.next().await?;
    }
    let start = Instant::now();
    let names: HashSet<String> = (0..many).map(|i| format!("many-{i}")).collect();
    for name in &names {
        create(&mut writer, name).await?;
    }
    let mut last = start;
    for name in &names {
        last = last.max(watch.until_running(name).await?);
    }
    Ok(Starts { single: latencies, many: last - start })
}

async fn create(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [{ "name": "hello", "image": "localhost/hello:1" }] },
    });
    connection.call("POST", PODS, Some(("application/json", pod.to_string().into()))).await?;
    Ok(())
}

/// The watch, and when each pod that exists was first seen Running.
struct Watch {
    body: Incoming,
    buffer: BytesMut,
    running: HashMap<String, Instant>,
}

impl Watch {
    async fn until_running(&mut self, name: &str) -> anyhow::Result<Instant> {
        loop {
            if let Some(at) = self.running.get(name) {
                return Ok(*at);
            }
            self.next().await?;
        }
    }

    async fn next(&mut self) -> anyhow::Result<()> {
        let event: Value = serde_json::from_slice(&self.line().await?)?;
        let pod = &event["object"];
        let Some(name) = pod["metadata"]["name"].as_str() else { return Ok(()) };
        if event["type"] == "DELETED" {
            self.running.remove(name);
        } else if pod["status"]["phase"] == "Running" {
            self.running.entry(name.to_owned()).or_insert_with(Instant::now);
        }
        Ok(())
    }

    async fn line(&mut self) -> anyhow::Result<Bytes> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(self.buffer.split_to(end + 1).freeze());
            }
            match self.body.frame().await {
                Some(frame) => self.buffer.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None => bail!("the watch ended"),
            }
        }
    }
}
