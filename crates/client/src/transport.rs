//! The two ways to the API server: a function call in the same process, or TLS as a kubeconfig file says.

use std::path::{Path, PathBuf};

use kube::Client;
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::Layer;

use crate::metrics::Counting;

/// Why a kubeconfig file does not lead to a client.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The file cannot be read or is not a kubeconfig, or what it refers to is missing.
    #[error("read kubeconfig {}", path.display())]
    Config {
        /// The kubeconfig file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// The TLS or credential settings are not usable.
    #[error("use kubeconfig {}", path.display())]
    Client {
        /// The kubeconfig file.
        path: PathBuf,
        /// What is wrong with them.
        source: Box<kube::Error>,
    },
}

/// A client for the current context of the kubeconfig file at `path`. Nothing is sent yet.
pub async fn remote(path: &Path) -> Result<Client, RemoteError> {
    counted(settings(path).await?).map_err(|source| unusable(path, source))
}

/// A client of this configuration whose requests are counted.
pub(crate) fn counted(config: kube::Config) -> Result<Client, kube::Error> {
    let counting = Counting::to(&config.cluster_url);
    Ok(ClientBuilder::try_from(config)?.with_layer(&counting).build())
}

/// What the current context of the kubeconfig file at `path` says.
pub(crate) async fn settings(path: &Path) -> Result<kube::Config, RemoteError> {
    let config = |source| RemoteError::Config { path: path.into(), source };
    let file = Kubeconfig::read_from(path).map_err(config)?;
    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(config)
}

pub(crate) fn unusable(path: &Path, source: kube::Error) -> RemoteError {
    RemoteError::Client { path: path.into(), source: Box::new(source) }
}

/// A client that calls `service` directly: no socket, no TLS, but the same authorization, admission and audit.
///
/// Must be called inside a tokio runtime.
pub fn in_process<S, B>(service: S, default_namespace: impl Into<String>) -> Client
where
    S: tower::Service<http::Request<Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<tower::BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    Client::new(Counting::of("in-process").layer(service), default_namespace)
}
