//! The real `kubectl`, inside a cluster's namespaces, with its output checked.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::cluster::Cluster;

/// `kubectl` in one Kubernetes namespace.
pub struct Kubectl<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

impl<'a> Kubectl<'a> {
    /// For a test's namespace.
    pub fn new(cluster: &'a Cluster, namespace: &'a str) -> Self {
        Self { cluster, namespace }
    }

    /// Runs it and returns its standard output; panics with everything it said when it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.expect(args, "", true)
    }

    /// Runs it with a document on standard input (use `-f -`).
    #[track_caller]
    pub fn ok_with(&self, args: &[&str], input: &str) -> String {
        self.expect(args, input, true)
    }

    /// Runs it, expects it to fail, and returns what it said on standard error.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        self.expect(args, "", false)
    }

    /// Like [`Kubectl::fails`], with a document on standard input.
    #[track_caller]
    pub fn fails_with(&self, args: &[&str], input: &str) -> String {
        self.expect(args, input, false)
    }

    /// Runs it, whatever comes of it.
    pub fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.cluster.command("kubectl");
        command.arg("--namespace").arg(self.namespace).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|err| panic!("kubectl: {err}"));
        // A command that does not read its input may close it first: that is no failure.
        let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
        child.wait_with_output().unwrap_or_else(|err| panic!("kubectl: {err}"))
    }

    #[track_caller]
    fn expect(&self, args: &[&str], input: &str, success: bool) -> String {
        let Output { status, stdout, stderr } = self.run(args, input);
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success() == success, "kubectl {}: {status}\n{stdout}\n{stderr}", args.join(" "));
        if success { stdout.into_owned() } else { stderr.into_owned() }
    }

    /// One field of an object, by JSONPath without braces (`.status.phase`).
    #[track_caller]
    pub fn field(&self, object: &str, path: &str) -> String {
        self.ok(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// Applies a Deployment of `hello` pods with a Service of the same name, and waits until it is rolled out.
    #[track_caller]
    pub fn deploy(&self, name: &str, replicas: u32) {
        self.ok_with(&["apply", "-f", "-"], &deployment(name, replicas));
        self.ok(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]);
    }

    /// Creates a pod that runs `command` in busybox.
    #[track_caller]
    pub fn pod(&self, name: &str, command: &str) {
        self.ok_with(&["apply", "-f", "-"], &pod(name, command, "Never"));
    }
}

/// A Deployment of `hello` pods and a Service for it.
pub fn deployment(name: &str, replicas: u32) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: hello
        image: localhost/hello:1
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe:
          httpGet: {{path: /ready, port: http}}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"
    )
}

/// A pod that runs a shell command in busybox.
pub fn pod(name: &str, command: &str, restart: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  restartPolicy: {restart}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, {command:?}]
"
    )
}
