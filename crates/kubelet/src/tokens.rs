//! Service account tokens bound to a pod, from the TokenRequest API, renewed at 80 % of their life as upstream does.

use std::collections::HashMap;
use std::time::Duration;

use corten_client::Client;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::pod::PodExt;

/// Tokens older than this are renewed whatever their life.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch token: {0}")]
pub struct TokenError(String);

/// The tokens in use. They are never logged.
pub struct Tokens {
    client: Client,
    clock: Clock,
    known: Mutex<HashMap<Key, Token>>,
}

/// Pod UID, audience, seconds.
type Key = (String, String, i64);

#[derive(Clone)]
struct Token {
    text: String,
    renew: Timestamp,
    expires: Timestamp,
}

impl Tokens {
    pub fn new(client: Client, clock: Clock) -> Self {
        Self { client, clock, known: Mutex::default() }
    }

    /// A valid token for `pod` as `source` describes it, and when to ask again.
    pub async fn get(&self, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<(String, Timestamp), TokenError> {
        let audience = source.audience.clone().unwrap_or_default();
        let seconds = source.expiration_seconds.unwrap_or(3600);
        let key = (pod.uid().to_owned(), audience.clone(), seconds);
        let now = self.clock.now();
        let known = self.known.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|token| now < token.renew) {
            return Ok((token.text.clone(), token.renew));
        }
        match self.request(pod, audience, seconds, now).await {
            Ok(token) => {
                let answer = (token.text.clone(), token.renew);
                self.known.lock().insert(key, token);
                Ok(answer)
            }
            // The old one still works: try again soon instead of failing the volume.
            Err(err) => match known.filter(|token| now < token.expires) {
                Some(token) => Ok((token.text, now + Duration::from_secs(60))),
                None => Err(err),
            },
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn release(&self, uid: &str) {
        self.known.lock().retain(|(owner, ..), _| owner != uid);
    }

    async fn request(&self, pod: &Pod, audience: String, seconds: i64, now: Timestamp) -> Result<Token, TokenError> {
        let account = pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            metadata: ObjectMeta::default(),
            spec: Some(TokenRequestSpec {
                audiences: Some(Some(audience).into_iter().filter(|audience| !audience.is_empty()).collect()),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name().to_owned()),
                    uid: Some(pod.uid().to_owned()),
                }),
                expiration_seconds: Some(seconds),
            }),
            status: None,
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), pod.namespace());
        let answer: TokenRequest = accounts
            .create_subresource("token", &account, &PostParams::default(), &request)
            .await
            .map_err(|err| TokenError(crate::api_error_text(&err)))?;
        let status = answer.status.and_then(|status| Some((status.token?, status.expiration_timestamp?.0)));
        let (text, expires) = status.ok_or_else(|| TokenError("the answer has no token".to_owned()))?;
        let life = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
        let renew = now + (life.mul_f64(0.8)).min(MAX_AGE);
        Ok(Token { text, renew, expires })
    }
}
