//! A certificate authority and a token server for the tests of registries, as a company would have them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corten_testkit::registry::USER;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nix::sched::{CloneFlags, setns};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

use crate::cluster::Cluster;

/// The name of the registry to which tokens are given.
pub const SERVICE: &str = "test-registry";

/// An authority, with the files of a server that it vouches for.
pub struct Authority {
    directory: PathBuf,
    /// Signs tokens.
    signing: Arc<(KeyPair, Vec<u8>)>,
}

impl Authority {
    /// Makes it in `directory`.
    pub fn new(directory: &Path) -> Self {
        let directory = directory.join("authority");
        fs::create_dir_all(&directory).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let issue = |names: &[&str]| {
            let key = KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            let certificate = params.signed_by(&key, &issuer).unwrap();
            (key, certificate)
        };
        let (key, certificate) = issue(&["127.0.0.1"]);
        fs::write(directory.join("server.pem"), certificate.pem()).unwrap();
        fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
        let (key, certificate) = issue(&["tokens"]);
        Self { directory, signing: Arc::new((key, certificate.der().to_vec())) }
    }

    /// Its own certificate, a PEM file.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Certificate and key of the server at 127.0.0.1.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("server.pem"), self.directory.join("server.key"))
    }
}

/// Gives tokens to [`USER`], on the cluster's loopback, until the test's process ends.
pub struct TokenServer {
    pub port: u16,
}

impl TokenServer {
    pub fn start(cluster: &Cluster, authority: &Authority, port: u16, password: &str) -> Self {
        let (network, signing) = (fs::File::open(cluster.network()).unwrap(), authority.signing.clone());
        let wanted = format!("Basic {}", STANDARD.encode(format!("{USER}:{password}")));
        let (listening, listens) = mpsc::channel();
        // A namespace belongs to a thread: this one's is the cluster's from now on.
        std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            listening.send(()).unwrap();
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &wanted, &signing);
            }
        });
        listens.recv().expect("the token server listens");
        Self { port }
    }
}

fn answer(mut stream: TcpStream, wanted: &str, signing: &(KeyPair, Vec<u8>)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let target = lines.next().unwrap_or_default();
    let target = target.split(' ').nth(1).unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
    let known = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .any(|(name, value)| name == "authorization" && value == wanted);
    let asked = |name: &str| {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default().to_owned()
    };
    let (status, body) = match known && asked("service") == SERVICE {
        true => ("200 OK", json!({ "token": token(&asked("scope"), signing), "expires_in": 300 }).to_string()),
        false => ("401 Unauthorized", json!({ "details": "incorrect username or password" }).to_string()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// A token for `repository:name:action`, as the registry's specification has it.
fn token(scope: &str, (key, certificate): &(KeyPair, Vec<u8>)) -> String {
    let mut parts = scope.splitn(3, ':');
    let (kind, name, actions) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "corten-test", "sub": USER, "aud": SERVICE, "iat": now, "nbf": now - 10, "exp": now + 300, "jti": now.to_string(),
        "access": [{ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }],
    });
    let header = Header { x5c: Some(vec![STANDARD.encode(certificate)]), ..Header::new(Algorithm::ES256) };
    let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}
