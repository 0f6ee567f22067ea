//! The plain limits that hold where priority and fairness is off: so many requests that change nothing at one time, and so many
//! that do. What finds no room is rejected; administrators are let through, so that they can look why.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::request::RequestInfo;
use crate::user::{MASTERS, User};

/// Seconds after which a rejected client should come again.
pub(super) const RETRY_AFTER: u64 = 1;

/// Room for requests; `None` where it has no end.
pub(super) struct Inflight {
    reading: Option<Arc<Semaphore>>,
    changing: Option<Arc<Semaphore>>,
}

impl Inflight {
    pub(super) fn new(config: &Config) -> Self {
        let room = |limit: usize| (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))));
        Self { reading: room(config.max_requests_inflight), changing: room(config.max_mutating_requests_inflight) }
    }

    /// Room for a request, if it needs any, until the value is dropped.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn enter(&self, user: &User, info: &RequestInfo) -> Result<Option<OwnedSemaphorePermit>, Full> {
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let room = if reads { &self.reading } else { &self.changing };
        let Some(room) = room.as_ref().filter(|_| !info.is_long_running()) else { return Ok(None) };
        match room.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) if user.is_in(MASTERS) => Ok(None),
            Err(_) => Err(Full),
        }
    }
}

/// There is no room.
#[derive(Debug)]
pub(super) struct Full;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_changing_have_room_of_their_own() {
        let mut config = Config::new("/pki");
        (config.max_requests_inflight, config.max_mutating_requests_inflight) = (0, 1);
        let room = Inflight::new(&config);
        let info = |verb: &str| RequestInfo { is_resource: true, verb: verb.into(), ..RequestInfo::default() };
        let (eve, admin) = (User::new("eve", &[]), User::new("admin", &[MASTERS]));
        let first = room.enter(&eve, &info("create")).unwrap();
        assert!(first.is_some());
        assert!(room.enter(&eve, &info("update")).is_err());
        assert!(room.enter(&admin, &info("update")).is_ok(), "administrators get in");
        assert!(room.enter(&eve, &info("list")).is_ok(), "there is no limit for those who read");
        drop(first);
        assert!(room.enter(&eve, &info("delete")).is_ok());
    }
}
