//! What one API server is made of. Handlers get it by reference; nothing in it is global.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use corten_api::catalogue::Catalogue;
use corten_store::Store;
use corten_task::Tasks;

use crate::admission::Chain;
use crate::allocator::Allocators;
use crate::audit::Audit;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::cache::Caches;
use crate::certs::Certificates;
use crate::config::Config;
use crate::cors::Cors;
use crate::flowcontrol::Flow;
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::server::Departure;
use crate::tokens::Tokens;

/// One API server's parts.
pub struct State {
    /// What it was told.
    pub config: Config,
    /// Owner of its tasks.
    pub tasks: Tasks,
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// What resources there are; replaced as a whole when custom resources come and go.
    pub catalogue: ArcSwap<Catalogue>,
    /// The watch caches.
    pub caches: Arc<Caches>,
    /// Reads from them.
    pub reader: Reader,
    /// The CA and the server's certificates and keys.
    pub certs: Arc<Certificates>,
    /// Service account tokens.
    pub tokens: Arc<Tokens>,
    /// Who is it.
    pub authn: Authenticator,
    /// May they.
    pub authz: Arc<Authorizer>,
    /// Priority and fairness.
    pub flow: Flow,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// The audit log.
    pub audit: Audit,
    /// Web pages that may use the API.
    pub cors: Option<Cors>,
    /// How far the server is on its way out.
    pub departure: Departure,
    /// Admission plugins.
    pub admission: Chain,
    /// Cluster IPs and node ports.
    pub allocators: Allocators,
    /// When the server was started, by the clock on the wall.
    pub began: SystemTime,
    /// When the server was started.
    pub started: Instant,
}

impl State {
    /// The resources there are at this moment.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }
}
