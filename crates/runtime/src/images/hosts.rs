//! How registries are reached: mirrors, certificate authorities of one's own, credentials of the node. Two places are read,
//! at every pull, so that a change needs no restart: `registries.yaml`, in the form that k3s and RKE2 have it, and
//! `certs.d/HOST:PORT/*.crt`, as Docker and containerd have them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

use crate::cri::RegistryAuth;

/// Where the configuration of registries is.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Hosts (with port) spoken to over plain HTTP, besides those on the loopback.
    pub insecure: Vec<String>,
    /// Directory of `registries.yaml` and `certs.d`; neither has to be there.
    pub directory: Option<PathBuf>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A file that is there cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// One place to pull from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Name with port.
    pub host: String,
    /// Without TLS.
    pub plain: bool,
    /// Certificates are not checked.
    pub unchecked: bool,
    /// Authorities trusted besides the system's, PEM.
    pub authorities: Vec<Vec<u8>>,
    /// The node's own credentials.
    pub auth: Option<RegistryAuth>,
    /// It stands for another registry: that one's credentials are none of its business.
    pub mirror: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mirror {
    endpoint: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HostConfig {
    auth: Option<Auth>,
    tls: Tls,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Auth {
    username: String,
    password: String,
    token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tls {
    ca_file: Option<PathBuf>,
    insecure_skip_verify: bool,
}

impl Registries {
    /// The places to ask for images of `registry`, in order; the registry itself comes last.
    ///
    /// # Errors
    /// When a file cannot be read or is broken.
    pub fn hosts(&self, registry: &str) -> Result<Vec<Host>, HostsError> {
        let file = self.file()?;
        let path = self.yaml();
        let mut hosts = Vec::new();
        let mirrors = file.mirrors.get(registry).or_else(|| file.mirrors.get("*"));
        for endpoint in mirrors.into_iter().flat_map(|mirror| &mirror.endpoint) {
            let (plain, host) = endpoint_of(endpoint).ok_or_else(|| HostsError::Broken {
                path: path.clone(),
                why: format!("{endpoint:?} is no endpoint: it has to be http:// or https:// with a host"),
            })?;
            if host != registry {
                hosts.push(Host { plain, mirror: true, ..self.host(&file, &host)? });
            }
        }
        // The registry of Docker Hub has another name than its images.
        let name = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let own = self.host(&file, registry)?;
        let secured = own.unchecked || !own.authorities.is_empty();
        let plain = self.insecure.iter().any(|host| host == registry) || (is_loopback(registry) && !secured);
        hosts.push(Host { host: name.to_owned(), plain, ..own });
        Ok(hosts)
    }

    fn host(&self, file: &File, name: &str) -> Result<Host, HostsError> {
        let mut host = Host { host: name.to_owned(), ..Host::default() };
        if let Some(config) = file.configs.get(name) {
            host.unchecked = config.tls.insecure_skip_verify;
            if let Some(path) = &config.tls.ca_file {
                host.authorities.push(read(path)?);
            }
            host.auth = config.auth.as_ref().map(|auth| RegistryAuth {
                username: auth.username.clone(),
                password: auth.password.clone(),
                registry_token: auth.token.clone(),
            });
        }
        let Some(directory) = &self.directory else { return Ok(host) };
        let certificates = fs::read_dir(directory.join("certs.d").join(name)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = certificates.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
        paths.sort();
        for path in paths {
            host.authorities.push(read(&path)?);
        }
        Ok(host)
    }

    fn yaml(&self) -> PathBuf {
        self.directory.as_deref().unwrap_or(Path::new("")).join("registries.yaml")
    }

    fn file(&self) -> Result<File, HostsError> {
        if self.directory.is_none() {
            return Ok(File::default());
        }
        let path = self.yaml();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
            Err(source) => return Err(HostsError::Read { path, source }),
        };
        // An empty document is no fault.
        let file: Option<File> =
            serde_yaml_ng::from_str(&text).map_err(|err| HostsError::Broken { path, why: err.to_string() })?;
        Ok(file.unwrap_or_default())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, HostsError> {
    fs::read(path).map_err(|source| HostsError::Read { path: path.to_owned(), source })
}

/// Whether plain, and the host, of `https://host:port` (with or without a slash or `/v2` behind).
fn endpoint_of(endpoint: &str) -> Option<(bool, String)> {
    let (plain, rest) = match endpoint.strip_prefix("https://") {
        Some(rest) => (false, rest),
        None => (true, endpoint.strip_prefix("http://")?),
    };
    let host = rest.trim_end_matches('/').trim_end_matches("/v2");
    (!host.is_empty() && !host.contains('/')).then(|| (plain, host.to_owned()))
}

/// Registries on this machine speak plain HTTP, as with every other runtime.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => registry,
    };
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_on_this_machine_are_plain() {
        for (registry, plain) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.9.9.9:80", true),
            ("[::1]:5000", true),
            ("docker.io", false),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(registry), plain, "{registry}");
            assert_eq!(
                Registries::default().hosts(registry).expect("nothing to read").last().map(|host| host.plain),
                Some(plain)
            );
        }
    }

    #[test]
    fn mirrors_authorities_and_credentials_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let registries = Registries { directory: Some(directory.path().to_owned()), ..Registries::default() };
        let names = |registry: &str| {
            let hosts = registries.hosts(registry).unwrap();
            hosts
                .iter()
                .map(|host| format!("{}{}", if host.plain { "http://" } else { "https://" }, host.host))
                .collect::<Vec<_>>()
        };
        assert_eq!(names("docker.io"), ["https://registry-1.docker.io"]);
        write("certs.d/127.0.0.1:5001/ca.crt", "PEM");
        write("certs.d/127.0.0.1:5001/client.key", "no certificate");
        assert_eq!(names("127.0.0.1:5001"), ["https://127.0.0.1:5001"]); // an authority makes even the loopback secure
        assert_eq!(registries.hosts("127.0.0.1:5001").unwrap()[0].authorities, [b"PEM".to_vec()]);
        let ca = directory.path().join("own.pem");
        fs::write(&ca, "OWN").unwrap();
        write(
            "registries.yaml",
            &format!(
                "mirrors:\n  docker.io: {{endpoint: ['https://mirror:5000/v2', 'http://other/']}}\nconfigs:\n  'mirror:5000':\n    \
                 auth: {{username: u, password: p}}\n    tls: {{ca_file: {}}}\n  reg: {{tls: {{insecure_skip_verify: true}}}}\n",
                ca.display()
            ),
        );
        assert_eq!(names("docker.io"), ["https://mirror:5000", "http://other", "https://registry-1.docker.io"]);
        let mirror = registries.hosts("docker.io").unwrap().remove(0);
        assert_eq!((mirror.mirror, mirror.authorities), (true, vec![b"OWN".to_vec()]));
        assert_eq!(mirror.auth.map(|auth| auth.username).as_deref(), Some("u"));
        assert!(registries.hosts("reg").unwrap()[0].unchecked);
        write("registries.yaml", "mirrors: {docker.io: {endpoint: [ftp://x]}}");
        assert!(registries.hosts("docker.io").unwrap_err().to_string().contains("is no endpoint"));
        write("registries.yaml", "mirrors: {docker.io: {endpoints: []}}");
        assert!(registries.hosts("docker.io").unwrap_err().to_string().contains("unknown field"));
        write("registries.yaml", "");
        assert_eq!(names("reg"), ["https://reg"]);
    }
}
