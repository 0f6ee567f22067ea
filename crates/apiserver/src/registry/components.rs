//! `componentstatuses`: a read-only list that upstream deprecated in v1.19 and still serves. The only component that this
//! server can speak for is its store.

use std::sync::Arc;

use serde_json::{Value, json};

use corten_api::status::Status;

use super::read;
use super::render;
use super::target::Target;
use crate::negotiate::Endpoint;
use crate::pipeline::Call;
use crate::response::Response;
use crate::state::State;

const STORE: &str = "etcd-0";

/// `GET` of one component.
pub(crate) async fn get(state: &Arc<State>, target: &Target, call: &Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::Object)?;
    let name = &call.info().name;
    if name != STORE {
        return Err(Status::not_found("", "componentstatus", name));
    }
    render::shaped(target, form, 200, store(state).await, call)
}

/// `GET` of all.
pub(crate) async fn list(state: &Arc<State>, target: &Target, call: &Call) -> Result<Response, Status> {
    let form = read::form(call, Endpoint::List)?;
    let mut item = store(state).await;
    if let Some(item) = item.as_object_mut() {
        item.remove("kind");
        item.remove("apiVersion");
    }
    let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": [item]});
    render::list_document(target, form, list, call)
}

async fn store(state: &State) -> Value {
    let condition = match state.store.size().await {
        Ok(_) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(err) => json!({"type": "Healthy", "status": "False", "message": err.to_string()}),
    };
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": STORE}, "conditions": [condition]})
}
