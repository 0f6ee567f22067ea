//! Workloads come and go while their containers are killed at random: afterwards the process and the machine hold what they held
//! before. A short form of a soak.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Test;
use crate::cluster::{Cluster, eventually};
use crate::kubectl::Kubectl;

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[("churn::nothing_is_left_behind", nothing_is_left_behind)];

/// One round's workloads: pods with volumes behind a Service, and Jobs of which one fails.
const ROUND: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: localhost/hello:1
        livenessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
      volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, type: NodePort, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: good}
spec:
  completions: 2
  template: {spec: {restartPolicy: Never, containers: [{name: main, image: 'localhost/busybox:1', command: [echo, done]}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: main, image: 'localhost/busybox:1', command: ['false']}]}}
";

fn nothing_is_left_behind(_: &Cluster, _: &str) {
    let cluster = Cluster::start().unwrap_or_else(|err| panic!("{err}"));
    // The first round makes what stays for good: connections, threads, directories, watches.
    round(&cluster, 0);
    let before = settled(&cluster);
    for n in 1..4 {
        round(&cluster, n);
    }
    let (mut last, mut same) = (BTreeMap::new(), false);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("everything is given back", || {
            last = held(&cluster);
            same = last.iter().all(|(what, count)| before.get(what).is_some_and(|known| count <= known));
            if same { Ok(()) } else { Err(format!("before {before:?}\nafter  {last:?}")) }
        });
    }));
    assert!(outcome.is_ok() && same, "before {before:?}\nafter  {last:?}");
    cluster.down().unwrap_or_else(|err| panic!("{err}"));
}

fn round(cluster: &Cluster, n: usize) {
    let namespace = format!("round-{n}");
    let kubectl = Kubectl::new(cluster, &namespace);
    kubectl.ok(&["create", "namespace", &namespace]);
    kubectl.ok_with(&["apply", "-f", "-"], ROUND);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    kubectl.ok(&["wait", "--for=condition=Complete", "job/good", "--timeout=60s"]);
    kubectl.ok(&["wait", "--for=condition=Failed", "job/bad", "--timeout=60s"]);
    // One is killed, one deleted, one asked for words while the number changes.
    let pods = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"]);
    let pods: Vec<&str> = pods.lines().collect();
    let victim = processes(cluster)[n % 4];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), nix::sys::signal::Signal::SIGKILL).unwrap();
    kubectl.ok(&["delete", pods[n % 2], "--wait=false"]);
    kubectl.run(&["logs", "--tail=3", pods[2]], "");
    kubectl.ok(&["scale", "deployment/web", "--replicas=2"]);
    kubectl.ok(&["set", "image", "deployment/web", "main=localhost/hello:2"]);
    kubectl.ok(&["delete", "namespace", &namespace, "--timeout=60s"]);
}

/// Processes of the pods' containers, as the machine numbers them.
fn processes(cluster: &Cluster) -> Vec<i32> {
    let mut found = Vec::new();
    for directory in cluster.cgroups().iter().filter(|path| path.to_string_lossy().contains("/pids/")) {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        let of_pod = directory.to_string_lossy().contains("/pod");
        found.extend(text.lines().filter(|_| of_pod).filter_map(|line| line.parse::<i32>().ok()));
    }
    found.sort_unstable();
    found
}

/// What is held when two looks in a row are equal.
fn settled(cluster: &Cluster) -> BTreeMap<&'static str, usize> {
    let mut last = held(cluster);
    eventually("it settles", || {
        let now = held(cluster);
        let idle = now["pod directories"] == 0 && now["interfaces"] == last["interfaces"] && now == last;
        let before = std::mem::replace(&mut last, now);
        if idle { Ok(()) } else { Err(format!("{before:?}")) }
    });
    last
}

/// What the process and the machine hold for the cluster.
fn held(cluster: &Cluster) -> BTreeMap<&'static str, usize> {
    let lines = |program: &str, args: &[&str]| cluster.succeed(program, args).map_or(0, |text| text.lines().count());
    let data = cluster.data().to_string_lossy().into_owned();
    let below = |path: &str| lines("find", &[&format!("{data}/{path}"), "-mindepth", "1"]);
    let proc = Path::new("/proc").join(cluster.pid().to_string());
    BTreeMap::from([
        ("descriptors", fs::read_dir(proc.join("fd")).map_or(0, Iterator::count)),
        ("mounts", lines("cat", &["/proc/self/mounts"])),
        ("control groups", cluster.cgroups().len()),
        ("nftables lines", lines("nft", &["list", "ruleset"])),
        ("interfaces", lines("ip", &["-o", "link"])),
        ("pod directories", below("kubelet/pods")),
        ("logs", below("logs")),
        ("containers", below("runtime/containers")),
        ("address leases", below("network")),
        ("leftovers", cluster.leftovers().map_or(0, |lines| lines.len())),
    ])
}
