//! One keep-alive HTTP/1.1 connection over TLS: the least a client can cost, since it shares the cores with the server.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where and as whom to connect.
#[derive(Clone)]
pub struct Target {
    port: u16,
    token: String,
    tls: TlsConnector,
}

impl Target {
    /// A server on loopback whose certificate `ca` has signed.
    pub fn new(port: u16, token: &str, ca: &Path) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("read {}", ca.display()))? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { port, token: token.to_owned(), tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from("localhost")?, tcp).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, target: self.clone() })
    }
}

/// An open connection; one request at a time.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Connection {
    /// Sends a request and reads the whole answer; fails on any status but success.
    pub async fn call(&mut self, method: &str, path: &str, body: Option<(&str, Bytes)>) -> anyhow::Result<Bytes> {
        let (status, body) = self.start(method, path, body).await?;
        let bytes = body.collect().await?.to_bytes();
        ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]));
        Ok(bytes)
    }

    /// Sends a request and leaves the answer's body to be read as it comes (a watch).
    pub async fn start(
        &mut self,
        method: &str,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> anyhow::Result<(http::StatusCode, hyper::body::Incoming)> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("localhost:{}", self.target.port))
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", self.target.token));
        let body = match body {
            Some((kind, bytes)) => {
                request = request.header("content-type", kind);
                bytes
            }
            None => Bytes::new(),
        };
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        Ok((response.status(), response.into_body()))
    }
}
