//! `POST serviceaccounts/NAME/token`: a token for a service account, bound to an object if asked for.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use corten_api::field::{Faults, Path};
use corten_api::status::Status;

use crate::pipeline::Call;
use crate::state::State;

use super::{Bound, Claims, Ref, Tokens};

const GROUP: &str = "authentication.k8s.io";
/// Seconds a token is good for when the request does not say.
const DEFAULT_EXPIRATION: i64 = 3600;
const MIN_EXPIRATION: i64 = 600;
const MAX_EXPIRATION: i64 = 1 << 32;
/// What the projected volume of [`crate::admission`] asks for; such tokens are extended, see [`claims_of`].
pub(crate) const WARN_ONLY_EXPIRATION: i64 = 3607;
const EXTENDED_EXPIRATION: i64 = 365 * 24 * 3600;

/// The TokenRequest `body` with its status filled in. `account` is the ServiceAccount.
///
/// # Errors
/// In upstream's words: an expiration out of bounds, an object that is absent or may not be bound to.
pub async fn create(state: &Arc<State>, call: &Call, account: &Value, mut body: Value) -> Result<Value, Status> {
    let tokens = &state.tokens;
    let now = Timestamp::now();
    if !body["spec"].is_object() {
        body["spec"] = json!({});
    }
    let (namespace, name) = (text(account, "/metadata/namespace"), text(account, "/metadata/name"));
    if text(&body, "/spec/audiences/0").is_empty() {
        body["spec"]["audiences"] = json!(tokens.api_audiences());
    }
    let asked = body["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_EXPIRATION);
    check_expiration(asked)?;
    let expiration = if tokens.max_expiration > 0 { asked.min(tokens.max_expiration) } else { asked };
    body["spec"]["expirationSeconds"] = expiration.into();
    if body["spec"].get("boundObjectRef").is_none() {
        body["spec"]["boundObjectRef"] = Value::Null;
    }
    let (pod, node, secret) = bound_object(state, &body["spec"]["boundObjectRef"], &namespace, &name)?;
    let account = Ref { name: name.clone(), uid: text(account, "/metadata/uid") };
    let bound = Bound { namespace: namespace.clone(), node, pod, secret, serviceaccount: account.clone(), warnafter: None };
    let audiences = serde_json::from_value(body["spec"]["audiences"].clone())
        .map_err(|err| Status::bad_request(format!("spec.audiences: {err}")))?;
    let claims = claims_of(tokens, bound, audiences, expiration, now);
    if let Some(trail) = call.trail() {
        trail.annotate("authentication.kubernetes.io/issued-credential-id", &format!("JTI={}", claims.jti));
    }
    let token =
        tokens.signer.sign(&claims).map_err(|err| Status::internal(format!("failed to sign token: {err}")).because(err))?;
    let end = now.checked_add(expiration.seconds()).map_err(|err| Status::internal(err.to_string()))?;

    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    let metadata = &mut body["metadata"];
    metadata["name"] = name.into();
    metadata["namespace"] = namespace.into();
    metadata["uid"] = account.uid.into();
    metadata["creationTimestamp"] = seconds(now).into();
    body["status"] = json!({"token": token, "expirationTimestamp": seconds(end)});
    Ok(body)
}

/// Tokens of the injected volume are asked for an hour; clients of old that never read them again get a year, and a mark
/// in the token says when they should have (KEP-1205, `--service-account-extend-token-expiration`).
fn claims_of(tokens: &Tokens, mut bound: Bound, aud: Vec<String>, expiration: i64, now: Timestamp) -> Claims {
    let now = now.as_second();
    let for_api = aud == tokens.api_audiences;
    let mut exp = now + expiration;
    if bound.pod.is_some() && expiration == WARN_ONLY_EXPIRATION && for_api {
        bound.warnafter = Some(exp);
        exp = now + EXTENDED_EXPIRATION;
    }
    let account = &bound.serviceaccount.name;
    Claims {
        sub: format!("system:serviceaccount:{}:{account}", bound.namespace),
        aud,
        exp,
        iat: now,
        nbf: now,
        iss: tokens.issuers.first().cloned().unwrap_or_default(),
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes: bound,
    }
}

fn check_expiration(seconds: i64) -> Result<(), Status> {
    let mut faults = Faults::default();
    let spec = Path::new("spec");
    let path = spec.child("expirationSeconds");
    if seconds < MIN_EXPIRATION {
        faults.invalid(&path, &seconds.into(), "may not specify a duration less than 10 minutes");
    } else if seconds > MAX_EXPIRATION {
        faults.invalid(&path, &seconds.into(), "may not specify a duration larger than 2^32 seconds");
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid(GROUP, "TokenRequest", "", &faults)) }
}

type BoundTo = (Option<Ref>, Option<Ref>, Option<Ref>);

/// The pod (with its node), node or secret that the token is to be bound to.
fn bound_object(state: &State, reference: &Value, namespace: &str, account: &str) -> Result<BoundTo, Status> {
    if reference.is_null() {
        return Ok((None, None, None));
    }
    let (version, kind, name) = (text(reference, "/apiVersion"), text(reference, "/kind"), text(reference, "/name"));
    // Any version of the core group will do; what is no version at all counts as one.
    let (group, version) = match version.split_once('/') {
        Some((_, version)) if version.contains('/') => ("", ""),
        Some(both) => both,
        None => ("", version.as_str()),
    };
    let resource = match (group, kind.as_str()) {
        ("", "Pod") => "pods",
        ("", "Secret") => "secrets",
        ("", "Node") => "nodes",
        _ => {
            let message = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(message));
        }
    };
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let scope = if resource == "nodes" { "" } else { namespace };
    let found = state.reader.document("", resource, scope, &name).ok_or_else(|| Status::not_found("", resource, &name))?;
    let object = Ref { name: name.clone(), uid: text(&found, "/metadata/uid") };
    let node = match resource {
        "pods" => {
            let runs_as = text(&found, "/spec/serviceAccountName");
            if runs_as != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let node = text(&found, "/spec/nodeName");
            // The node may not be there yet, or no more; its name is known all the same.
            let uid = state.reader.get("", "nodes", "", &node).map(|entry| entry.uid.to_string());
            (!node.is_empty()).then(|| Ref { name: node, uid: uid.unwrap_or_default() })
        }
        "nodes" => Some(object.clone()),
        _ => None,
    };
    let wanted = text(reference, "/uid");
    if !wanted.is_empty() && wanted != object.uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", &kind, &name, &why));
    }
    Ok(match resource {
        "pods" => (Some(object), node, None),
        "nodes" => (None, node, None),
        _ => (None, None, Some(object)),
    })
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A time as the API writes it: RFC 3339 in whole seconds.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
