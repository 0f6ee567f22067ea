//! Images from a real registry, with and without credentials, whole and broken.

use std::net::TcpListener;

use corten_testkit::image::{Compression, Image, Layer};
use corten_testkit::registry::{Registry, USER};

use crate::Test;
use crate::authority::{Authority, SERVICE, TokenServer};
use crate::cluster::{Cluster, eventually};
use crate::kubectl::Kubectl;

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[
    ("registry::pulled_by_pods", pulled_by_pods),
    ("registry::pull_secrets_open_a_guarded_one", pull_secrets_open_a_guarded_one),
    ("registry::tokens_open_a_secured_one", tokens_open_a_secured_one),
];

/// A registry on the cluster's loopback.
fn serve(cluster: &Cluster, images: &[(&str, &str, &Image)], password: Option<&str>) -> Registry {
    // Free outside, and nothing else inside listens on such ports.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Registry::start(|program| cluster.command(program), port, images, password).unwrap_or_else(|err| panic!("{err:#}"))
}

fn pod(name: &str, image: &str, secret: Option<&str>) -> String {
    let secrets = secret.map(|secret| format!("  imagePullSecrets: [{{name: {secret}}}]\n")).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{secrets}  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{image}'}}\n"
    )
}

/// Waits until an event of the pod says that its image could not be pulled, and returns why.
fn refusal(kubectl: &Kubectl<'_>, name: &str) -> String {
    let waiting = eventually("the pull fails", || {
        let reason = kubectl.field(&format!("pod/{name}"), ".status.containerStatuses[0].state.waiting.reason");
        if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff") { Ok(reason) } else { Err(reason) }
    });
    let selector = format!("involvedObject.name={name},reason=Failed");
    eventually(&waiting, || {
        let said = kubectl.ok(&["get", "events", "--field-selector", &selector, "-o", "jsonpath={.items[*].message}"]);
        if said.contains("Failed to pull image") { Ok(said) } else { Err(said) }
    })
}

fn pulled_by_pods(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let hello = corten_testkit::hello_image().unwrap();
    let broken = Image::new("x").layer(Layer::new().file("unique", 0o644, &[7; 5000])).compression(Compression::None);
    let registry = serve(cluster, &[("test/hello", "1", &hello), ("test/broken", "1", &broken)], None);
    registry.corrupt(&broken).unwrap();

    kubectl.ok_with(&["apply", "-f", "-"], &pod("whole", &registry.reference("test/hello:1"), None));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/whole", "--timeout=60s"]);
    let id = kubectl.field("pod/whole", ".status.containerStatuses[0].imageID");
    assert_eq!(id, format!("{}@{}", registry.reference("test/hello"), hello.blobs().unwrap().1));

    kubectl.ok_with(&["apply", "-f", "-"], &pod("broken", &registry.reference("test/broken:1"), None));
    let said = refusal(&kubectl, "broken");
    assert!(said.to_lowercase().contains("digest"), "{said}");
    let wrong = registry.reference(&format!("test/hello@sha256:{:064}", 0));
    kubectl.ok_with(&["apply", "-f", "-"], &pod("wrong", &wrong, None));
    let said = refusal(&kubectl, "wrong");
    assert!(said.contains("not found"), "{said}");
}

fn pull_secrets_open_a_guarded_one(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let hello = corten_testkit::hello_image().unwrap();
    let registry = serve(cluster, &[("private/hello", "1", &hello)], Some("secret-word"));
    let image = registry.reference("private/hello:1");
    let server = registry.reference("");
    for (name, password) in [("right", "secret-word"), ("wrong", "wrong-word")] {
        let (user, password) = (format!("--docker-username={USER}"), format!("--docker-password={password}"));
        let server = format!("--docker-server={}", server.trim_end_matches('/'));
        kubectl.ok(&["create", "secret", "docker-registry", name, &user, &password, &server]);
    }
    for (name, secret) in [("without", None), ("refused", Some("wrong"))] {
        kubectl.ok_with(&["apply", "-f", "-"], &pod(name, &image, secret));
        let said = refusal(&kubectl, name);
        assert!(said.contains("authorization") && !said.contains("wrong-word"), "{said}");
    }
    kubectl.ok_with(&["apply", "-f", "-"], &pod("allowed", &image, Some("right")));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/allowed", "--timeout=60s"]);
    // The secret of the service account serves its pods.
    kubectl.ok(&["patch", "serviceaccount/default", "-p", r#"{"imagePullSecrets":[{"name":"right"}]}"#]);
    kubectl.ok_with(
        &["apply", "-f", "-"],
        &pod("by-account", &image, None)
            .replace("spec:\n", "spec:\n  # Always: the image is here by now.\n")
            .replace("'}", "', imagePullPolicy: Always}"),
    );
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/by-account", "--timeout=60s"]);
    assert!(!cluster.log_text().contains("secret-word"), "a password is in the log");
}

/// TLS by an authority of one's own, and bearer tokens that a server elsewhere gives to whom it knows.
fn tokens_open_a_secured_one(cluster: &Cluster, namespace: &str) {
    let kubectl = Kubectl::new(cluster, namespace);
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let image = corten_testkit::hello_image().unwrap().compression(Compression::Zstd);
    let authority = Authority::new(cluster.scratch());
    let tokens = TokenServer::start(cluster, &authority, free(), "token-word");
    let auth = format!(
        "auth:\n  token: {{realm: 'http://127.0.0.1:{}/token', service: {SERVICE}, issuer: corten-test, rootcertbundle: {}}}\n",
        tokens.port,
        authority.certificate().display(),
    );
    let (port, files) = (free(), authority.server());
    let command = |program: &str| cluster.command(program);
    let registry = Registry::start_secured(command, port, &[("team/app", "1", &image)], (&files.0, &files.1), &auth);
    let registry = registry.unwrap_or_else(|err| panic!("{err:#}"));
    let reference = registry.reference("team/app:1");
    let host = reference.split('/').next().unwrap();
    for (name, password) in [("right", "token-word"), ("wrong", "other-word")] {
        let [server, user, password] =
            [format!("--docker-server={host}"), format!("--docker-username={USER}"), format!("--docker-password={password}")];
        kubectl.ok(&["create", "secret", "docker-registry", name, &user, &password, &server]);
    }
    // The loopback is spoken to without TLS until somebody says who vouches for it.
    kubectl.ok_with(&["apply", "-f", "-"], &pod("unsecured", &reference, Some("right")));
    refusal(&kubectl, "unsecured");
    let trusted = cluster.data().join("certs.d").join(host).join("ca.crt");
    let made = trusted.parent().unwrap().to_str().unwrap();
    cluster.succeed("mkdir", &["-p", made]).unwrap();
    cluster.succeed("cp", &[authority.certificate().to_str().unwrap(), trusted.to_str().unwrap()]).unwrap();
    for (name, secret) in [("anonymous", None), ("refused", Some("wrong"))] {
        kubectl.ok_with(&["apply", "-f", "-"], &pod(name, &reference, secret));
        let said = refusal(&kubectl, name);
        assert!(said.contains("authorization") && !said.contains("other-word"), "{said}");
    }
    kubectl.ok_with(&["apply", "-f", "-"], &pod("allowed", &reference, Some("right")));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/allowed", "--timeout=60s"]);
    let said = kubectl.ok(&[
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=allowed,reason=Pulled",
        "-o",
        "jsonpath={.items[*].message}",
    ]);
    assert!(said.starts_with(&format!("Successfully pulled image \"{reference}\" in ")), "{said}");
    assert!(said.contains(" including waiting). Image size: ") && said.ends_with(" bytes."), "{said}");
    assert!(!cluster.log_text().contains("token-word"), "a password is in the log");
}
