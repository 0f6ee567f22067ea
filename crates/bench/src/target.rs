//! The server under load: where it is, as whom it is spoken to, and what its processes cost.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::machine;
use crate::wire::Wire;

/// A server.
pub struct Target {
    host: String,
    port: u16,
    token: String,
    tls: Arc<ClientConfig>,
    pids: Vec<u32>,
}

impl Target {
    /// The server at `url` (`https://host:port`), whose certificate `ca` has signed; any will do without. `pids` are its processes,
    /// if it is on this machine.
    pub fn new(url: &str, token: &str, ca: Option<&Path>, pids: Vec<u32>) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("the URL {url}"))?;
        ensure!(uri.scheme_str() == Some("https"), "the URL {url} does not begin with https://");
        let host = uri.host().with_context(|| format!("the URL {url} has no host"))?.to_owned();
        let tls = match ca {
            Some(ca) => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
                builder.with_root_certificates(roots(ca)?).with_no_client_auth()
            }
            // A load has no secrets, and test servers sign for themselves.
            None => corten_tls::unverified().with_no_client_auth(),
        };
        Ok(Self { host, port: uri.port_u16().unwrap_or(443), token: token.to_owned(), tls: Arc::new(tls), pids })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> anyhow::Result<Wire> {
        Wire::connect(&self.host, self.port, &self.token, self.tls.clone()).await
    }

    /// Processor time that the server has used, in seconds; 0 when its processes are not known.
    pub fn cpu_seconds(&self) -> f64 {
        self.pids.iter().map(|pid| machine::cpu_seconds(*pid)).sum()
    }

    /// The server's resident memory in MiB; 0 when its processes are not known.
    pub fn resident_mib(&self) -> f64 {
        self.pids.iter().map(|pid| machine::resident_mib(*pid)).sum()
    }
}

fn roots(ca: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("read {}", ca.display()))? {
        roots.add(certificate?)?;
    }
    Ok(roots)
}
