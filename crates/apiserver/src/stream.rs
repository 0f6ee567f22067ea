//! Requests that are passed on to a node, a pod or a service: log, exec, attach, portforward, proxy.

use std::sync::Arc;

use serde_json::Value;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

/// Serves a subresource of `object` (a Pod, Service or Node) that is a connection. Admission has agreed.
pub async fn serve(_state: &Arc<State>, call: Call, _object: Value) -> Result<Response, Status> {
    let info = call.info();
    Err(Status::not_found(&info.group, &info.resource, &info.name))
}
