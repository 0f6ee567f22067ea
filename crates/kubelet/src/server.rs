//! The node's HTTPS endpoint on port 10250: logs, exec, attach and port-forward of its containers, and what it knows of
//! itself. Every request is authenticated and authorized by the API server before anything else, as upstream does.

mod auth;
mod exec;
mod forward;
mod routes;
mod spdy;
mod tls;
mod websocket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use corten_runtime::Images;
use corten_task::Tasks;

use crate::context::Context;
use crate::pods::Pods;

/// Body of every answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What requests are answered from.
pub struct Endpoint {
    pub ctx: Arc<Context>,
    pub pods: Arc<Pods>,
    pub images: Arc<dyn Images>,
    pub auth: auth::Auth,
    /// CPU time seen before, from which the summary tells the present use.
    pub rates: crate::stats::summary::Rates,
    pub tasks: Tasks,
}

/// Why the endpoint is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
}

/// Serves the endpoint in `tasks`. Returns its address, `None` when there is none by configuration.
pub async fn start(
    ctx: &Arc<Context>,
    pods: &Arc<Pods>,
    images: Arc<dyn Images>,
    tasks: &Tasks,
) -> Result<Option<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(address) = ctx.config.server.address else { return Ok(None) };
    let (config, certificate) = tls::config(&ctx.config).map_err(ServeError::Tls)?;
    if let Some((chain, key)) = ctx.config.server.certificate.clone() {
        tasks.spawn("node certificate", tls::follow(certificate, chain, key));
    }
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    let bound = listener.local_addr().map_err(|source| ServeError::Listen { address, source })?;
    let endpoint = Endpoint::new(ctx, pods, images, tasks);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let tasks = tasks.clone();
    let accepting = tasks.clone();
    tasks.spawn("node endpoint", async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(err) => {
                    // Out of descriptors, most likely: others have to close theirs first.
                    tracing::warn!(error = %err, "accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, endpoint) = (acceptor.clone(), endpoint.clone());
            accepting.spawn("node connection", async move {
                let handshake = tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(stream)).await;
                let Ok(Ok(stream)) = handshake else { return };
                let peer = stream.get_ref().1.peer_certificates().and_then(|chain| auth::user_of_certificate(chain.first()?));
                endpoint.serve(stream, peer).await;
            });
        }
    });
    Ok(Some(bound))
}

impl Endpoint {
    pub fn new(ctx: &Arc<Context>, pods: &Arc<Pods>, images: Arc<dyn Images>, tasks: &Tasks) -> Arc<Self> {
        let auth = auth::Auth::new(ctx.client.clone(), &ctx.config);
        Arc::new(Self { ctx: ctx.clone(), pods: pods.clone(), images, auth, rates: Default::default(), tasks: tasks.clone() })
    }

    /// Serves one connection, whose client has proved to be `peer` by its certificate.
    pub async fn serve<S>(self: Arc<Self>, stream: S, peer: Option<auth::User>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let (endpoint, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(endpoint.answer(request, peer).await) }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        if let Err(err) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(error = %err, "serve a connection");
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Option<auth::User>) -> Response<Body> {
        let user = match self.auth.authenticate(request.headers(), peer).await {
            Ok(user) => user,
            Err(refusal) => return refusal,
        };
        let node = &self.ctx.config.node_name;
        if let Err(refusal) = self.auth.authorize(&user, request.method(), request.uri().path(), node).await {
            return refusal;
        }
        routes::answer(self, request).await
    }
}

/// An answer of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text)
}

/// An answer of some type.
pub fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// An answer of JSON.
pub fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => typed(StatusCode::OK, "application/json", body),
        Err(err) => text(StatusCode::INTERNAL_SERVER_ERROR, err.to_string()),
    }
}

#[cfg(test)]
mod tests;
