//! Registry credentials from `imagePullSecrets`: which of them fit an image, by upstream's keyring rules.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use corten_runtime::RegistryAuth;

const HUB: &str = "index.docker.io";

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

/// The credentials that fit `image`, the most specific first.
pub fn matching<'a>(image: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<RegistryAuth> {
    let image = qualified(image);
    let mut fitting: Vec<(String, RegistryAuth)> = Vec::new();
    for secret in secrets {
        for (registry, entry) in entries(secret) {
            let key = registry_key(&registry);
            if fits(&key, &image)
                && let Some(auth) = entry.auth()
            {
                fitting.push((key, auth));
            }
        }
    }
    // Longer keys are more specific; secrets of one key keep their order.
    fitting.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    fitting.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
    let Some(data) = &secret.data else { return BTreeMap::new() };
    // What cannot be read is no credential; the pull then says that it was refused.
    if let Some(json) = data.get(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(&json.0).map(|config| config.auths).unwrap_or_default();
    }
    data.get(".dockercfg").and_then(|json| serde_json::from_slice(&json.0).ok()).unwrap_or_default()
}

impl Entry {
    fn auth(self) -> Option<RegistryAuth> {
        if !self.registry_token.is_empty() {
            return Some(RegistryAuth { registry_token: self.registry_token, ..RegistryAuth::default() });
        }
        if !self.username.is_empty() {
            return Some(RegistryAuth { username: self.username, password: self.password, ..RegistryAuth::default() });
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
        let (username, password) = decoded.split_once(':')?;
        let password = password.trim_end_matches('\0').to_owned();
        Some(RegistryAuth { username: username.to_owned(), password, ..RegistryAuth::default() })
    }
}

/// An image's name with its registry, without tag and digest.
fn qualified(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some(("docker.io", rest)) => format!("{HUB}/{rest}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("{HUB}/{name}"),
        None => format!("{HUB}/library/{name}"),
    }
}

fn registry_key(registry: &str) -> String {
    let rest = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
    let path = if path == "v1" || path == "v2" { "" } else { path.trim_end_matches('/') };
    let host = if host == "docker.io" { HUB } else { host };
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// Whether a key such as `*.example.org/team` covers an image.
fn fits(key: &str, image: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    let (key_name, key_port) = key_host.rsplit_once(':').unwrap_or((key_host, ""));
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let (patterns, labels): (Vec<_>, Vec<_>) = (key_name.split('.').collect(), name.split('.').collect());
    key_port == port
        && patterns.len() == labels.len()
        && patterns.iter().zip(&labels).all(|(pattern, label)| glob(pattern, label))
        && path.starts_with(key_path)
}

/// `*` stands for any text within one label.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(after, &rest[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn credentials_fit_by_registry_and_path() {
        check("reg.example:5000",         "reg.example:5000/a/b:1",    true);
        check("reg.example",              "reg.example:5000/a",        false);
        check("https://reg.example/v2/",  "reg.example/a@sha256:0",    true);
        check("reg.example/team",         "reg.example/team/a",        true);
        check("reg.example/team",         "reg.example/other/a",       false);
        check("*.example",                "reg.example/a",             true);
        check("*.example",                "a.reg.example/a",           false);
        check("https://index.docker.io/v1/", "busybox",                true);
        check("docker.io",                "library/busybox:1",         true);
        check("docker.io",                "reg.example/busybox",       false);
        #[track_caller]
        fn check(key: &str, image: &str, expected: bool) {
            assert_eq!(fits(&registry_key(key), &qualified(image)), expected);
        }
    }

    #[test]
    fn the_most_specific_comes_first() {
        let config = r#"{"auths": {"reg.example": {"auth": "dXNlcjpwYXNzOndvcmQ="}, "reg.example/team": {"username": "t", "password": "p"}}}"#;
        let secret = serde_json::json!({"data": {".dockerconfigjson": STANDARD.encode(config)}});
        let secret: Secret = serde_json::from_value(secret).expect("valid");
        let auths = matching("reg.example/team/app:1", [&secret]);
        assert_eq!(
            auths.iter().map(|auth| (auth.username.as_str(), auth.password.as_str())).collect::<Vec<_>>(),
            [("t", "p"), ("user", "pass:word")]
        );
    }
}
