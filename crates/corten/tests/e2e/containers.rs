//! What the kubelet and the runtime do with containers: attach, probes, limits, ephemeral containers.

use crate::Test;
use crate::cluster::{Cluster, eventually};
use crate::kubectl::{Kubectl, pod};

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[
    ("containers::attach_with_and_without_a_terminal", attach_with_and_without_a_terminal),
    ("containers::too_much_memory_is_reported", too_much_memory_is_reported),
    ("containers::debug_joins_a_running_pod", debug_joins_a_running_pod),
    ("containers::probes_of_every_handler", probes_of_every_handler),
];

fn attach_with_and_without_a_terminal(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let echo = pod("echo", "read line; echo got $line", "Never")
        .replace("    image:", "    stdin: true\n    stdinOnce: true\n    image:");
    kubectl.ok_with(&["apply", "-f", "-"], &echo);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/echo", "--timeout=60s"]);
    let said = kubectl.ok_with(&["attach", "-i", "echo"], "through stdin\n");
    assert!(said.contains("got through stdin"), "{said}");
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/echo", "--timeout=60s"]);

    let shell = pod("shell", "read line; tty", "Never").replace("    image:", "    stdin: true\n    tty: true\n    image:");
    kubectl.ok_with(&["apply", "-f", "-"], &shell);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]);
    // `script` gives kubectl a terminal; the line it reads ends the container, and with it the session.
    let attach = format!("echo go | script -qec 'kubectl --namespace {namespace} attach -it shell' /dev/null");
    let said = cluster.succeed("sh", &["-c", &attach]).unwrap_or_else(|err| panic!("{err}"));
    assert!(said.contains("/dev/pts/"), "{said}");
}

fn too_much_memory_is_reported(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let greedy = pod("greedy", "tail /dev/zero", "Never") + "    resources: {limits: {memory: 16Mi}}\n";
    kubectl.ok_with(&["apply", "-f", "-"], &greedy);
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/greedy", "--timeout=60s"]);
    let ended = |field: &str| kubectl.field("pod/greedy", &format!(".status.containerStatuses[0].state.terminated.{field}"));
    assert_eq!((ended("reason"), ended("exitCode")), ("OOMKilled".to_owned(), "137".to_owned()));
}

fn debug_joins_a_running_pod(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.pod("app", "sleep 3600");
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/app", "--timeout=60s"]);
    kubectl.ok(&["debug", "app", "--image=localhost/busybox:1", "--target=main", "-c", "look", "--", "ps"]);
    // It sees the processes of its target, and does not end the pod.
    eventually("the ephemeral container shows what it saw", || {
        let said = kubectl.run(&["logs", "app", "-c", "look"], "");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        if text.contains("sleep 3600") { Ok(()) } else { Err(text) }
    });
    assert_eq!(kubectl.field("pod/app", ".status.phase"), "Running");
}

fn probes_of_every_handler(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let probed = r"
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: hello
    image: localhost/hello:1
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    livenessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
  - name: ill
    image: localhost/busybox:1
    command: [sleep, '3600']
    startupProbe: {exec: {command: ['true']}, periodSeconds: 1}
    livenessProbe: {exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 1}
  - name: deaf
    image: localhost/busybox:1
    command: [sleep, '3600']
    readinessProbe: {grpc: {port: 9}, periodSeconds: 1, failureThreshold: 1}
";
    kubectl.ok_with(&["apply", "-f", "-"], probed);
    let status = |name: &str, field: &str| {
        kubectl.field("pod/probed", &format!(".status.containerStatuses[?(@.name==\"{name}\")].{field}"))
    };
    eventually("a failed liveness probe restarts its container", || match status("ill", "restartCount").as_str() {
        "0" => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    eventually("the healthy one is ready", || {
        if status("hello", "ready") == "true" { Ok(()) } else { Err(status("hello", "state")) }
    });
    assert_eq!((status("hello", "started"), status("hello", "restartCount")), ("true".to_owned(), "0".to_owned()));
    assert_eq!((status("deaf", "ready"), status("deaf", "restartCount")), ("false".to_owned(), "0".to_owned()));
    let selector = [
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=probed,reason=Unhealthy",
        "-o",
        "jsonpath={.items[*].message}",
    ];
    eventually("refused gRPC probes are told", || {
        let said = kubectl.ok(&selector);
        if said.contains("Readiness probe failed") && said.contains("Liveness probe failed") { Ok(()) } else { Err(said) }
    });
    kubectl.ok(&["delete", "pod", "probed", "--wait=false"]);
}
