//! The components as processes of their own, each by a kubeconfig with no more rights than its role has.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::Test;
use crate::cluster::{CORTEN, Cluster, eventually};
use crate::kubectl::{Kubectl, pod};

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[("components::make_a_cluster", make_a_cluster)];

/// Token, user and groups of each component.
const IDENTITIES: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kubelet", "system:node:node", "system:nodes"),
    ("proxy", "system:kube-proxy", ""),
];

/// One component's process. It ends with the cluster's namespaces.
fn start(cluster: &Cluster, name: &str, flags: &[&str]) -> Child {
    let log = fs::File::create(cluster.scratch().join(format!("{name}.log"))).unwrap();
    let mut command = cluster.command(CORTEN);
    command.arg(name).args(flags).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

fn make_a_cluster(_: &Cluster, _: &str) {
    let cluster = Cluster::prepare().unwrap_or_else(|err| panic!("{err}"));
    // The data directory is in memory and visible inside only.
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let data = |rest: &str| text(cluster.data().join(rest));
    let ca = data("pki/ca.crt");
    let write = |name: String, content: String| {
        let path = cluster.scratch().join(name);
        fs::write(&path, content).unwrap();
        text(path)
    };
    let rows = IDENTITIES.iter().map(|(token, user, groups)| format!("{token}-token,{user},{user},{groups}\n"));
    let tokens = write("tokens.csv".to_owned(), rows.collect());
    let kubeconfig = |name: &str| {
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://192.168.77.1:6443', certificate-authority: {ca}}}}}]\n\
             users: [{{name: u, user: {{token: {name}-token}}}}]\n"
        );
        write(format!("{name}.kubeconfig"), config)
    };
    cluster.succeed("cp", &[&kubeconfig("admin"), &data("admin.kubeconfig")]).unwrap();
    let services = "--service-cluster-ip-range=10.43.0.0/16";
    let own = data("");
    let mut flags = vec!["--data-dir", &own, "--token-auth-file", &tokens, "--authorization-mode=Node,RBAC", services];
    flags.push("--advertise-address=192.168.77.1");
    let mut running = vec![start(&cluster, "apiserver", &flags)];
    let kubectl = Kubectl::new(&cluster, "default");
    eventually("the API answers", || match kubectl.run(&["get", "--raw", "/readyz"], "") {
        answer if answer.status.success() => Ok(()),
        answer => Err(String::from_utf8_lossy(&answer.stderr).into_owned()),
    });
    let (node, certificate, key) = (data("node"), data("kubelet.crt"), data("kubelet.key"));
    #[rustfmt::skip]
    cluster.succeed("openssl", &[
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-CA", &ca, "-CAkey", &data("pki/ca.key"),
        "-config", "/dev/null", "-addext", "basicConstraints=critical,CA:FALSE", "-subj", "/O=system:nodes/CN=system:node:node", "-addext", "subjectAltName=IP:192.168.77.1,DNS:node",
        "-out", &certificate, "-keyout", &key,
    ]).unwrap_or_else(|err| panic!("{err}"));
    let manifests = cluster.scratch().join("manifests");
    fs::create_dir(&manifests).unwrap();
    let (manifest, manifests) = (manifests.join("static.yaml"), text(manifests.clone()));
    fs::write(&manifest, pod("static", "echo static; sleep 3600", "Always")).unwrap();
    #[rustfmt::skip]
    let others: &[(&str, &[&str])] = &[
        ("controller-manager", &["--use-service-account-credentials", "--root-ca-file", &ca, "--allocate-node-cidrs",
            "--cluster-cidr=10.42.0.0/16", services]),
        ("scheduler", &[]),
        ("kubelet", &["--data-dir", &node, "--hostname-override=node", "--node-ip=192.168.77.1", "--cgroup-root", cluster.cgroup(),
            "--client-ca-file", &ca, "--tls-cert-file", &certificate, "--tls-private-key-file", &key, services, "--pod-manifest-path", &manifests]),
        ("proxy", &["--hostname-override=node", "--cluster-cidr=10.42.0.0/16"]),
    ];
    for (name, flags) in others {
        let config = kubeconfig(name);
        running.push(start(&cluster, name, &[&["--kubeconfig", &config], *flags].concat()));
    }
    eventually("the node registers", || {
        match kubectl.run(&["wait", "--for=condition=Ready", "node/node", "--timeout=60s"], "") {
            answer if answer.status.success() => Ok(()),
            answer => Err(String::from_utf8_lossy(&answer.stderr).into_owned()),
        }
    });
    cluster.import_images(&node).unwrap_or_else(|err| panic!("{err}"));

    kubectl.ok(&["wait", "--for=create", "pod/static-node", "--timeout=60s"]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/static-node", "--timeout=60s"]);
    assert_eq!(kubectl.field("pod/static-node", ".metadata.ownerReferences[0].kind"), "Node");
    assert_eq!(kubectl.ok(&["logs", "static-node"]), "static\n");
    fs::remove_file(&manifest).unwrap();
    kubectl.ok(&["wait", "--for=delete", "pod/static-node", "--timeout=60s"]);

    kubectl.deploy("web", 2);
    let address = kubectl.field("service/web", ".spec.clusterIP");
    eventually("the Service answers", || {
        cluster.succeed("curl", &["-sS", "--max-time", "5", &format!("http://{address}/hostname")])
    });
    assert!(!kubectl.ok(&["logs", "deployment/web"]).is_empty());
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        let holder = kubectl.ok(&["get", "lease", lease, "-n", "kube-system", "-o", "jsonpath={.spec.holderIdentity}"]);
        assert!(holder.contains('_'), "{lease} is led by {holder:?}");
    }
    kubectl.ok(&["delete", "deployment/web", "--cascade=foreground", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "name"]), "");
    for child in &mut running {
        assert!(child.try_wait().unwrap().is_none(), "a component ended by itself");
    }
    for (name, _) in others {
        let log = fs::read_to_string(cluster.scratch().join(format!("{name}.log"))).unwrap();
        assert!(!log.to_lowercase().contains("forbidden"), "{name} lacks a right:\n{log}");
    }
}
