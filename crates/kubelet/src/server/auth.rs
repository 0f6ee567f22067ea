//! Who asks, and whether they may: client certificates and bearer tokens, decided by the API server's TokenReview and
//! SubjectAccessReview, whose answers are remembered for a while.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use corten_client::Client;
use http::{HeaderMap, Method, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Body, text};
use crate::config::Config;

/// How long an authentication, a permission and a refusal are remembered, as upstream's defaults.
const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Answers kept at most; more means that somebody tries things out.
const MOST: usize = 1024;

/// A requester.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Decides who and whether.
pub struct Auth {
    client: Client,
    anonymous: bool,
    authorize: bool,
    /// By digest: the tokens themselves are not kept.
    tokens: Mutex<HashMap<[u8; 32], (Option<User>, Instant)>>,
    verdicts: Mutex<HashMap<(User, Attributes), (bool, Instant)>>,
}

/// What is asked for, as the API server's policy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attributes {
    verb: &'static str,
    subresource: &'static str,
}

impl Auth {
    pub fn new(client: Client, config: &Config) -> Self {
        let server = &config.server;
        Self {
            client,
            anonymous: server.anonymous,
            authorize: server.authorize,
            tokens: Mutex::default(),
            verdicts: Mutex::default(),
        }
    }

    /// The requester, or the answer that refuses it.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: Option<User>) -> Result<User, Response<Body>> {
        if let Some(user) = peer {
            return Ok(user);
        }
        let token = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
        if let Some(token) = token.map(str::trim).filter(|token| !token.is_empty()) {
            match self.review(token).await {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => {}
                Err(err) => tracing::warn!(error = %crate::chain(&err), "review a token"),
            }
            return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
        if self.anonymous {
            let groups = vec!["system:unauthenticated".to_owned()];
            return Ok(User { name: "system:anonymous".to_owned(), groups, ..User::default() });
        }
        Err(text(StatusCode::UNAUTHORIZED, "Unauthorized"))
    }

    /// Nothing, or the answer that forbids the request.
    pub async fn authorize(&self, user: &User, method: &Method, path: &str, node: &str) -> Result<(), Response<Body>> {
        if !self.authorize {
            return Ok(());
        }
        let wanted = attributes(method, path);
        for attributes in &wanted {
            match self.access(user, attributes, node).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(err) => {
                    let message = format!(
                        "Authorization error (user={}, verb={}, resource=nodes, subresource={})",
                        user.name, attributes.verb, attributes.subresource
                    );
                    tracing::warn!(error = %crate::chain(&err), "{message}");
                    return Err(text(StatusCode::INTERNAL_SERVER_ERROR, message));
                }
            }
        }
        let names: Vec<&str> = wanted.iter().map(|attributes| attributes.subresource).collect();
        let verb = wanted.first().map_or("", |attributes| attributes.verb);
        let message =
            format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n", user.name, names.join(" "));
        Err(text(StatusCode::FORBIDDEN, message))
    }

    async fn review(&self, token: &str) -> Result<Option<User>, kube::Error> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some((user, until)) = self.tokens.lock().get(&digest)
            && Instant::now() < *until
        {
            return Ok(user.clone());
        }
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = reviews.create(&PostParams::default(), &TokenReview { spec, ..TokenReview::default() }).await?;
        let status = review.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        // A refusal is not remembered: the token may be valid a moment later.
        if user.is_some() {
            remember(&mut self.tokens.lock(), digest, (user.clone(), Instant::now() + TOKEN_TTL));
        }
        Ok(user)
    }

    async fn access(&self, user: &User, attributes: &Attributes, node: &str) -> Result<bool, kube::Error> {
        let key = (user.clone(), attributes.clone());
        if let Some((allowed, until)) = self.verdicts.lock().get(&key)
            && Instant::now() < *until
        {
            return Ok(*allowed);
        }
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(attributes.verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(attributes.subresource.to_owned()),
                name: Some(node.to_owned()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let review = reviews.create(&PostParams::default(), &review).await?;
        let allowed = review.status.is_some_and(|status| status.allowed);
        let ttl = if allowed { ALLOWED_TTL } else { DENIED_TTL };
        remember(&mut self.verdicts.lock(), key, (allowed, Instant::now() + ttl));
        Ok(allowed)
    }
}

fn remember<K: std::hash::Hash + Eq, V>(known: &mut HashMap<K, (V, Instant)>, key: K, value: (V, Instant)) {
    if known.len() >= MOST {
        let now = Instant::now();
        known.retain(|_, (_, until)| now < *until);
        if known.len() >= MOST {
            known.clear();
        }
    }
    known.insert(key, value);
}

/// The user a verified client certificate names: common name and organizations.
pub fn user_of_certificate(certificate: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
    let mut groups: Vec<String> = groups.collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups, ..User::default() })
}

/// The permissions of which one is enough for a request, the narrowest first.
fn attributes(method: &Method, path: &str) -> Vec<Attributes> {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    let narrow = if below("/stats") {
        return vec![Attributes { verb, subresource: "stats" }];
    } else if below("/metrics") {
        return vec![Attributes { verb, subresource: "metrics" }];
    } else if below("/logs") {
        return vec![Attributes { verb, subresource: "log" }];
    } else if below("/pods") || below("/runningpods") {
        Some("pods")
    } else if below("/healthz") {
        Some("healthz")
    } else if below("/configz") {
        Some("configz")
    } else {
        None
    };
    narrow.into_iter().chain(["proxy"]).map(|subresource| Attributes { verb, subresource }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn paths_ask_for_permissions() {
        for (method, path, expected) in [
            (Method::GET, "/containerLogs/a/b/c", "get proxy"), (Method::POST, "/exec/a/b/c", "create proxy"),
            (Method::GET, "/metrics/resource", "get metrics"), (Method::GET, "/stats/summary", "get stats"),
            (Method::GET, "/logs/x", "get log"), (Method::GET, "/pods", "get pods, get proxy"),
            (Method::GET, "/healthz", "get healthz, get proxy"), (Method::GET, "/metricsx", "get proxy"),
        ] {
            let got: Vec<_> = attributes(&method, path).iter().map(|a| format!("{} {}", a.verb, a.subresource)).collect();
            assert_eq!(got.join(", "), expected, "{path}");
        }
    }
}
