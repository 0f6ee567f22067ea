//! The endpoint's certificate and which client certificates it believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::Config;

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {path}: {why}")]
    Read { path: PathBuf, why: String },
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("use the certificate: {0}")]
    Use(#[from] rustls::Error),
    #[error("use the client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The configuration of the endpoint.
pub fn config(config: &Config) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = match &config.server.certificate {
        Some((chain, key)) => (read_chain(chain)?, read_key(key)?),
        None => self_made(config)?,
    };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &config.server.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in read_chain(path)? {
                roots.add(authority)?;
            }
            // Without a certificate a client may still show a token.
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |why: String| TlsError::Read { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(path).map_err(|err| failed(err.to_string()))?;
    let chain: Result<Vec<_>, _> = chain.collect();
    let chain = chain.map_err(|err| failed(err.to_string()))?;
    if chain.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|err| TlsError::Read { path: path.to_owned(), why: err.to_string() })
}

fn self_made(config: &Config) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let mut names = vec![config.node_name.clone()];
    names.extend(config.node_ips.iter().map(ToString::to_string));
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    Ok((vec![made.cert.der().clone()], key))
}
