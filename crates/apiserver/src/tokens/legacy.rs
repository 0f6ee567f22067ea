//! Tokens in Secrets of type `kubernetes.io/service-account-token`: without an expiry, good as long as the Secret is there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::keys::{self, Verifier};
use super::service_account_user;
use crate::authn::Extra;
use crate::reader::Reader;
use crate::user::User;

const ISSUER: &str = "kubernetes/serviceaccount";

#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// The user of a token, if it is one of this form and is good.
pub(super) fn user(token: &str, verifiers: &[Verifier], reader: &Reader) -> Option<User> {
    let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(token).ok()?.claims;
    if claims.iss != ISSUER || keys::check(token, verifiers).is_err() {
        return None;
    }
    let account = reader.get("", "serviceaccounts", &claims.namespace, &claims.name)?;
    let secret = reader.get("", "secrets", &claims.namespace, &claims.secret)?;
    let stored = STANDARD.decode(secret.decode().pointer("/data/token")?.as_str()?).ok()?;
    let good = *account.uid == *claims.uid && !account.deleting && !secret.deleting && stored == token.as_bytes();
    good.then(|| service_account_user(&claims.namespace, &claims.name, &claims.uid, Extra::new()))
}
