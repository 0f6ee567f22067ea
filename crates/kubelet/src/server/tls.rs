//! The endpoint's certificate, read again when its files change, and which client certificates it believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use nix::sys::inotify::AddWatchFlags;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use crate::config::Config;
use crate::inotify::Watch;

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

/// The certificate of this moment.
#[derive(Debug)]
pub struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The configuration of the endpoint, and the certificate in it.
pub fn config(config: &Config) -> Result<(ServerConfig, Arc<Current>), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = match &config.server.certificate {
        Some((chain, key)) => read(chain, key, &provider)?,
        None => {
            let (chain, key) = self_made(config)?;
            CertifiedKey::from_der(chain, key, &provider)?
        }
    };
    let current = Arc::new(Current(ArcSwap::from_pointee(certified)));
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
    let mut server = builder.with_cert_resolver(current.clone());
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((server, current))
}

/// Serves what `chain` and `key` become, for ever: who renews a certificate replaces its files. Until both belong
/// together the one before is served.
pub async fn follow(current: Arc<Current>, chain: PathBuf, key: PathBuf) {
    let provider = rustls::crypto::ring::default_provider();
    let watched = || -> std::io::Result<Watch> {
        let watch = Watch::new()?;
        for file in [&chain, &key] {
            // The directory, because a new certificate is another file of the same name.
            watch.add(file.parent().unwrap_or(file), AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)?;
        }
        Ok(watch)
    };
    let watch = match watched() {
        Ok(watch) => watch,
        Err(err) => {
            tracing::error!(error = %err, path = %chain.display(), "watch the endpoint's certificate");
            return;
        }
    };
    loop {
        match read(&chain, &key, &provider) {
            Ok(fresh) if fresh.cert != current.0.load().cert => {
                current.0.store(Arc::new(fresh));
                tracing::info!(path = %chain.display(), "serve a renewed certificate");
            }
            Ok(_) => {}
            Err(err) => tracing::warn!(error = %err, "keep the certificate that is served"),
        }
        if let Err(err) = watch.changed().await {
            tracing::error!(error = %err, path = %chain.display(), "watch the endpoint's certificate");
            return;
        }
    }
}

fn read(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    Ok(CertifiedKey::from_der(read_chain(chain)?, read_key(key)?, provider)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_renewed_certificate_is_served() {
        let dir = tempfile::tempdir().expect("a directory");
        let (chain, key) = (dir.path().join("node.crt"), dir.path().join("node.key"));
        let write = || {
            let made = rcgen::generate_simple_self_signed(vec!["n1".to_owned()]).expect("makes a certificate");
            for (path, text) in [(&key, made.signing_key.serialize_pem()), (&chain, made.cert.pem())] {
                let new = path.with_extension("new");
                std::fs::write(&new, text).expect("writes");
                std::fs::rename(&new, path).expect("renames");
            }
            made.cert.der().clone()
        };
        let first = write();
        let mut settings = Config::default();
        settings.server.certificate = Some((chain.clone(), key.clone()));
        let (_, current) = config(&settings).expect("usable");
        assert_eq!(current.0.load().cert, [first]);
        let following = tokio::spawn(follow(current.clone(), chain.clone(), key.clone()));
        for _ in 0..2 {
            let next = write();
            while current.0.load().cert != [next.clone()] {
                assert!(!following.is_finished());
                tokio::task::yield_now().await;
            }
        }
        following.abort();
    }
}
