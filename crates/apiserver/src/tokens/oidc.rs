//! OpenID Connect discovery, so that others can verify our tokens (KEP-1393).

use std::sync::Arc;

use http::{HeaderValue, header};
use serde_json::{Value, json};

use corten_api::status::Status;

use crate::certs;
use crate::negotiate;
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

use super::Tokens;

/// `/.well-known/openid-configuration` and `/openid/v1/jwks`.
///
/// # Errors
/// 404 for other paths.
pub async fn serve(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    let (document, kind) = match call.info().path.trim_end_matches('/') {
        "/.well-known/openid-configuration" => (configuration(state), "application/json"),
        "/openid/v1/jwks" => (keys(&state.tokens), "application/jwk-set+json"),
        _ => return Ok(response::no_such_page()),
    };
    // Whatever is sent is not read.
    negotiate::route_document(&call.method, "", call.header(header::ACCEPT), kind)?;
    let mut response = response::bytes(200, kind, document.to_string());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}

fn configuration(state: &State) -> Value {
    let tokens = &state.tokens;
    let address = certs::advertise_address(&state.config);
    let address = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    let host = state.config.external_hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(&address);
    let own = || format!("https://{host}:{}/openid/v1/jwks", state.config.secure_port);
    let keys = state.config.service_account_jwks_uri.clone().filter(|uri| !uri.is_empty()).unwrap_or_else(own);
    let mut algorithms: Vec<_> = tokens.verifiers.iter().map(|verifier| format!("{:?}", verifier.algorithm)).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    json!({
        "issuer": tokens.issuers.first(),
        "jwks_uri": keys,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    })
}

fn keys(tokens: &Tokens) -> Value {
    json!({"keys": tokens.verifiers.iter().map(|verifier| &verifier.jwk).collect::<Vec<_>>()})
}
