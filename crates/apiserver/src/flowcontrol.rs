//! Priority and fairness: how many requests of whom run at one time.

use corten_api::status::Status;

use crate::config::Config;
use crate::proof::Authorized;
use crate::reader::Reader;

/// Classifies, queues and seats requests.
pub struct Flow {}

/// The right to run; given back when dropped.
#[must_use]
pub struct Seat {}

impl Flow {
    /// Reads FlowSchemas and PriorityLevelConfigurations through `reader`.
    #[must_use]
    pub fn new(_config: &Config, _reader: &Reader) -> Self {
        Self {}
    }

    /// Waits for a seat; 429 when there is none in time. Long-running requests give it back once they are under way.
    pub async fn seat(&self, _request: &Authorized) -> Result<Seat, Status> {
        Ok(Seat {})
    }
}
