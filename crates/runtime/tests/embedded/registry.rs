//! The registry protocol where a real registry would not show it: bearer tokens with service and scope, an index over platforms, a
//! layer elsewhere, and who gets to see a credential.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use corten_runtime::images::hosts::Registries;
use corten_runtime::images::{Store, registry};
use corten_runtime::{RegistryAuth, RuntimeError};
use corten_testkit::image::{Compression, Image, Layer};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A request: port's name, path with query, and the `Authorization` it came with.
type Asked = (&'static str, String, Option<String>);

/// A server of fixed answers that remembers what it was asked.
struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    port: u16,
}

/// Status, further headers, body.
type Reply = (u16, Vec<(String, String)>, Vec<u8>);

/// Serves `answer` on a free port of the loopback, for as long as the test runs.
fn serve(
    name: &'static str,
    asked: &Arc<Mutex<Vec<Asked>>>,
    answer: impl Fn(&str, Option<&str>) -> Reply + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            exchange(name, stream, &asked, &answer);
        }
    });
    port
}

fn exchange(name: &'static str, mut stream: TcpStream, asked: &Mutex<Vec<Asked>>, answer: &impl Fn(&str, Option<&str>) -> Reply) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let authorization = headers.get("authorization").cloned();
    asked.lock().unwrap().push((name, path.clone(), authorization.clone()));
    let (status, headers, body) = answer(&path, authorization.as_deref());
    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&body));
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A registry of `team/app:1` that wants a token, whose layers are on another host. `private` lets nobody in without a password.
fn registry(image: &Image, private: bool) -> Server {
    let (mut blobs, manifest) = image.blobs().unwrap();
    let other = json!({"digest": digest(b"other"), "size": 5, "mediaType": "application/vnd.oci.image.manifest.v1+json"});
    let entry = |os: &str, architecture: &str, descriptor: serde_json::Value| {
        let mut entry = descriptor;
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entry
    };
    let own =
        json!({"digest": manifest, "size": blobs[&manifest].len(), "mediaType": "application/vnd.oci.image.manifest.v1+json"});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        entry("windows", "amd64", other.clone()), entry("linux", "s390x", other),
        entry("linux", corten_runtime::images::manifest::architecture(), own),
    ]});
    let index = serde_json::to_vec(&index).unwrap();
    blobs.insert("index".to_owned(), index);
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let stored = blobs.clone();
    let elsewhere = serve("elsewhere", &asked, move |path, _| match stored.get(path.trim_start_matches('/')) {
        Some(bytes) => (200, Vec::new(), bytes.clone()),
        None => (404, Vec::new(), Vec::new()),
    });
    let tokens = serve("tokens", &asked, move |_, authorization| match authorization {
        Some("Basic dXNlcjpwYXNz") => (200, Vec::new(), br#"{"token": "good"}"#.to_vec()), // user:pass
        None if !private => (200, Vec::new(), br#"{"access_token": "good"}"#.to_vec()),
        _ => (401, Vec::new(), b"no".to_vec()),
    });
    let challenge =
        format!(r#"Bearer realm="http://127.0.0.1:{tokens}/token",service="the registry",scope="repository:team/app:pull""#);
    let port = serve("registry", &asked, move |path, authorization| {
        if authorization != Some("Bearer good") {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.to_vec();
            return (401, vec![("WWW-Authenticate".to_owned(), challenge.clone())], body);
        }
        let kind = |kind: &str| vec![("Content-Type".to_owned(), kind.to_owned())];
        if let Some(reference) = path.strip_prefix("/v2/team/app/manifests/") {
            let (key, kind) = match reference {
                "1" => ("index", kind("application/vnd.oci.image.index.v1+json")),
                digest => (digest, kind("application/vnd.oci.image.manifest.v1+json")),
            };
            return blobs.get(key).map_or((404, Vec::new(), Vec::new()), |bytes| (200, kind, bytes.clone()));
        }
        match path.strip_prefix("/v2/team/app/blobs/") {
            Some(digest) => (307, vec![("Location".to_owned(), format!("http://localhost:{elsewhere}/{digest}"))], Vec::new()),
            None => (200, Vec::new(), Vec::new()),
        }
    });
    Server { asked, port }
}

struct Place {
    _directory: tempfile::TempDir,
    root: PathBuf,
    store: Arc<Store>,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let store = Arc::new(Store::open(&root.join("images")).unwrap());
    Place { _directory: directory, root, store }
}

fn image() -> Image {
    Image::new("x").layer(Layer::new().file("hello", 0o644, b"hello")).compression(Compression::Zstd)
}

fn user() -> RegistryAuth {
    RegistryAuth { username: "user".into(), password: "pass".into(), ..RegistryAuth::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_an_index_whose_layers_are_elsewhere() {
    let image = image();
    for (private, auth) in [(false, None), (true, Some(user()))] {
        let place = place();
        let server = registry(&image, private);
        let reference = format!("127.0.0.1:{}/team/app:1", server.port);
        let id = registry::pull(&place.store, &Registries::default(), &reference, auth.as_ref()).await.unwrap();
        assert_eq!(id, image.id().unwrap());
        let asked = server.asked.lock().unwrap();
        let of = |name: &'static str| asked.iter().filter(move |(server, ..)| *server == name);
        let (_, path, credentials) = of("tokens").next().expect("a token was asked for");
        assert!(path.contains("scope=repository%3Ateam%2Fapp%3Apull") && path.contains("service=the"), "{path}");
        assert_eq!(credentials.is_some(), private);
        // Neither the password nor the token goes anywhere but to whom it is for.
        assert!(of("registry").all(|(.., credentials)| credentials.as_ref().is_none_or(|found| found == "Bearer good")));
        assert!(of("elsewhere").count() >= 2, "configuration and layer");
        assert!(of("elsewhere").all(|(.., credentials)| credentials.is_none()), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_kept_to_and_a_refusal_is_told() {
    let (image, place) = (image(), place());
    let server = registry(&image, true);
    let manifest = image.blobs().unwrap().1;
    let pull = async |reference: &str, auth: Option<RegistryAuth>| {
        let reference = format!("127.0.0.1:{}/team/{reference}", server.port);
        registry::pull(&place.store, &Registries::default(), &reference, auth.as_ref()).await
    };
    assert_eq!(pull(&format!("app@{manifest}"), Some(user())).await.unwrap(), image.id().unwrap());
    assert_eq!(pull(&format!("app:ignored@{manifest}"), Some(user())).await.unwrap(), image.id().unwrap());
    let why = |outcome: Result<String, RuntimeError>| outcome.unwrap_err().to_string();
    let wrong = RegistryAuth { password: "secret-word".into(), ..user() };
    for said in [why(pull("app:1", None).await), why(pull("app:1", Some(wrong)).await)] {
        assert!(said.contains("authorization failed") && !said.contains("secret-word"), "{said}");
    }
    let absent = format!("app@sha256:{}", "0".repeat(64));
    assert!(why(pull(&absent, Some(user())).await).contains("not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_gets_its_own_credentials() {
    let (image, place) = (image(), place());
    let (server, origin) = (registry(&image, true), registry(&image, false));
    let own = format!("127.0.0.1:{}", origin.port);
    let yaml = format!(
        "mirrors:\n  '{own}': {{endpoint: ['http://127.0.0.1:1', 'http://127.0.0.1:{0}']}}\nconfigs:\n  '127.0.0.1:{0}': {{auth: {{username: user, password: pass}}}}\n",
        server.port
    );
    std::fs::write(place.root.join("registries.yaml"), yaml).unwrap();
    let registries = Registries { directory: Some(place.root.clone()), ..Registries::default() };
    let pods = RegistryAuth { username: "pod".into(), password: "pods-own".into(), ..RegistryAuth::default() };
    let reference = format!("{own}/team/app:1");
    registry::pull(&place.store, &registries, &reference, Some(&pods)).await.unwrap();
    assert!(origin.asked.lock().unwrap().is_empty(), "the second mirror had it");
    assert_eq!(place.store.find(&reference).expect("known by the name it was asked for").id, image.id().unwrap());
    let seen: Vec<String> = server.asked.lock().unwrap().iter().filter_map(|(.., credentials)| credentials.clone()).collect();
    assert!(seen.iter().all(|found| found == "Basic dXNlcjpwYXNz" || found == "Bearer good"), "{seen:?}");
}
