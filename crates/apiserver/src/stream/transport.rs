//! One connection to a target, for one request: plain or TLS, HTTP/1.1, since upgrades need that.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::{Security, Target};
use crate::certs::Identity;
use crate::response::RequestBody;
use crate::state::State;

/// How long a target may take to accept a connection.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(30);

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("dial tcp {address}: connect: {why}")]
    Connect { address: String, why: String },
    #[error("dial tcp: {0}")]
    Lookup(String),
    #[error("dial tcp {address}: i/o timeout")]
    Timeout { address: String },
    #[error("tls: {0}")]
    Tls(String),
    /// The other side ended the connection before it answered.
    #[error("EOF")]
    Ended,
    #[error("{0}")]
    Http(hyper::Error),
}

impl From<hyper::Error> for TransportError {
    fn from(err: hyper::Error) -> Self {
        if err.is_incomplete_message() || err.is_closed() { Self::Ended } else { Self::Http(err) }
    }
}

/// What the system said, in its own words, without a number.
fn system(err: &std::io::Error) -> String {
    let text = err.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Why the addresses of a host are not known, in the words that people look for.
pub(super) fn lookup(host: &str, err: &std::io::Error) -> String {
    let text = err.to_string();
    let why = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    match why {
        "Name or service not known" | "No address associated with hostname" => format!("lookup {host}: no such host"),
        why => format!("lookup {host}: {why}"),
    }
}

/// Why a handshake failed, in the words that people look for.
fn handshake(err: &std::io::Error) -> TransportError {
    if err.kind() == std::io::ErrorKind::UnexpectedEof {
        return TransportError::Ended;
    }
    let inner = err.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    TransportError::Tls(match inner {
        Some(rustls::Error::InvalidMessage(_)) => "first record does not look like a TLS handshake".to_owned(),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        _ => err.to_string(),
    })
}

pub(super) async fn send(
    state: &Arc<State>,
    target: &Target,
    request: http::Request<RequestBody>,
) -> Result<http::Response<hyper::body::Incoming>, TransportError> {
    let stream = connect(target).await?;
    match target.security {
        Security::Plain => exchange(state, stream, request).await,
        Security::Kubelet | Security::AnyKubelet | Security::Any | Security::FrontProxy => {
            let config = client_config(state, target.security)?;
            let name = ServerName::try_from(target.host.clone()).map_err(|err| TransportError::Tls(err.to_string()))?;
            let stream = TlsConnector::from(config).connect(name, stream).await;
            exchange(state, stream.map_err(|err| handshake(&err))?, request).await
        }
    }
}

async fn connect(target: &Target) -> Result<TcpStream, TransportError> {
    let address = target.authority();
    let host = target.host.trim_start_matches('[').trim_end_matches(']');
    let connected = async {
        let found = tokio::net::lookup_host((host, target.port)).await;
        let found: Vec<_> = found.map_err(|err| TransportError::Lookup(lookup(host, &err)))?.collect();
        Ok::<_, TransportError>(TcpStream::connect(&*found).await)
    };
    let connected = match tokio::time::timeout(CONNECT, connected).await {
        Ok(connected) => Ok(connected?),
        Err(elapsed) => Err(elapsed),
    };
    match connected {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true); // keystrokes must not wait for company
            Ok(stream)
        }
        Ok(Err(err)) => Err(TransportError::Connect { address, why: system(&err) }),
        Err(_) => Err(TransportError::Timeout { address }),
    }
}

async fn exchange<S>(
    state: &Arc<State>,
    stream: S,
    request: http::Request<RequestBody>,
) -> Result<http::Response<hyper::body::Incoming>, TransportError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = request.map(|body| body.boxed_unsync());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    state.tasks.spawn("backend-connection", async move {
        if let Err(err) = connection.with_upgrades().await {
            tracing::debug!(error = %err, "connection to a backend");
        }
    });
    Ok(sender.send_request(request).await?)
}

/// TLS as the server is known to kubelets, or to pods and services, whose certificates nobody vouches for.
fn client_config(state: &State, security: Security) -> Result<Arc<ClientConfig>, TransportError> {
    let tls = |err: &dyn std::fmt::Display| TransportError::Tls(err.to_string());
    let unverified_as = |identity: &Identity| {
        let (chain, key) = client_certificate(identity)?;
        let config = corten_tls::unverified().with_client_auth_cert(chain, key);
        Ok(Arc::new(config.map_err(|err| tls(&err))?))
    };
    match security {
        // There is no name to verify.
        Security::Any => return Ok(Arc::new(corten_tls::unverified().with_no_client_auth())),
        Security::FrontProxy => return unverified_as(&state.certs.front_proxy_client()),
        Security::AnyKubelet => return unverified_as(&state.certs.kubelet_client()),
        Security::Plain | Security::Kubelet => {}
    }
    let pem = match &state.config.kubelet_certificate_authority {
        Some(path) => std::fs::read_to_string(path).map_err(|err| tls(&err))?,
        None => state.certs.ca().to_owned(),
    };
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(cert.map_err(|err| tls(&err))?).map_err(|err| tls(&err))?;
    }
    let (chain, key) = client_certificate(&state.certs.kubelet_client())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|err| tls(&err))?;
    let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key);
    Ok(Arc::new(config.map_err(|err| tls(&err))?))
}

fn client_certificate(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TransportError> {
    let tls = |err: rustls::pki_types::pem::Error| TransportError::Tls(err.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
    Ok((chain.map_err(tls)?, PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(tls)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_the_words_of_others() {
        let unknown = std::io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(lookup("n.example", &unknown), "lookup n.example: no such host");
        let ended = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert_eq!(handshake(&ended).to_string(), "EOF");
        let refused = std::io::Error::from_raw_os_error(111);
        assert_eq!(system(&refused), "connection refused");
        let err = TransportError::Connect { address: "10.0.0.1:80".into(), why: system(&refused) };
        assert_eq!(err.to_string(), "dial tcp 10.0.0.1:80: connect: connection refused");
    }
}
