//! Serves the paths of metrics.

use std::sync::Arc;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// Answers a request under one of its paths.
pub async fn serve(_state: &Arc<State>, _call: &Call) -> Result<Response, Status> {
    Err(crate::pipeline::no_such_path())
}

/// Counters and histograms by upstream's names.
pub struct Metrics {}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// A request was answered.
    pub fn request(&self, _info: &crate::request::RequestInfo, _code: u16, _took: std::time::Duration) {}
}
