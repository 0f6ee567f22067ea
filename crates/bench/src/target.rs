//! The server under load: where it is, as whom it is spoken to, and what its processes cost.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let tls = match ca {
            Some(ca) => builder.with_root_certificates(roots(ca)?).with_no_client_auth(),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Any(provider))).with_no_client_auth(),
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

/// Takes any certificate whose key the server has: a load has no secrets, and test servers sign for themselves.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
