//! What the kubelet and the runtime do with containers: attach, probes, limits, ephemeral containers, hooks and sidecars,
//! termination messages, log rotation.

use std::fs;

use crate::Test;
use crate::cluster::{Cluster, eventually};
use crate::kubectl::{Kubectl, pod};

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[
    ("containers::attach_with_and_without_a_terminal", attach_with_and_without_a_terminal),
    ("containers::too_much_memory_is_reported", too_much_memory_is_reported),
    ("containers::debug_joins_a_running_pod", debug_joins_a_running_pod),
    ("containers::probes_of_every_handler", probes_of_every_handler),
    ("containers::hooks_and_sidecars_keep_their_order", hooks_and_sidecars_keep_their_order),
    ("containers::the_last_words_are_reported", the_last_words_are_reported),
    ("containers::a_large_log_is_rotated", a_large_log_is_rotated),
    ("containers::local_storage_has_limits", local_storage_has_limits),
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

fn hooks_and_sidecars_keep_their_order(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let witness = cluster.scratch().join("order");
    fs::create_dir(&witness).expect("makes a directory");
    let says = |name: &str, first: &str| {
        let waits = "while :; do sleep 1 & wait; done";
        format!("trap 'echo {name} ended >> /out/log; exit' TERM; {first}{waits}")
    };
    let ordered = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: ordered}}
spec:
  initContainers:
  - {{name: outer, restartPolicy: Always, image: "localhost/busybox:1", command: [sh, -c, "{outer}"], volumeMounts: [{{name: out, mountPath: /out}}],
     startupProbe: {{exec: {{command: [test, -e, /out/outer]}}, periodSeconds: 1}}}}
  - {{name: inner, restartPolicy: Always, image: "localhost/busybox:1", command: [sh, -c, "{inner}"], volumeMounts: [{{name: out, mountPath: /out}}]}}
  - {{name: prepare, image: "localhost/busybox:1", command: [sh, -c, "test -e /out/outer && echo prepared >> /out/log"], volumeMounts: [{{name: out, mountPath: /out}}]}}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "{main}"]
    volumeMounts: [{{name: out, mountPath: /out}}]
    lifecycle:
      postStart: {{exec: {{command: [sh, -c, "echo hooked >> /out/log"]}}}}
      preStop: {{exec: {{command: [sh, -c, "echo stopping >> /out/log"]}}}}
  volumes:
  - {{name: out, hostPath: {{path: {path}, type: Directory}}}}
"#,
        outer = says("outer", "touch /out/outer; "),
        inner = says("inner", ""),
        main = says("main", ""),
        path = witness.display(),
    );
    kubectl.ok_with(&["apply", "-f", "-"], &ordered);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/ordered", "--timeout=60s"]);
    kubectl.ok(&["delete", "pod", "ordered", "--timeout=60s"]);
    let log = fs::read_to_string(witness.join("log")).expect("the containers wrote it");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines, ["prepared", "hooked", "stopping", "main ended", "inner ended", "outer ended"]);
}

fn the_last_words_are_reported(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let file = pod("file", "echo from the file > /dev/termination-log; exit 3", "Never");
    let log = pod("log", "echo from the log; exit 3", "Never") + "    terminationMessagePolicy: FallbackToLogsOnError\n";
    for (name, manifest, expected) in [("file", file, "from the file"), ("log", log, "from the log")] {
        kubectl.ok_with(&["apply", "-f", "-"], &manifest);
        let object = format!("pod/{name}");
        kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", &object, "--timeout=60s"]);
        let message = kubectl.field(&object, ".status.containerStatuses[0].state.terminated.message");
        assert_eq!(message.trim_end(), expected);
    }
}

fn a_large_log_is_rotated(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    // Eleven mebibytes at once, and one more line whenever a file of that name appears.
    let script = "yes 0123456789012345678901234567890123456789 | head -c 11534336; echo full; until test -e /tmp/go; do sleep 0.1; done; echo last; sleep 3600";
    kubectl.pod("talker", script);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]);
    let uid = kubectl.field("pod/talker", ".metadata.uid");
    let logs = format!("{}/logs/pods/{namespace}_talker_{uid}/main", cluster.data().display());
    eventually("the log is rotated", || {
        let names = cluster.succeed("ls", &[&logs])?;
        if names.lines().count() == 2 { Ok(()) } else { Err(names) }
    });
    kubectl.ok(&["exec", "talker", "--", "touch", "/tmp/go"]);
    eventually("the new file is written and read", || {
        let last = kubectl.ok(&["logs", "talker", "--tail=1"]);
        if last == "last\n" { Ok(()) } else { Err(last) }
    });
}

fn local_storage_has_limits(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let fill = |path: &str| format!("dd if=/dev/zero of={path} bs=1024 count=3000 2>/dev/null; sleep 3600");
    let mounted = "    volumeMounts: [{name: data, mountPath: /data}]\n";
    let volume = |limit: &str| format!("  volumes: [{{name: data, emptyDir: {{{limit}}}}}]\n");
    let limited = "    resources: {limits: {ephemeral-storage: 2Mi}}\n";
    let (in_volume, in_layer) = (fill("/data/file"), fill("/file"));
    kubectl.ok_with(&["apply", "-f", "-"], &(pod("volume", &in_volume, "Never") + mounted + &volume("sizeLimit: 1Mi")));
    kubectl.ok_with(&["apply", "-f", "-"], &(pod("layer", &in_layer, "Never") + limited));
    kubectl.ok_with(&["apply", "-f", "-"], &(pod("within", &in_volume, "Never") + mounted + &volume("sizeLimit: 1Gi")));
    for (name, message) in [
        ("volume", "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". "),
        ("layer", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
    ] {
        let pod = format!("pod/{name}");
        kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", &pod, "--timeout=60s"]);
        assert_eq!(
            (kubectl.field(&pod, ".status.reason"), kubectl.field(&pod, ".status.message")),
            ("Evicted".into(), message.into())
        );
        // Its own doing: nothing disrupted it.
        assert!(!kubectl.field(&pod, ".status.conditions[*].type").contains("DisruptionTarget"));
        let selector = format!("involvedObject.name={name},reason=Evicted,type=Warning");
        let said = eventually("the event is written", || {
            let said = kubectl.ok(&["get", "events", "--field-selector", &selector, "-o", "jsonpath={.items[0].message}"]);
            if said.is_empty() { Err(said) } else { Ok(said) }
        });
        assert_eq!(said, message);
    }
    assert_eq!(kubectl.field("pod/within", ".status.phase"), "Running");
    kubectl.ok(&["delete", "pod", "within", "--now"]);
}
