//! The cluster's process is killed at any moment, and stopped and started again: nothing acknowledged is lost, no container
//! is restarted, nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::Test;
use crate::cluster::{Cluster, eventually};
use crate::kubectl::Kubectl;

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[
    ("crash::twenty_kills_under_load", twenty_kills_under_load),
    ("crash::stop_and_start", stop_and_start),
    ("crash::full_disk", full_disk),
];

/// Creates ConfigMaps over one connection after the other and writes down the name of each that was acknowledged.
const WRITER: &str = r#"
import http.client, json, ssl, sys, time
address, token, out, who = sys.argv[1:]
context = ssl._create_unverified_context()
acknowledged = open(out, "a", buffering=1)
connection, n = None, 0
while True:
    name = f"w{who}-{n}"
    try:
        connection = connection or http.client.HTTPSConnection(address, 6443, timeout=5, context=context)
        connection.request("POST", "/api/v1/namespaces/load/configmaps", json.dumps({"metadata": {"name": name}}),
                           {"Authorization": "Bearer " + token, "Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        # 409: the write before the kill had happened, only its acknowledgement was lost.
        if answer.status in (201, 409):
            acknowledged.write(name + "\n")
            n += 1
    except (OSError, http.client.HTTPException):
        connection = None
        time.sleep(0.02)
"#;

fn twenty_kills_under_load(_: &Cluster, _: &str) {
    let cluster = Cluster::start().unwrap_or_else(|err| panic!("{err}"));
    let kubectl = Kubectl::new(&cluster, "default");
    kubectl.deploy("web", 3);
    let before = containers(&kubectl);
    assert_eq!(before.len(), 3, "{before:?}");

    kubectl.ok(&["create", "namespace", "load"]);
    kubectl.ok(&["create", "serviceaccount", "writer"]);
    kubectl.ok(&["create", "clusterrolebinding", "writer", "--clusterrole=cluster-admin", "--serviceaccount=default:writer"]);
    let token = kubectl.ok(&["create", "token", "writer", "--duration=2h"]);
    let script = cluster.scratch().join("writer.py");
    fs::write(&script, WRITER).unwrap();
    let logs: Vec<_> = (0..3).map(|who| cluster.scratch().join(format!("acknowledged-{who}"))).collect();
    let mut writers: Vec<_> = logs
        .iter()
        .enumerate()
        .map(|(who, log)| {
            let mut command = cluster.command("python3");
            command.arg(&script).args(["192.168.77.1", token.trim()]).arg(log).arg(who.to_string());
            command.stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();

    let acknowledged = || -> BTreeSet<String> {
        logs.iter().filter_map(|log| fs::read_to_string(log).ok()).flat_map(|text| whole_lines(&text)).collect()
    };
    for round in 0..20 {
        // The moment of the kill: after a few more writes, a different number each time.
        let wanted = acknowledged().len() + 5 + round * 3 % 17;
        eventually("writes go on", || {
            if acknowledged().len() >= wanted { Ok(()) } else { Err(format!("{} of {wanted}", acknowledged().len())) }
        });
        cluster.kill();
        let promised = acknowledged();
        cluster.up().unwrap_or_else(|err| panic!("round {round}: {err}"));
        let kept: BTreeSet<String> =
            kubectl.ok(&["get", "configmaps", "-n", "load", "-o", "name"]).lines().map(|l| l.replace("configmap/", "")).collect();
        let lost: Vec<_> = promised.difference(&kept).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
    }
    for writer in &mut writers {
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    kubectl.ok(&["wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s"]);
    assert_eq!(containers(&kubectl), before, "a container was restarted or replaced");
    let shims = cluster.leftovers().unwrap().iter().filter(|line| line.starts_with("process")).count();
    assert_eq!(shims, 3, "one shim a pod");
    cluster.down().unwrap_or_else(|err| panic!("{err}"));
}

fn stop_and_start(_: &Cluster, _: &str) {
    let cluster = Cluster::start().unwrap_or_else(|err| panic!("{err}"));
    let kubectl = Kubectl::new(&cluster, "default");
    kubectl.deploy("web", 1);
    let before = containers(&kubectl);
    let status = cluster.terminate();
    assert!(status.success(), "a stop by SIGTERM is no failure: {status}");
    // The container goes on while nothing manages it.
    let address = before.iter().next().expect("there is one pod").split(' ').next().expect("its address comes first").to_owned();
    let answer = cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://{address}:8080/hostname")]);
    assert!(answer.is_ok_and(|name| name.starts_with("web-")));
    cluster.up().unwrap_or_else(|err| panic!("{err}"));
    kubectl.ok(&["wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s"]);
    assert_eq!(containers(&kubectl), before);

    // Down stops the containers; the same cluster with the same pods comes back.
    let name = kubectl.ok(&["get", "pods", "-o", "name"]);
    cluster.down().unwrap_or_else(|err| panic!("{err}"));
    let kubeconfig = cluster.scratch().join("elsewhere.kubeconfig");
    cluster.up_with(&["--write-kubeconfig", kubeconfig.to_str().unwrap()]).unwrap_or_else(|err| panic!("{err}"));
    assert_eq!(fs::metadata(&kubeconfig).unwrap().permissions().mode() & 0o777, 0o600);
    let read = cluster.command("kubectl").args(["get", "nodes", "-o", "name"]).env("KUBECONFIG", &kubeconfig).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "node/node\n");
    eventually("a new container runs", || {
        let now = containers(&kubectl);
        let new = now.is_disjoint(&before) && now.iter().all(|row| row.contains("corten://"));
        if new { Ok(()) } else { Err(format!("{now:?}")) }
    });
    kubectl.ok(&["wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "name"]), name);
    let status = |field: &str| kubectl.field(name.trim(), &format!(".status.containerStatuses[0].{field}"));
    assert_eq!((status("restartCount"), status("lastState.terminated.reason")), ("1".into(), "ContainerStatusUnknown".into()));
    cluster.down().unwrap_or_else(|err| panic!("{err}"));
}

fn full_disk(_: &Cluster, _: &str) {
    let cluster = Cluster::prepare().unwrap_or_else(|err| panic!("{err}"));
    let data = cluster.data().to_str().unwrap();
    cluster.succeed("mount", &["-o", "remount,size=64m", data]).unwrap();
    cluster.up().unwrap_or_else(|err| panic!("{err}"));
    let kubectl = Kubectl::new(&cluster, "default");
    let big = format!("--from-literal=a={}", "x".repeat(100_000));
    kubectl.ok(&["create", "configmap", "before", &big]);
    let fill = format!("{data}/fill");
    // Until nothing fits: it says so and leaves what it wrote.
    cluster.succeed("dd", &["if=/dev/zero", &format!("of={fill}"), "bs=4k"]).unwrap_err();
    // What the store still had room for is acknowledged and kept.
    let mut kept = vec!["before".to_owned()];
    let said = loop {
        assert!(kept.len() < 1000, "a full disk takes everything");
        let name = format!("full-{}", kept.len());
        let answer = kubectl.run(&["create", "configmap", &name, &big], "");
        if !answer.status.success() {
            break String::from_utf8_lossy(&answer.stderr).into_owned();
        }
        kept.push(name);
        kept.sort();
    };
    assert!(said.contains("full"), "{said}");
    let names = |kubectl: &Kubectl<'_>| -> Vec<String> {
        let names = kubectl.ok(&["get", "configmaps", "-o", "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}"]);
        names.lines().filter(|name| *name != "kube-root-ca.crt").map(str::to_owned).collect()
    };
    assert_eq!(names(&kubectl), kept);

    cluster.succeed("rm", &[&fill]).unwrap();
    kubectl.ok(&["create", "configmap", "zafter", &big]);
    kept.push("zafter".to_owned());
    cluster.kill();
    cluster.up().unwrap_or_else(|err| panic!("{err}"));
    assert_eq!(names(&kubectl), kept);
    cluster.down().unwrap_or_else(|err| panic!("{err}"));
}

/// Address, container id, start and restarts of every pod in the namespace.
fn containers(kubectl: &Kubectl<'_>) -> BTreeSet<String> {
    let status = ".status.containerStatuses[0]";
    let row = format!(
        "{{range .items[*]}}{{.status.podIP}} {{{status}.containerID}} {{{status}.state.running.startedAt}} {{{status}.restartCount}}{{\"\\n\"}}{{end}}"
    );
    kubectl.ok(&["get", "pods", "-o", &format!("jsonpath={row}")]).lines().map(str::to_owned).collect()
}

/// A kill may have cut the last line off.
fn whole_lines(text: &str) -> Vec<String> {
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    text[..end].lines().map(str::to_owned).collect()
}
