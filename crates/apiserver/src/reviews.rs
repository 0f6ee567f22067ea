//! Resources that are questions: token and access reviews. Nothing is stored.

use std::sync::Arc;

use serde_json::Value;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::state::State;

/// Answers a posted review with the same document and its status filled in.
pub async fn create(_state: &Arc<State>, call: &Call, _body: Value) -> Result<Value, Status> {
    let info = call.info();
    Err(Status::not_found(&info.group, &info.resource, ""))
}
