//! The node's own endpoint as tools use it: streams of clients that know no WebSockets, figures, and who is let in.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::Test;
use crate::cluster::{Cluster, eventually};
use crate::kubectl::{Kubectl, pod};

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[
    ("endpoint::streams_without_websockets", streams_without_websockets),
    ("endpoint::figures_are_real", figures_are_real),
    ("endpoint::nobody_enters_unknown", nobody_enters_unknown),
];

/// What makes kubectl speak SPDY, as it did before WebSockets and as many tools still do.
const SPDY: [(&str, &str); 2] = [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")];

fn streams_without_websockets(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    kubectl.deploy("web", 1);
    kubectl.ok_with(&["apply", "-f", "-"], &pod("shell", "while sleep 0.2; do echo tick; done", "Never"));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]);
    let run = |script: &str| {
        let mut command = cluster.command("sh");
        command.args(["-c", script]).envs(SPDY).output().unwrap()
    };
    let exec = format!("echo in | kubectl -v=7 -n {namespace} exec -i shell -- sh -c 'cat; echo err >&2; exit 3'");
    let output = run(&exec);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((out.as_ref(), output.status.code()), ("in\n", Some(3)), "{err}");
    assert!(err.contains("err\n") && err.contains("POST "), "WebSockets begin with GET: {err}");
    let terminal = run(&format!("script -qec 'kubectl -n {namespace} exec -it shell -- tty' /dev/null < /dev/null"));
    assert!(String::from_utf8_lossy(&terminal.stdout).contains("/dev/pts/"), "{terminal:?}");
    let attached = run(&format!("timeout 5 kubectl -n {namespace} attach shell | head -n 2"));
    assert_eq!(String::from_utf8_lossy(&attached.stdout), "tick\ntick\n", "{attached:?}");

    let mut forward = cluster
        .command("kubectl")
        .args(["--namespace", namespace, "port-forward", "deployment/web", ":8080"])
        .envs(SPDY)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(forward.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    let ask = || cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://127.0.0.1:{port}/hostname")]);
    let answers: Vec<_> = (0..3).map(|_| ask()).collect();
    forward.kill().unwrap();
    forward.wait().unwrap();
    for answer in answers {
        assert!(answer.unwrap().starts_with("web-"));
    }
}

fn figures_are_real(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let busy = pod("busy", "dd if=/dev/zero of=/file bs=1k count=64 2>/dev/null; while :; do :; done", "Never")
        + "    resources: {limits: {cpu: 100m, memory: 32Mi}}\n";
    kubectl.ok_with(&["apply", "-f", "-"], &busy);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/busy", "--timeout=60s"]);
    let labels = format!("container=\"main\",namespace=\"{namespace}\",pod=\"busy\"");
    let value = |text: &str, start: &str, within: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(start) && line.contains(within));
        let number = line.and_then(|line| line.rsplit_once('}')).and_then(|(_, rest)| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
    };
    eventually("CPU time is counted", || {
        let text = kubectl.ok(&["get", "--raw", "/api/v1/nodes/node/proxy/metrics/resource"]);
        let used = value(&text, &format!("container_cpu_usage_seconds_total{{{labels}}}"), "");
        if used > 0.05 { Ok(()) } else { Err(text) }
    });
    eventually("the quota is felt", || {
        let text = kubectl.ok(&["get", "--raw", "/api/v1/nodes/node/proxy/metrics/cadvisor"]);
        let own = format!("namespace=\"{namespace}\",pod=\"busy\"");
        let throttled = value(&text, "container_cpu_cfs_throttled_periods_total{container=\"main\"", &own);
        let limit = value(&text, "container_spec_memory_limit_bytes{container=\"main\"", &own);
        let layer = value(&text, "container_fs_usage_bytes{container=\"main\"", &own);
        let received = value(&text, "container_network_receive_bytes_total{container=\"\"", &own);
        let all = throttled > 0.0 && limit == f64::from(32 << 20) && layer >= 65536.0 && received > 0.0;
        if all { Ok(()) } else { Err(format!("{throttled} {limit} {layer} {received}")) }
    });
    eventually("the summary tells the present use", || {
        let text = kubectl.ok(&["get", "--raw", "/api/v1/nodes/node/proxy/stats/summary"]);
        let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
        let pods = summary["pods"].as_array().unwrap();
        let busy = pods.iter().find(|pod| pod["podRef"]["name"] == "busy" && pod["podRef"]["namespace"] == namespace).unwrap();
        let cores = busy["containers"][0]["cpu"]["usageNanoCores"].as_u64().unwrap_or(0);
        // A tenth of a CPU, give or take what a loaded machine makes of it.
        if (10_000_000..300_000_000).contains(&cores) { Ok(()) } else { Err(cores.to_string()) }
    });
    kubectl.ok(&["delete", "pod", "busy", "--now"]);
}

fn nobody_enters_unknown(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let base = format!("https://{}:10250", corten_testkit::enclosure::ADDRESS);
    let status = |path: &str, token: Option<&str>| {
        let header = token.map(|token| format!("Authorization: Bearer {token}"));
        let mut args = vec!["-sk", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"];
        args.extend(header.iter().flat_map(|header| ["-H", header.as_str()]));
        let url = format!("{base}{path}");
        args.push(&url);
        cluster.succeed("curl", &args).unwrap()
    };
    kubectl.ok(&["create", "serviceaccount", "reader"]);
    let token = kubectl.ok(&["create", "token", "reader"]);
    let token = Some(token.trim());
    assert_eq!(status("/pods", None), "401");
    assert_eq!(status("/pods", Some("made-up")), "401");
    assert_eq!(status("/metrics/resource", token), "403");
    let binding = format!("reader-{namespace}");
    let account = format!("--serviceaccount={namespace}:reader");
    kubectl.ok(&["create", "clusterrole", &binding, "--verb=get", "--resource=nodes/metrics,nodes/stats"]);
    kubectl.ok(&["create", "clusterrolebinding", &binding, &format!("--clusterrole={binding}"), &account]);
    // Refusals are remembered for half a minute: another account has none yet.
    kubectl.ok(&["create", "serviceaccount", "other"]);
    let account = format!("--serviceaccount={namespace}:other");
    kubectl.ok(&["create", "clusterrolebinding", &format!("{binding}-2"), &format!("--clusterrole={binding}"), &account]);
    let other = kubectl.ok(&["create", "token", "other"]);
    for path in ["/metrics/resource", "/metrics/cadvisor", "/stats/summary"] {
        assert_eq!(status(path, Some(other.trim())), "200", "{path}");
    }
    for path in ["/pods", "/configz", "/exec/default/none/main", "/logs/"] {
        assert_eq!(status(path, Some(other.trim())), "403", "{path}");
    }
    kubectl.ok(&["delete", "clusterrolebinding", &binding, &format!("{binding}-2")]);
    kubectl.ok(&["delete", "clusterrole", &binding]);
}
