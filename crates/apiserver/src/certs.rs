//! The CA and all certificates and keys, made at first start and renewed live before they expire.
//!
//! Everything is under `cert_dir`, with kubeadm's file names, keys with mode 0600: `ca`, `front-proxy-ca`, `apiserver`,
//! `apiserver-kubelet-client`, `front-proxy-client` (`.crt` and `.key`), `sa.key`, `sa.pub`. Kubeconfigs that were asked for
//! are written again with a fresh certificate when theirs comes to its end. One timer waits for the first of these moments.

mod files;
mod kubeconfig;
mod pki;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use corten_task::Tasks;

use crate::config::Config;
use crate::user::MASTERS;

pub use pki::Identity;
use pki::{Authority, Subject};

/// Certificates and keys of this server. Reading one gives what is valid now.
pub struct Certificates {
    directory: PathBuf,
    ca: Authority,
    front_proxy_ca: Authority,
    /// Names and addresses in the serving certificate.
    names: Vec<String>,
    /// A serving certificate given by the configuration is not ours to renew.
    own_serving: bool,
    serving: ArcSwap<CertifiedKey>,
    kubelet_client: ArcSwap<Identity>,
    front_proxy_client: ArcSwap<Identity>,
    /// Client certificates are checked against these besides the cluster CA.
    client_roots: Arc<RootCertStore>,
    client_ca_pem: String,
    front_proxy_roots: Arc<RootCertStore>,
    front_proxy_ca_pem: String,
    service_account_key: String,
    kubeconfigs: Mutex<BTreeMap<PathBuf, Kept>>,
    /// Serving certificates of other components, by file name.
    servers: Mutex<BTreeMap<String, Subject>>,
    changed: Notify,
}

/// A kubeconfig that is kept fresh.
struct Kept {
    server: String,
    subject: Subject,
    renew_at: SystemTime,
}

/// Why there are no usable certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A key is of no use to TLS.
    #[error("load a key")]
    Key(#[from] rustls::Error),
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no usable {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
}

impl Certificates {
    /// Reads or makes everything under `cert_dir`, and keeps it fresh.
    ///
    /// # Errors
    /// When a file cannot be read, written or understood. Nothing that exists is overwritten then.
    pub fn open(config: &Config, tasks: &Tasks) -> Result<Arc<Self>, CertsError> {
        let directory = config.cert_dir.clone();
        files::make_directory(&directory)?;
        let ca = Authority::open(&directory, "ca", "corten-ca")?;
        let front_proxy_ca = Authority::open(&directory, "front-proxy-ca", "corten-front-proxy-ca")?;
        let names = serving_names(config);
        let serving = match (&config.tls_cert_file, &config.tls_private_key_file) {
            (Some(cert), Some(key)) => pki::certified(&files::read(cert)?, &files::read(key)?, cert)?,
            _ => serving_of(&ca, &directory, &names)?.certified(&directory.join("apiserver.crt"))?,
        };
        let kubelet_client = match (&config.kubelet_client_certificate, &config.kubelet_client_key) {
            (Some(cert), Some(key)) => Identity { certificate: files::read(cert)?, key: files::read(key)? },
            _ => ca.keep(&directory, "apiserver-kubelet-client", &Subject::client(KUBELET_CLIENT, MASTERS))?,
        };
        let front_proxy_client =
            front_proxy_ca.keep(&directory, "front-proxy-client", &Subject::client("front-proxy-client", ""))?;
        let (client_roots, client_ca_pem) = roots(&ca, config.client_ca_file.as_deref())?;
        let (front_proxy_roots, front_proxy_ca_pem) = roots(&front_proxy_ca, config.requestheader_client_ca_file.as_deref())?;
        let service_account_key = match &config.service_account_signing_key_file {
            Some(path) => files::read(path)?,
            None => pki::service_account_key(&directory)?,
        };
        let certs = Arc::new(Self {
            directory,
            ca,
            front_proxy_ca,
            names,
            own_serving: config.tls_cert_file.is_none(),
            serving: ArcSwap::from(serving),
            kubelet_client: ArcSwap::from_pointee(kubelet_client),
            front_proxy_client: ArcSwap::from_pointee(front_proxy_client),
            client_roots,
            client_ca_pem,
            front_proxy_roots,
            front_proxy_ca_pem,
            service_account_key,
            kubeconfigs: Mutex::default(),
            servers: Mutex::default(),
            changed: Notify::new(),
        });
        tasks.spawn("certificate-renewal", renew(certs.clone()));
        Ok(certs)
    }

    /// The serving certificate and key of this moment.
    #[must_use]
    pub fn serving(&self) -> Arc<CertifiedKey> {
        self.serving.load_full()
    }

    /// The certificate of the cluster CA (PEM): what clients verify this server with.
    #[must_use]
    pub fn ca(&self) -> &str {
        self.ca.certificate()
    }

    /// The CAs of client certificates (PEM), for `extension-apiserver-authentication`.
    #[must_use]
    pub fn client_ca(&self) -> &str {
        &self.client_ca_pem
    }

    /// The CA of the front proxy (PEM), for `extension-apiserver-authentication`.
    #[must_use]
    pub fn front_proxy_ca(&self) -> &str {
        &self.front_proxy_ca_pem
    }

    /// What client certificates are checked against.
    #[must_use]
    pub fn client_roots(&self) -> &Arc<RootCertStore> {
        &self.client_roots
    }

    /// What the front proxy's certificate is checked against.
    #[must_use]
    pub fn front_proxy_roots(&self) -> &Arc<RootCertStore> {
        &self.front_proxy_roots
    }

    /// The certificate this server shows to kubelets.
    #[must_use]
    pub fn kubelet_client(&self) -> Arc<Identity> {
        self.kubelet_client.load_full()
    }

    /// The certificate this server shows to aggregated API servers.
    #[must_use]
    pub fn front_proxy_client(&self) -> Arc<Identity> {
        self.front_proxy_client.load_full()
    }

    /// The private key (PEM) that signs service account tokens.
    #[must_use]
    pub fn service_account_key(&self) -> &str {
        &self.service_account_key
    }

    /// The directory that all of it is in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A client certificate of the cluster CA for a user in a group (empty for none), valid for a year.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn client(&self, user: &str, group: &str) -> Result<Identity, CertsError> {
        self.ca.issue(&Subject::client(user, group))
    }

    /// A kubelet's client certificate: `system:node:NAME` in `system:nodes`.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn node_client(&self, node: &str) -> Result<Identity, CertsError> {
        self.client(&format!("system:node:{node}"), "system:nodes")
    }

    /// Keeps a serving certificate of the cluster CA, such as a kubelet's, for these names and addresses: `NAME.crt` and
    /// `NAME.key` in the directory, whose paths are returned, are replaced before it expires.
    ///
    /// # Errors
    /// When the key cannot be made or a file not be written.
    pub fn keep_server(&self, name: &str, user: &str, group: &str, names: Vec<String>) -> Result<(PathBuf, PathBuf), CertsError> {
        let subject = Subject { names, ..Subject::client(user, group) };
        self.ca.keep(&self.directory, name, &subject)?;
        self.servers.lock().insert(name.to_owned(), subject);
        self.changed.notify_one();
        Ok((self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key"))))
    }

    /// Writes a kubeconfig for a user in a group (empty for none) to `path` (mode 0600) and keeps its certificate fresh as long as this
    /// server runs. A file that is there and good for this server is left alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_kubeconfig(&self, path: &Path, server: &str, user: &str, group: &str) -> Result<(), CertsError> {
        let subject = Subject::client(user, group);
        let renew_at = match kubeconfig::renewal(path, server, &subject, self.ca()) {
            Some(renew_at) if renew_at > SystemTime::now() => renew_at,
            _ => self.write_kubeconfig(path, server, &subject)?,
        };
        let kept = Kept { server: server.to_owned(), subject, renew_at };
        self.kubeconfigs.lock().insert(path.to_owned(), kept);
        self.changed.notify_one();
        Ok(())
    }

    fn write_kubeconfig(&self, path: &Path, server: &str, subject: &Subject) -> Result<SystemTime, CertsError> {
        let identity = self.ca.issue(subject)?;
        files::write_private(path, &kubeconfig::text(server, self.ca(), &subject.user, &identity))?;
        identity.renewal(path)
    }

    /// Renews what is due; returns when the next thing is.
    fn renew_due(&self, now: SystemTime) -> Result<SystemTime, CertsError> {
        let mut next = now + Duration::from_secs(30 * 24 * 3600);
        if self.own_serving {
            let identity = serving_of(&self.ca, &self.directory, &self.names)?;
            let path = self.directory.join("apiserver.crt");
            if self.serving.load().cert.first().map(AsRef::as_ref) != identity.der(&path)?.as_deref() {
                self.serving.store(identity.certified(&path)?);
            }
            next = next.min(identity.renewal(&path)?);
        }
        // `keep` renews what has come to the last third of its time.
        let kubelet = Subject::client(KUBELET_CLIENT, MASTERS);
        for (authority, name, subject, current) in [
            (&self.ca, "apiserver-kubelet-client", kubelet, &self.kubelet_client),
            (&self.front_proxy_ca, "front-proxy-client", Subject::client("front-proxy-client", ""), &self.front_proxy_client),
        ] {
            if !self.directory.join(format!("{name}.crt")).exists() {
                continue; // given by the configuration
            }
            let identity = authority.keep(&self.directory, name, &subject)?;
            next = next.min(identity.renewal(&self.directory.join(name))?);
            current.store(Arc::new(identity));
        }
        for (name, subject) in self.servers.lock().iter() {
            next = next.min(self.ca.keep(&self.directory, name, subject)?.renewal(&self.directory.join(name))?);
        }
        let mut kubeconfigs = self.kubeconfigs.lock();
        for (path, kept) in kubeconfigs.iter_mut() {
            if kept.renew_at <= now {
                kept.renew_at = self.write_kubeconfig(path, &kept.server, &kept.subject)?;
            }
            next = next.min(kept.renew_at);
        }
        Ok(next)
    }
}

/// Upstream's name for the API server as kubelets see it.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
/// How long to wait after a failed renewal; certificates have a third of their life left then.
const RETRY: Duration = Duration::from_secs(3600);

async fn renew(certs: Arc<Certificates>) {
    loop {
        let now = SystemTime::now();
        let next = certs.renew_due(now).unwrap_or_else(|err| {
            let source = std::error::Error::source(&err).map(ToString::to_string);
            tracing::error!(error = %err, source, "renewing certificates");
            now + RETRY
        });
        let wait = next.duration_since(now).unwrap_or_default().max(Duration::from_secs(1));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = certs.changed.notified() => {}
        }
    }
}

fn serving_of(ca: &Authority, directory: &Path, names: &[String]) -> Result<Identity, CertsError> {
    ca.keep(directory, "apiserver", &Subject { names: names.to_vec(), ..Subject::client("kube-apiserver", "") })
}

fn roots(own: &Authority, other: Option<&Path>) -> Result<(Arc<RootCertStore>, String), CertsError> {
    let mut pem = own.certificate().to_owned();
    if let Some(path) = other {
        pem.push_str(&files::read(path)?);
    }
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let unusable = || CertsError::Content { path: other.unwrap_or(Path::new("ca.crt")).to_owned(), what: "CA certificate" };
        store.add(cert.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    Ok((Arc::new(store), pem))
}

/// The names and addresses under which clients reach this server (kubeadm's list).
fn serving_names(config: &Config) -> Vec<String> {
    let domain = cluster_domain(config);
    let mut names: Vec<String> =
        ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.extend(config.service_cluster_ip_range.iter().filter_map(|range| range.hosts().next()).map(|ip| ip.to_string()));
    names.push(advertise_address(config).to_string());
    if !config.bind_address.is_unspecified() {
        names.push(config.bind_address.to_string());
    }
    names.extend(host_name());
    names.extend(config.tls_sans.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// The cluster's DNS domain, as the issuer of service account tokens has it.
#[must_use]
pub fn cluster_domain(config: &Config) -> &str {
    let issuer = config.service_account_issuer.first().map_or("", String::as_str);
    let domain = issuer.strip_prefix("https://kubernetes.default.svc.").unwrap_or("cluster.local");
    domain.split(['/', ':']).next().filter(|domain| !domain.is_empty()).unwrap_or("cluster.local")
}

/// The address under which members of the cluster reach this server: as configured, or that of the default route.
#[must_use]
pub fn advertise_address(config: &Config) -> IpAddr {
    let routed = || -> Option<IpAddr> {
        // Connecting a datagram socket sends nothing; it asks the routing table. The address is TEST-NET-1 (RFC 5737).
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    config
        .advertise_address
        .or_else(|| Some(config.bind_address).filter(|address| !address.is_unspecified()))
        .or_else(|| routed().filter(|address| !address.is_unspecified()))
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    // A name that cannot be in a certificate is not reachable by TLS either.
    let name = name.trim().to_ascii_lowercase();
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    fits.then_some(name)
}

/// A certificate chain and its key from files of their own.
///
/// # Errors
/// When a file cannot be read, holds something else, or the key is another certificate's.
pub(crate) fn certified(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, CertsError> {
    pki::certified(&files::read(certificate)?, &files::read(key)?, certificate)
}

#[cfg(test)]
mod tests;
