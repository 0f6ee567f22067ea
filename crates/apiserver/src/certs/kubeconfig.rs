//! Kubeconfig files: one cluster, one user with a client certificate, one context.

use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::pki::{Identity, Subject};

const CLUSTER: &str = "corten";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    clusters: Vec<Cluster>,
    users: Vec<User>,
    contexts: Vec<Context>,
    current_context: String,
}

#[derive(Serialize, Deserialize)]
struct Cluster {
    name: String,
    cluster: ClusterData,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterData {
    server: String,
    certificate_authority_data: String,
}

#[derive(Serialize, Deserialize)]
struct User {
    name: String,
    user: UserData,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserData {
    client_certificate_data: String,
    client_key_data: String,
}

#[derive(Serialize, Deserialize)]
struct Context {
    name: String,
    context: ContextData,
}

#[derive(Serialize, Deserialize)]
struct ContextData {
    cluster: String,
    user: String,
}

/// The file for a user of `server` (`https://host:port`).
pub(super) fn text(server: &str, ca: &str, user: &str, identity: &Identity) -> String {
    let context = format!("{user}@{CLUSTER}");
    let config = Kubeconfig {
        api_version: "v1".into(),
        kind: "Config".into(),
        clusters: vec![Cluster {
            name: CLUSTER.into(),
            cluster: ClusterData { server: server.into(), certificate_authority_data: STANDARD.encode(ca) },
        }],
        users: vec![User {
            name: user.into(),
            user: UserData {
                client_certificate_data: STANDARD.encode(&identity.certificate),
                client_key_data: STANDARD.encode(&identity.key),
            },
        }],
        contexts: vec![Context { name: context.clone(), context: ContextData { cluster: CLUSTER.into(), user: user.into() } }],
        current_context: context,
    };
    serde_yaml_ng::to_string(&config).expect("a tree of strings is YAML")
}

/// When the file's certificate is to be renewed; `None` when the file is absent or is not for this server, user and CA.
pub(super) fn renewal(path: &Path, server: &str, subject: &Subject, ca: &str) -> Option<SystemTime> {
    let config: Kubeconfig = serde_yaml_ng::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let ([cluster], [user]) = (config.clusters.as_slice(), config.users.as_slice()) else { return None };
    let decode = |data: &str| String::from_utf8(STANDARD.decode(data).ok()?).ok();
    let identity =
        Identity { certificate: decode(&user.user.client_certificate_data)?, key: decode(&user.user.client_key_data)? };
    let ours = cluster.cluster.server == server && decode(&cluster.cluster.certificate_authority_data)? == ca;
    (ours && identity.is_good(subject, ca, SystemTime::now())).then(|| identity.renewal(path).ok())?
}
