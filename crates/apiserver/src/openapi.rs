//! Serves the paths of openapi.

use std::sync::Arc;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// Answers a request under one of its paths.
pub async fn serve(_state: &Arc<State>, _call: &Call) -> Result<Response, Status> {
    Err(crate::pipeline::no_such_path())
}
