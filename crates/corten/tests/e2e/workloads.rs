//! What a user does all day: apply, look, change, log, run a command, delete.

use crate::Test;
use crate::cluster::{Cluster, eventually};
use crate::kubectl::{Kubectl, deployment, pod};

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[
    ("workloads::deployment_rolls_out_and_back", deployment_rolls_out_and_back),
    ("workloads::service_reaches_every_endpoint", service_reaches_every_endpoint),
    ("workloads::a_pod_leaves_its_service_before_it_dies", a_pod_leaves_its_service_before_it_dies),
    ("workloads::logs_of_now_and_before", logs_of_now_and_before),
    ("workloads::exec_with_and_without_a_terminal", exec_with_and_without_a_terminal),
    ("workloads::generators_create", generators_create),
    ("workloads::changes_of_every_kind", changes_of_every_kind),
    ("workloads::output_in_every_form", output_in_every_form),
    ("workloads::delete_with_every_cascade", delete_with_every_cascade),
    ("workloads::copy_and_port_forward", copy_and_port_forward),
    ("workloads::configuration_reaches_the_pod_and_follows_changes", configuration_reaches_the_pod_and_follows_changes),
    ("workloads::probes_restart_and_gate", probes_restart_and_gate),
    ("workloads::node_is_cordoned_and_drained", node_is_cordoned_and_drained),
    ("workloads::questions_to_the_api", questions_to_the_api),
    ("workloads::faults_are_told", faults_are_told),
    ("workloads::an_api_service_tells_who_answers", an_api_service_tells_who_answers),
    ("workloads::a_policy_is_enforced", a_policy_is_enforced),
];

fn deployment_rolls_out_and_back(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.deploy("web", 2);
    assert_eq!(kubectl.field("deployment/web", ".status.readyReplicas"), "2");

    kubectl.ok(&["scale", "deployment/web", "--replicas=3"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(kubectl.field("deployment/web", ".status.readyReplicas"), "3");

    // A second name for the same image: a new template, so a new revision.
    kubectl.ok(&["set", "image", "deployment/web", "hello=localhost/hello:2"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(kubectl.field("deployment/web", ".spec.template.spec.containers[0].image"), "localhost/hello:2");
    let history = kubectl.ok(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");

    kubectl.ok(&["rollout", "undo", "deployment/web"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(kubectl.field("deployment/web", ".spec.template.spec.containers[0].image"), "localhost/hello:1");
    assert_eq!(kubectl.field("deployment/web", ".metadata.annotations.deployment\\.kubernetes\\.io/revision"), "3");

    kubectl.ok(&["rollout", "restart", "deployment/web"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
}

fn service_reaches_every_endpoint(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.deploy("web", 3);
    kubectl.pod("client", "sleep 3600");
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]);
    let mut pods: Vec<String> =
        kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"]).lines().map(|l| l.replace("pod/", "")).collect();
    // By name, from a pod, until each of them has answered.
    for _ in 0..200 {
        let answer = kubectl.ok(&["exec", "client", "--", "wget", "-qO-", "http://web/hostname"]);
        pods.retain(|pod| pod != answer.trim());
        if pods.is_empty() {
            break;
        }
    }
    assert!(pods.is_empty(), "never answered: {pods:?}");
    // From the node, through the node port.
    kubectl.ok(&["expose", "deployment/web", "--name=outside", "--type=NodePort", "--port=80", "--target-port=8080"]);
    let port = kubectl.field("service/outside", ".spec.ports[0].nodePort");
    eventually("the node port answers", || {
        cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://192.168.77.1:{port}/hostname")])
    });
}

fn a_pod_leaves_its_service_before_it_dies(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let slow = deployment("web", 2)
        .replace("terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 60")
        .replace("        ports:", "        lifecycle: {preStop: {sleep: {seconds: 50}}}\n        ports:");
    kubectl.ok_with(&["apply", "-f", "-"], &slow);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods = kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{\"\\n\"}{end}",
    ]);
    let (name, address) = pods.lines().next().and_then(|line| line.split_once(' ')).expect("there are two");
    let service = kubectl.field("service/web", ".spec.clusterIP");
    let ask =
        |host: &str, port: u16| cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://{host}:{port}/hostname")]);

    kubectl.ok(&["delete", "pod", name, "--wait=false"]);
    let path = format!("{{.items[0].endpoints[?(@.targetRef.name==\"{name}\")].conditions}}");
    let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", &format!("jsonpath={path}")];
    eventually("the endpoint is terminating", || {
        let conditions = kubectl.ok(&slices);
        match conditions.as_str() {
            r#"{"ready":false,"serving":true,"terminating":true}"# => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    // The rules follow the slice; from then on it gets no new connection, while it still answers.
    eventually("the Service leads to the others only", || {
        let answers: Vec<String> = (0..30).map(|_| ask(&service, 80)).collect::<Result<_, _>>()?;
        if answers.iter().all(|answer| answer.trim() != name) {
            Ok(())
        } else {
            Err("it still leads to the dying pod".to_owned())
        }
    });
    assert_eq!(ask(address, 8080).unwrap().trim(), name);
    kubectl.ok(&["delete", "pods", "--all", "--force", "--grace-period=0"]);
}

fn logs_of_now_and_before(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let restarting =
        pod("talker", "echo run $(cat /state/n 2>/dev/null || echo first); echo again > /state/n; sleep 1; exit 3", "Always")
            .replace("  containers:", "  volumes: [{name: state, emptyDir: {}}]\n  containers:")
            + "    volumeMounts: [{name: state, mountPath: /state}]\n";
    kubectl.ok_with(&["apply", "-f", "-"], &restarting);
    kubectl.ok(&["wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/talker", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["logs", "talker", "-p"]), "run first\n");
    eventually("the second run logs", || match kubectl.ok(&["logs", "talker"]).as_str() {
        "run again\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(kubectl.field("pod/talker", ".status.containerStatuses[0].lastState.terminated.exitCode"), "3");

    kubectl.pod("counter", "for i in 1 2 3 4 5; do echo line $i; done");
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/counter", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["logs", "counter", "--tail=2"]), "line 4\nline 5\n");
    assert_eq!(kubectl.ok(&["logs", "-f", "counter"]).lines().count(), 5);
    let stamped = kubectl.ok(&["logs", "counter", "--timestamps", "--tail=1"]);
    assert!(stamped.contains("T") && stamped.trim_end().ends_with("line 5"), "{stamped}");
}

fn exec_with_and_without_a_terminal(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.pod("shell", "sleep 3600");
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["exec", "shell", "--", "sh", "-c", "echo out; echo err >&2"]), "out\n");
    assert_eq!(kubectl.ok_with(&["exec", "-i", "shell", "--", "cat"], "through stdin"), "through stdin");
    let failed = kubectl.run(&["exec", "shell", "--", "sh", "-c", "exit 7"], "");
    assert_eq!(failed.status.code(), Some(7));
    let missing = kubectl.fails(&["exec", "shell", "--", "no-such-command"]);
    assert!(missing.contains("no-such-command"), "{missing}");
    // `script` gives kubectl a terminal to pass on.
    let kubectl_tty = format!("kubectl --namespace {namespace} exec -it shell -- tty");
    let tty = cluster.succeed("script", &["-qec", &kubectl_tty, "/dev/null"]).unwrap_or_else(|err| panic!("{err}"));
    assert!(tty.contains("/dev/pts/"), "{tty}");
}

fn generators_create(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    #[rustfmt::skip]
    let generators: &[&[&str]] = &[
        &["clusterrole", "e2e-reader", "--verb=get", "--resource=pods"],
        &["clusterrolebinding", "e2e-readers", "--clusterrole=e2e-reader", "--user=jane"],
        &["configmap", "settings", "--from-literal=a=1"],
        &["deployment", "app", "--image=localhost/hello:1", "--replicas=1"],
        &["priorityclass", "e2e-high", "--value=1000"],
        &["role", "reader", "--verb=get,list", "--resource=pods"],
        &["rolebinding", "readers", "--role=reader", "--serviceaccount=default:default"],
        &["secret", "generic", "password", "--from-literal=p=secret"],
        &["secret", "docker-registry", "registry", "--docker-username=u", "--docker-password=p", "--docker-server=localhost:5000"],
        &["service", "clusterip", "inside", "--tcp=80:8080"],
        &["service", "nodeport", "outside", "--tcp=80:8080"],
        &["service", "loadbalancer", "balanced", "--tcp=80:8080"],
        &["service", "externalname", "elsewhere", "--external-name=example.com"],
        &["serviceaccount", "robot"],
        &["quota", "limits", "--hard=pods=10"],
        &["poddisruptionbudget", "budget", "--selector=app=app", "--min-available=1"],
        &["ingress", "front", "--rule=example.com/*=inside:80"],
        &["job", "once", "--image=localhost/busybox:1", "--", "true"],
        &["cronjob", "nightly", "--image=localhost/busybox:1", "--schedule=0 3 * * *", "--", "true"],
    ];
    for generator in generators {
        let said = kubectl.ok(&[&["create"], *generator].concat());
        assert!(said.contains("created"), "{generator:?}: {said}");
    }
    let token = kubectl.ok(&["create", "token", "robot"]);
    assert_eq!(token.trim().split('.').count(), 3, "a token is a JWT");
    for (kind, name) in [("clusterrole", "e2e-reader"), ("clusterrolebinding", "e2e-readers"), ("priorityclass", "e2e-high")] {
        kubectl.ok(&["delete", kind, name]);
    }
}

fn changes_of_every_kind(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.ok(&["create", "configmap", "c", "--from-literal=a=1"]);
    kubectl.ok(&["label", "configmap/c", "tier=gold"]);
    kubectl.ok(&["annotate", "configmap/c", "note=x"]);
    kubectl.ok(&["label", "configmap/c", "tier-"]);
    assert_eq!(kubectl.field("configmap/c", ".metadata.labels"), "");
    assert_eq!(kubectl.field("configmap/c", ".metadata.annotations.note"), "x");

    kubectl.ok(&["patch", "configmap/c", "--type=merge", "-p", r#"{"data":{"b":"2"}}"#]);
    kubectl.ok(&["patch", "configmap/c", "--type=json", "-p", r#"[{"op":"replace","path":"/data/a","value":"9"}]"#]);
    kubectl.ok(&["patch", "configmap/c", "-p", r#"{"data":{"c":"3"}}"#]);
    assert_eq!(kubectl.field("configmap/c", ".data"), r#"{"a":"9","b":"2","c":"3"}"#);

    let editor = cluster.scratch().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nexec sed -i 's/a: \"9\"/a: edited/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let edited = cluster
        .command("kubectl")
        .args(["--namespace", namespace, "edit", "configmap/c"])
        .env("KUBE_EDITOR", &editor)
        .output()
        .unwrap();
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    assert_eq!(kubectl.field("configmap/c", ".data.a"), "edited");

    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {k: one}\n";
    kubectl.ok_with(&["apply", "-f", "-"], manifest);
    let changed = manifest.replace("one", "two");
    let diff = kubectl.run(&["diff", "-f", "-"], &changed);
    assert_eq!(diff.status.code(), Some(1), "{}", String::from_utf8_lossy(&diff.stderr));
    assert!(String::from_utf8_lossy(&diff.stdout).contains("+  k: two"));
    kubectl.ok_with(&["apply", "-f", "-"], &changed);
    assert_eq!(kubectl.field("configmap/d", ".data.k"), "two");

    let served = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: e}\ndata: {k: one}\n";
    kubectl.ok_with(&["apply", "--server-side", "-f", "-"], served);
    let conflict =
        kubectl.fails_with(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &served.replace("one", "two"));
    assert!(conflict.contains("conflict with \"kubectl\": .data.k"), "{conflict}");
    kubectl.ok_with(
        &["apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-"],
        &served.replace("one", "two"),
    );
    assert_eq!(kubectl.field("configmap/e", ".data.k"), "two");

    kubectl.ok_with(&["replace", "-f", "-"], &served.replace("one", "three"));
    assert_eq!(kubectl.field("configmap/e", ".data.k"), "three");
}

fn output_in_every_form(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.deploy("web", 1);
    let wide = kubectl.ok(&["get", "pods", "-o", "wide"]);
    assert!(wide.starts_with("NAME ") && wide.contains("NOMINATED NODE") && wide.contains(" Running "), "{wide}");
    assert!(kubectl.ok(&["get", "deployments,replicasets,services"]).contains("deployment.apps/web"));
    assert!(kubectl.ok(&["get", "deployment/web", "-o", "yaml"]).contains("kind: Deployment"));
    assert!(kubectl.ok(&["get", "deployment/web", "-o", "json"]).contains(r#""kind": "Deployment""#));
    assert!(kubectl.ok(&["get", "all"]).contains("service/web"));
    let watched = kubectl.run(&["get", "pods", "-w", "--request-timeout=2s"], "");
    assert!(String::from_utf8_lossy(&watched.stdout).contains("web-"));
    let described = kubectl.ok(&["describe", "pods", "-l", "app=web"]);
    for word in ["Successfully assigned", "Started", "ContainersReady             True", "localhost/hello:1"] {
        assert!(described.contains(word), "{word} is missing:\n{described}");
    }
    for kind in ["deployment/web", "service/web", "namespace/default", "nodes"] {
        kubectl.ok(&["describe", kind]);
    }
    assert!(kubectl.ok(&["events"]).contains("Scheduled"));
}

fn delete_with_every_cascade(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    for (name, cascade) in [("bg", "background"), ("fg", "foreground")] {
        kubectl.deploy(name, 1);
        kubectl.ok(&["delete", "deployment", name, &format!("--cascade={cascade}"), "--timeout=60s"]);
        kubectl.ok(&["wait", "--for=delete", "pod", "-l", &format!("app={name}"), "--timeout=60s"]);
    }
    kubectl.deploy("left", 1);
    kubectl.ok(&["delete", "deployment", "left", "--cascade=orphan"]);
    let orphan = kubectl.ok(&["get", "replicasets", "-l", "app=left", "-o", "name"]);
    assert!(orphan.starts_with("replicaset.apps/left-"), "{orphan}");
    eventually("the orphan has no owner", || match kubectl.field(orphan.trim(), ".metadata.ownerReferences").as_str() {
        "" => Ok(()),
        owners => Err(owners.to_owned()),
    });
    kubectl.ok(&["delete", "all", "--all", "--timeout=60s"]);
}

fn copy_and_port_forward(cluster: &Cluster, namespace: &str) {
    use std::io::{BufRead, BufReader};
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.pod("box", "sleep 3600");
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"]);
    let file = cluster.scratch().join("copied");
    std::fs::write(&file, "payload").unwrap();
    kubectl.ok(&["cp", file.to_str().unwrap(), "box:/tmp/copied"]);
    assert_eq!(kubectl.ok(&["exec", "box", "--", "cat", "/tmp/copied"]), "payload");
    let back = cluster.scratch().join("back");
    kubectl.ok(&["cp", "box:/tmp/copied", back.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(back).unwrap(), "payload");

    kubectl.deploy("web", 1);
    let mut forward = cluster
        .command("kubectl")
        .args(["--namespace", namespace, "port-forward", "deployment/web", ":8080"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open: kubectl says more, and a closed pipe would end it.
    let mut said = BufReader::new(forward.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let port =
        line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{line}")).to_owned();
    let answers: Vec<_> = (0..3)
        .map(|_| cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://127.0.0.1:{port}/hostname")]))
        .collect();
    forward.kill().unwrap();
    forward.wait().unwrap();
    for answer in answers {
        assert!(answer.unwrap().starts_with("web-"));
    }
}

fn configuration_reaches_the_pod_and_follows_changes(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.ok(&["create", "configmap", "settings", "--from-literal=color=red"]);
    kubectl.ok(&["create", "secret", "generic", "password", "--from-literal=word=open"]);
    let manifest = pod("reader", "sleep 3600", "Never")
        .replace("  containers:", "  volumes:\n  - {name: settings, configMap: {name: settings}}\n  - {name: password, secret: {secretName: password, defaultMode: 256}}\n  - name: info\n    downwardAPI:\n      items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]\n  initContainers:\n  - {name: first, image: 'localhost/busybox:1', command: [sh, -c, 'echo made > /work/made'], volumeMounts: [{name: work, mountPath: /work}]}\n  containers:")
        .replace("  volumes:\n", "  volumes:\n  - {name: work, emptyDir: {}}\n")
        + r"    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: BOTH, value: '$(COLOR) $(WORD)'}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: password, mountPath: /password}
    - {name: info, mountPath: /info}
    - {name: work, mountPath: /work}
";
    kubectl.ok_with(&["apply", "-f", "-"], &manifest);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]);
    let read = |what: &str| kubectl.ok(&["exec", "reader", "--", "sh", "-c", what]);
    assert_eq!(read("echo $COLOR $WORD $NODE $BOTH"), "red open node red open\n");
    assert_eq!(read("cat /settings/color /password/word /info/labels"), "redopenapp=\"reader\"");
    assert_eq!(read("stat -Lc %a /password/word"), "400\n");
    assert_eq!(read("cat /work/made"), "made\n");
    let token = read("cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    assert_eq!(token.split('.').count(), 3);
    assert!(read("cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt").contains("BEGIN CERTIFICATE"));

    kubectl.ok(&["patch", "configmap/settings", "-p", r#"{"data":{"color":"blue"}}"#]);
    eventually("the volume follows the ConfigMap", || match read("cat /settings/color").as_str() {
        "blue" => Ok(()),
        other => Err(other.to_owned()),
    });
}

fn probes_restart_and_gate(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.deploy("web", 1);
    let name = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    let address = kubectl.field(&format!("pod/{name}"), ".status.podIP");
    let get = |path: &str| cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://{address}:8080{path}")]).unwrap();
    get("/fail-ready?on=1");
    kubectl.ok(&["wait", "--for=condition=Ready=false", &format!("pod/{name}"), "--timeout=30s"]);
    let addresses = || kubectl.field("endpoints/web", ".subsets[*].addresses[*].ip");
    eventually("the pod leaves the endpoints", || if addresses().is_empty() { Ok(()) } else { Err(addresses()) });
    get("/fail-ready?on=0");
    kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=30s"]);

    let live = deployment("live", 1)
        .replace("readinessProbe:", "livenessProbe:")
        .replace("path: /ready", "path: /healthz")
        .replace("periodSeconds: 1", "periodSeconds: 1\n          failureThreshold: 1");
    kubectl.ok_with(&["apply", "-f", "-"], &live);
    kubectl.ok(&["rollout", "status", "deployment/live", "--timeout=60s"]);
    let name = kubectl.ok(&["get", "pods", "-l", "app=live", "-o", "jsonpath={.items[0].metadata.name}"]);
    let address = kubectl.field(&format!("pod/{name}"), ".status.podIP");
    cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://{address}:8080/fail-probe?on=1")]).unwrap();
    kubectl.ok(&[
        "wait",
        "--for=jsonpath={.status.containerStatuses[0].restartCount}=1",
        &format!("pod/{name}"),
        "--timeout=60s",
    ]);
    let events = kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
    assert!(events.contains("Unhealthy") && events.contains("Killing"), "{events}");
}

fn node_is_cordoned_and_drained(_: &Cluster, _: &str) {
    // Draining would take the pods of the tests that run beside this one: a cluster of its own.
    let cluster = Cluster::start().unwrap_or_else(|err| panic!("{err}"));
    let kubectl = Kubectl::new(&cluster, "default");
    kubectl.deploy("web", 1);
    kubectl.ok(&["cordon", "node"]);
    kubectl.pod("late", "true");
    eventually("the pod is told why it waits", || {
        let message = kubectl.field("pod/late", ".status.conditions[?(@.type==\"PodScheduled\")].message");
        if message.contains("0/1 nodes are available: 1 node(s) were unschedulable") { Ok(()) } else { Err(message) }
    });
    kubectl.ok(&["delete", "pod", "late"]);
    kubectl.ok(&["drain", "node", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"]), "Pending");
    kubectl.ok(&["uncordon", "node"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.down().unwrap_or_else(|err| panic!("{err}"));
}

fn questions_to_the_api(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    assert!(kubectl.ok(&["api-resources"]).contains("deployments"));
    assert!(kubectl.ok(&["api-versions"]).contains("apps/v1"));
    assert!(kubectl.ok(&["explain", "pod.spec.containers"]).contains("imagePullPolicy"));
    assert!(kubectl.ok(&["explain", "deployment", "--recursive"]).contains("maxSurge"));
    assert_eq!(kubectl.ok(&["auth", "can-i", "create", "pods"]), "yes\n");
    let denied = kubectl.run(&["auth", "can-i", "create", "pods", "--as=nobody"], "");
    assert_eq!(String::from_utf8_lossy(&denied.stdout), "no\n");
    assert!(kubectl.ok(&["auth", "whoami"]).contains("system:masters"));
    assert!(kubectl.ok(&["version"]).contains("v1.36"));
    assert!(kubectl.ok(&["cluster-info"]).contains("is running at"));
    let top = kubectl.fails(&["top", "nodes"]);
    assert!(top.contains("Metrics API not available"), "{top}");
}

fn faults_are_told(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let unknown = deployment("x", 1).replace("replicas:", "replicsa:");
    let said = kubectl.fails_with(&["apply", "-f", "-"], &unknown);
    assert!(said.contains("unknown field \"spec.replicsa\""), "{said}");
    let invalid = kubectl.fails_with(&["apply", "-f", "-"], &deployment("Upper", 1));
    assert!(invalid.contains("metadata.name: Invalid value: \"Upper\""), "{invalid}");
    assert!(kubectl.fails(&["get", "pod", "none"]).contains("pods \"none\" not found"));

    kubectl.ok_with(&["apply", "-f", "-"], &pod("absent", "true", "Never").replace("localhost/busybox:1", "localhost:1/none:1"));
    kubectl.ok(&[
        "wait",
        "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff",
        "pod/absent",
        "--timeout=60s",
    ]);
    let manifest = pod("wrong", "true", "Never").replace("command: [sh, -c, \"true\"]", "command: [no-such-command]");
    kubectl.ok_with(&["apply", "-f", "-"], &manifest);
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/wrong", "--timeout=60s"]);
    let message = kubectl.field("pod/wrong", ".status.containerStatuses[0].state.terminated.message");
    assert!(message.contains("no-such-command"), "{message}");
}

fn an_api_service_tells_who_answers(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let broken = "
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.broken.example.com}
spec: {group: broken.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 10, insecureSkipTLSVerify: true,
  service: {namespace: default, name: kubernetes}}
";
    let becomes = |name: &str, reason: &str| {
        let condition = format!("--for=jsonpath={{.status.conditions[0].reason}}={reason}");
        kubectl.ok(&["wait", &condition, &format!("apiservice/{name}"), "--timeout=60s"]);
    };
    // The server behind the Service is the API server, which has no such group, and has one that is elsewhere so far.
    kubectl.ok_with(&["apply", "-f", "-"], broken);
    becomes("v1.broken.example.com", "FailedDiscoveryCheck");
    kubectl.ok(&["delete", "apiservice", "v1.broken.example.com"]);
    let patch = |service: &str, insecure: bool| {
        let patch = format!("{{\"spec\": {{\"service\": {service}, \"insecureSkipTLSVerify\": {insecure}}}}}");
        kubectl.ok(&["patch", "apiservice", "v2.autoscaling", "--type=merge", "-p", &patch]);
    };
    patch("{\"namespace\": \"default\", \"name\": \"kubernetes\"}", true);
    becomes("v2.autoscaling", "Passed");
    patch("null", false);
    becomes("v2.autoscaling", "Local");
}

fn a_policy_is_enforced(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let policy = format!(
        r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: few-replicas}}
spec:
  matchConstraints:
    resourceRules: [{{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}}]
  validations: [{{expression: "object.spec.replicas <= 3", messageExpression: "'no more than 3 replicas, not ' + string(object.spec.replicas)"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: few-replicas}}
spec:
  policyName: few-replicas
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}
"#
    );
    kubectl.ok_with(&["apply", "-f", "-"], &policy);
    let refused = eventually("the policy is in force", || {
        let answer = kubectl.run(&["apply", "--dry-run=server", "-f", "-"], &deployment("web", 4));
        if answer.status.success() {
            Err("accepted".to_owned())
        } else {
            Ok(String::from_utf8_lossy(&answer.stderr).into_owned())
        }
    });
    let why =
        "ValidatingAdmissionPolicy 'few-replicas' with binding 'few-replicas' denied request: no more than 3 replicas, not 4";
    assert!(refused.contains(why), "{refused}");
    kubectl.ok_with(&["apply", "--dry-run=server", "-f", "-"], &deployment("web", 3));
    kubectl.ok_with(&["delete", "-f", "-"], &policy);
}
