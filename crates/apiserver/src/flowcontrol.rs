//! Priority and fairness (KEP-1040): how many requests of whom run at one time.
//!
//! A FlowSchema says which priority level a request belongs to and what makes a flow in it. A level has seats; when they are
//! taken, requests wait in queues. A flow is dealt a hand of the queues and joins the shortest (shuffle sharding), and queues
//! are served in turn, so that a flood fills few queues and the others are served as before.

mod config;
pub(crate) mod dangling;
mod queues;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

use corten_api::status::{Details, Status};

use crate::config::Config;
use crate::proof::Authorized;
use crate::reader::Reader;

use config::{GROUP, Plan};
use queues::{Level, Taken};

/// Classifies, queues and seats requests.
pub struct Flow {
    enabled: bool,
    reader: Reader,
    /// Seats of all levels together.
    seats: usize,
    /// How long a request may wait for a seat.
    patience: Duration,
    plan: ArcSwap<Plan>,
    refreshing: Mutex<()>,
}

/// The right to run; given back when dropped.
#[must_use]
pub struct Seat {
    _taken: Option<Taken>,
    /// UIDs of the flow schema and the priority level.
    classified: Option<(Arc<str>, Arc<str>)>,
}

impl Flow {
    /// Reads FlowSchemas and PriorityLevelConfigurations through `reader`.
    #[must_use]
    pub fn new(config: &Config, reader: &Reader) -> Self {
        Self {
            enabled: config.enable_priority_and_fairness,
            reader: reader.clone(),
            seats: config.max_requests_inflight + config.max_mutating_requests_inflight,
            patience: config.request_timeout / 4,
            plan: ArcSwap::from_pointee(Plan::default()),
            refreshing: Mutex::new(()),
        }
    }

    /// Waits for a seat; 429 when there is none in time. Long-running requests give it back once they are under way.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub async fn seat(&self, request: &Authorized) -> Result<Seat, Status> {
        if !self.enabled {
            return Ok(Seat { _taken: None, classified: None });
        }
        self.refresh();
        let plan = self.plan.load_full();
        let Some((schema, level)) = plan.classify(request.user(), request.info()) else {
            return Ok(Seat { _taken: None, classified: None }); // before the first objects are written
        };
        let classified = Some((schema.uid.clone(), level.uid.clone()));
        let flow = schema.flow(request.user(), request.info());
        match Level::take(level, flow, self.patience).await {
            Ok(taken) => Ok(Seat { _taken: taken, classified }),
            Err(queues::Full) => {
                tracing::debug!(level = %level.name, user = request.user().name, "a request was rejected");
                Err(too_many())
            }
        }
    }

    /// Takes in changed objects. When none are, which is nearly always, this is two comparisons.
    fn refresh(&self) {
        let seen = [self.reader.changed(GROUP, "flowschemas"), self.reader.changed(GROUP, "prioritylevelconfigurations")];
        if self.plan.load().seen == seen {
            return;
        }
        let _one = self.refreshing.lock();
        let current = self.plan.load();
        if current.seen != seen {
            let schemas = self.reader.list(GROUP, "flowschemas", "");
            let levels = self.reader.list(GROUP, "prioritylevelconfigurations", "");
            self.plan.store(Arc::new(current.next(seen, &schemas, &levels, self.seats)));
        }
    }
}

impl Seat {
    /// Tells the client how its request was classified.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some((schema, level)) = &self.classified {
            for (name, uid) in [("x-kubernetes-pf-flowschema-uid", schema), ("x-kubernetes-pf-prioritylevel-uid", level)] {
                if let Ok(value) = HeaderValue::from_str(uid) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

fn too_many() -> Status {
    let mut status = Status::failure(429, "TooManyRequests", "Too many requests, please try again later.");
    status.details = Some(Details { retry_after_seconds: 1, ..Details::default() });
    status
}
