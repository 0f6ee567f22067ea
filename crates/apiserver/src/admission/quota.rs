//! ResourceQuota: what a namespace may hold. Usage is counted into the quota's status before the object is stored, by a
//! compare-and-swap, so that two requests cannot share the last free place.

pub(super) mod usage;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use corten_api::quantity::Quantity;
use corten_api::status::Status;

use super::tools::members;
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::pipeline;
use crate::reader::Reader;
use crate::response::RequestBody;
use crate::state::State;
use crate::user::User;

use usage::Usage;

pub(super) struct ResourceQuota {
    reader: Reader,
    /// The server, to write quotas' status with. Weak: the server owns this plugin.
    state: OnceLock<Weak<State>>,
}

/// How often a quota that others write too is tried.
const ATTEMPTS: usize = 8;

impl ResourceQuota {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, state: OnceLock::new() }
    }

    async fn check(&self, request: &AdmissionRequest) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let quotas = self.reader.list("", "resourcequotas", &request.namespace);
            if quotas.is_empty() {
                return Ok(());
            }
            let mut changed = Vec::new();
            for quota in quotas.iter().map(|entry| entry.decode()) {
                changed.extend(charge(request, quota)?);
            }
            if request.dry_run || self.write_all(&changed).await? {
                return Ok(());
            }
        }
        let why = "status unknown for quota: too many writers";
        Err(request.forbidden(why))
    }

    /// Writes the status of quotas; false when one was changed by somebody else meanwhile.
    async fn write_all(&self, quotas: &[Value]) -> Result<bool, Status> {
        let Some(state) = self.state.get().and_then(Weak::upgrade) else { return Ok(true) };
        for quota in quotas {
            if !write_status(&state, quota).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn write_status(state: &Arc<State>, quota: &Value) -> Result<bool, Status> {
    let (namespace, name) = (super::tools::text(quota, "/metadata/namespace"), super::tools::text(quota, "/metadata/name"));
    let body: RequestBody = Full::new(bytes::Bytes::from(quota.to_string())).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder()
        .method(Method::PUT)
        .uri(format!("/api/v1/namespaces/{namespace}/resourcequotas/{name}/status"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-apiserver/v1.36.0")
        .body(body)
        .map_err(|err| Status::internal(err.to_string()))?;
    let response = pipeline::serve_local(state.clone(), request, User::apiserver()).await;
    match response.status().as_u16() {
        200 | 201 => Ok(true),
        404 | 409 => Ok(false),
        code => Err(Status::internal(format!("the quota {namespace}/{name} could not be updated: {code}"))),
    }
}

/// The quota with the request's usage added, if it counts the request at all; a refusal when it is full.
fn charge(request: &AdmissionRequest, mut quota: Value) -> Result<Option<Value>, Status> {
    let Some(object) = &request.object else { return Ok(None) };
    let hard = amounts(&quota["status"]["hard"]);
    if hard.is_empty() || !usage::in_scope(&quota["spec"], request, object) {
        return Ok(None);
    }
    let after = usage::of(request, object);
    let before =
        request.old.as_ref().filter(|old| usage::in_scope(&quota["spec"], request, old)).map(|old| usage::of(request, old));
    let name = super::tools::text(&quota, "/metadata/name").to_owned();
    let unset: Vec<_> = usage::required(request, object, &hard);
    if !unset.is_empty() && request.operation == Operation::Create {
        return Err(request.forbidden(&format!("failed quota: {name}: must specify {}", unset.join("; "))));
    }
    let mut used = amounts(&quota["status"]["used"]);
    let mut requested = Usage::new();
    for (resource, amount) in after {
        if !hard.contains_key(&resource) {
            continue;
        }
        let mut delta = amount;
        if let Some(before) = before.as_ref().and_then(|before| before.get(&resource)) {
            delta.sub(before);
        }
        if !delta.is_zero() {
            requested.insert(resource, delta);
        }
    }
    let mut exceeded = Vec::new();
    for (resource, delta) in &requested {
        let Some(held) = used.get(resource) else {
            // Nobody has counted yet what is there: until then nothing may be added.
            return Err(request.forbidden(&format!("status unknown for quota: {name}, resources: {resource}")));
        };
        let mut sum = held.clone();
        sum.add(delta);
        if delta.sign() > 0 && sum > hard[resource] {
            exceeded.push(resource.clone());
        }
    }
    if !exceeded.is_empty() {
        let show = |of: &dyn Fn(&str) -> String| {
            exceeded.iter().map(|name| format!("{name}={}", of(name))).collect::<Vec<_>>().join(",")
        };
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            show(&|name| requested[name].to_string()),
            show(&|name| used[name].to_string()),
            show(&|name| hard[name].to_string()),
        );
        return Err(request.forbidden(&why));
    }
    if requested.is_empty() {
        return Ok(None);
    }
    for (resource, delta) in requested {
        if let Some(held) = used.get_mut(&resource) {
            held.add(&delta);
        }
    }
    let shown: BTreeMap<_, _> = used.into_iter().map(|(name, amount)| (name, amount.to_string())).collect();
    quota["status"]["used"] = json!(shown);
    Ok(Some(quota))
}

fn amounts(value: &Value) -> Usage {
    members(value).filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?))).collect()
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn reads_content(&self, request: &AdmissionRequest) -> bool {
        !self.reader.list("", "resourcequotas", &request.namespace).is_empty()
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.subresource.is_empty()
            && !request.namespace.is_empty()
            // A quota that kept itself from being changed could never be lifted.
            && !(request.resource == "resourcequotas" && request.operation == Operation::Update)
    }

    fn attach(&self, state: &Arc<State>) {
        let _ = self.state.set(Arc::downgrade(state));
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        Box::pin(self.check(request))
    }
}
