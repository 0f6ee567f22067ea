//! Bytes in, bytes out: the listener, TLS, HTTP/1.1 and HTTP/2, their limits, and an orderly stop; and the same pipeline for
//! callers inside the process.

mod departure;
mod io;
mod listen;
mod local;
mod protocol;
mod sni;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use corten_api::catalogue::Catalogue;
use corten_api::status::Status;
use corten_store::Store;
use corten_task::Tasks;

use crate::admission::Chain;
use crate::allocator::{Allocators, RangeError};
use crate::audit::{Audit, AuditError};
use crate::authn::{Authenticator, AuthnError};
use crate::authz::Authorizer;
use crate::cache::{Caches, FeedError};
use crate::certs::{Certificates, CertsError};
use crate::config::Config;
use crate::cors::Cors;
use crate::flowcontrol::Flow;
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::state::State;
use crate::tokens::{Tokens, TokensError};
use crate::user::User;
use crate::{bootstrap, registry};

pub use departure::Departure;
pub use local::Local;
pub use sni::NamedCertificate;

/// A running API server. Dropping it changes nothing: its tasks belong to the owner it was started with.
pub struct ApiServer {
    state: Arc<State>,
    address: SocketAddr,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port could not be taken.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// There are no usable certificates.
    #[error("prepare the certificates")]
    Certificates(#[from] CertsError),
    /// TLS refused the configuration.
    #[error("configure TLS")]
    Tls(#[from] rustls::Error),
    /// The store could not be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Credentials could not be read.
    #[error("set up authentication")]
    Authn(#[from] AuthnError),
    /// Service account keys could not be read.
    #[error("set up service account tokens")]
    Tokens(#[from] TokensError),
    /// The audit policy or log is of no use.
    #[error("set up auditing")]
    Audit(#[from] AuditError),
    /// The origins of web pages are of no use.
    #[error("{0}")]
    Cors(String),
    /// The service range is of no use.
    #[error("set up service addresses")]
    Range(#[from] RangeError),
    /// The first objects could not be written.
    #[error("write the objects every cluster has")]
    Bootstrap(#[source] Status),
}

impl ApiServer {
    /// Binds, fills the caches, writes what every cluster has, and serves. Returns when requests are answered.
    pub async fn start(config: Config, store: Arc<dyn Store>, tasks: &Tasks) -> Result<Self, StartError> {
        let started = Instant::now();
        let tasks = tasks.child("apiserver");
        let wanted = SocketAddr::new(config.bind_address, config.secure_port);
        let listener =
            tokio::net::TcpListener::bind(wanted).await.map_err(|source| StartError::Listen { address: wanted, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { address: wanted, source })?;
        let mut config = config;
        config.secure_port = address.port(); // whoever tells others where to connect needs the real one

        let certs = Certificates::open(&config, &tasks)?;
        let catalogue = Catalogue::builtin();
        let caches = Caches::start(store.clone(), registry::specs(catalogue), &tasks).await?;
        let reader = Reader::new(caches.clone());
        let tokens = Arc::new(Tokens::new(&config, &certs, &reader)?);
        let metrics = Metrics::new(&config);
        tokens.metrics.show(metrics.registry());
        let authz = Arc::new(Authorizer::new(&config, &reader, metrics.registry()));
        let state = Arc::new(State {
            authn: Authenticator::new(&config, &certs, &tokens, &reader)?,
            flow: Flow::new(&config, &reader, metrics.registry(), &tasks),
            audit: Audit::open(&config, metrics.audited.clone(), &tasks).await?,
            cors: Cors::new(&config.cors_allowed_origins).map_err(StartError::Cors)?,
            departure: Departure::default(),
            admission: Chain::standard(&config, &reader, &authz, metrics.registry()),
            allocators: Allocators::new(&config, &reader)?,
            metrics,
            catalogue: ArcSwap::from_pointee(registry::enabled(catalogue, &config)),
            tasks: tasks.clone(),
            config,
            store,
            caches,
            reader,
            certs,
            tokens,
            authz,
            began: std::time::SystemTime::now(),
            started,
        });
        state.admission.attach(&state);
        bootstrap::run(&state).await.map_err(StartError::Bootstrap)?;
        registry::start(&state);
        let named = sni::ByName::read(&state.config.tls_sni_cert_keys)?;
        let tls = tls::config(&state.certs, named, &state.config)?;
        tasks.spawn_graceful("listener", listen::run(listener, tls, state.clone()));
        tracing::info!(%address, took_ms = started.elapsed().as_millis() as u64, "the API is served");
        Ok(Self { state, address })
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server for clients in this process, acting as `user`: no socket, no TLS, no credentials; authorization,
    /// admission and everything after them as for others.
    #[must_use]
    pub fn local(&self, user: User) -> Local {
        Local::new(self.state.clone(), user)
    }

    /// Prepares a stop: the server says that it is not ready and serves on for as long as it was told to, so that clients find
    /// others in time; then it may have to send those away who still come, until nobody is left.
    pub async fn leave(&self) {
        let State { config, departure, .. } = &*self.state;
        departure.announce();
        tracing::info!(delay_ms = config.shutdown_delay.as_millis() as u64, "the API server is going to stop");
        tokio::time::sleep(config.shutdown_delay).await;
        if config.shutdown_send_retry_after && tokio::time::timeout(config.request_timeout, departure.refuse()).await.is_err() {
            tracing::warn!("requests were still running at the end of their time");
        }
    }

    /// The certificates, for those who make kubeconfigs.
    #[must_use]
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.state.certs
    }

    /// The server's parts.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }
}
