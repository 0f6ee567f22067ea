//! Service account tokens: issuing, verifying, and the OIDC discovery documents that let others verify them.
//!
//! A token is bound to its ServiceAccount, and perhaps to a Pod, Node or Secret: it is good as long as these exist with the
//! same UID (KEP-1205, KEP-4193). That is looked up at every use; the signature is checked once and remembered.

mod keys;
mod legacy;
mod metrics;
mod oidc;
mod request;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use corten_api::field::quoted;

use crate::authn::{Extra, TokenUser};
use crate::cache::Entry;
use crate::certs::Certificates;
use crate::config::Config;
use crate::reader::Reader;
use crate::user::User;

use keys::{Signer, Verifier};
use metrics::TokenMetrics;

pub use oidc::serve;
pub(crate) use request::WARN_ONLY_EXPIRATION;
pub use request::create;

/// Keys and issuer of service account tokens.
pub struct Tokens {
    issuers: Vec<String>,
    api_audiences: Vec<String>,
    signer: Signer,
    verifiers: Vec<Verifier>,
    reader: Reader,
    /// Longest validity in seconds; 0 sets no limit.
    max_expiration: i64,
    /// Claims of tokens whose signature was found good, by the token's digest.
    known: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
    /// How tokens fared.
    pub metrics: TokenMetrics,
}

/// Why tokens cannot be issued or verified.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// A key file could not be read.
    #[error("{}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key file has no key that can be used.
    #[error("{} holds no RSA, P-256 or P-384 key in PEM", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
}

/// Why a token is no good. Only for logs and TokenReviews: a request just gets its 401.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No token of this issuer.
    #[error("invalid bearer token")]
    Foreign,
    /// The signature or the form is wrong.
    #[error("go-jose/go-jose: error in cryptographic primitive")]
    Signature(#[source] jsonwebtoken::errors::Error),
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not come.
    #[error("service account token is not valid yet")]
    NotYet,
    /// It is for others.
    #[error("token audiences {} is invalid for the target audiences {}", listed(token), listed(wanted))]
    Audience {
        /// Whom the token is for.
        token: Vec<String>,
        /// Whom it would have to be for.
        wanted: Vec<String>,
    },
    /// What it is bound to is gone.
    #[error("service account token has been invalidated")]
    Unbound,
    /// Its service account is not there.
    #[error("serviceaccounts {} not found", quoted(name))]
    NoAccount {
        /// Its name.
        name: String,
    },
    /// Its service account has been deleted for a while.
    #[error("service account {namespace}/{name} has been deleted")]
    AccountDeleted {
        /// Where it was.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// What it is bound to is another one of the same name.
    #[error("{kind} UID ({there}) does not match {of}claim ({claimed})")]
    Another {
        /// What it is bound to.
        kind: &'static str,
        /// Which claim says so.
        of: &'static str,
        /// The UID of what is there.
        there: String,
        /// The UID of what it was bound to.
        claimed: String,
    },
}

/// Texts as Go's `%q` prints a list of them.
fn listed(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// For whom a token has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audiences {
    /// The API itself.
    Api,
    /// One of these.
    Of(Vec<String>),
}

/// The claims of a token (KEP-1205).
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    aud: Vec<String>,
    exp: i64,
    #[serde(default)]
    iat: i64,
    iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Bound,
    #[serde(default)]
    nbf: i64,
    sub: String,
}

/// What a token is bound to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Bound {
    #[serde(default)]
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Ref>,
    #[serde(default)]
    serviceaccount: Ref,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ref {
    name: String,
    #[serde(default)]
    uid: String,
}

/// Clocks differ by as much (go-jose's default leeway, seconds).
const LEEWAY: i64 = 60;
/// Remembered signatures at most.
const KNOWN: usize = 4096;

impl Tokens {
    /// Reads the keys that the configuration names.
    ///
    /// # Errors
    /// When a key file cannot be read or has no key.
    pub fn new(config: &Config, certs: &Arc<Certificates>, reader: &Reader) -> Result<Self, TokensError> {
        let signing = config.service_account_signing_key_file.clone();
        let signing = signing.unwrap_or_else(|| certs.directory().join("sa.key"));
        let unusable = || TokensError::Key { path: signing.clone() };
        let signer = Signer::new(certs.service_account_key()).ok_or_else(unusable)?;
        let mut verifiers = Vec::new();
        for path in &config.service_account_key_file {
            let pem = std::fs::read_to_string(path).map_err(|source| TokensError::Read { path: path.clone(), source })?;
            let found = Verifier::all_of(&pem);
            if found.is_empty() {
                return Err(TokensError::Key { path: path.clone() });
            }
            verifiers.extend(found);
        }
        // Tokens signed here are good here, whatever else is.
        if !verifiers.iter().any(|verifier| verifier.id == signer.id) {
            verifiers.extend(Verifier::all_of(certs.service_account_key()));
        }
        let issuers = config.service_account_issuer.clone();
        let api_audiences = if config.api_audiences.is_empty() { issuers.clone() } else { config.api_audiences.clone() };
        let max_expiration = i64::try_from(config.service_account_max_token_expiration.as_secs()).unwrap_or(0);
        Ok(Self {
            issuers,
            api_audiences,
            signer,
            verifiers,
            reader: reader.clone(),
            max_expiration,
            known: Mutex::default(),
            metrics: TokenMetrics::new(),
        })
    }

    /// The audiences of the API itself.
    #[must_use]
    pub fn api_audiences(&self) -> &[String] {
        &self.api_audiences
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// Why it is no good for any of `audiences`.
    pub fn verify(&self, token: &str, audiences: &Audiences) -> Result<TokenUser, VerifyError> {
        let now = Timestamp::now().as_second();
        let Some(claims) = self.claims(token)? else {
            let user = legacy::user(token, &self.verifiers, &self.reader).ok_or(VerifyError::Foreign)?;
            self.metrics.legacy();
            let found = audiences.matching(&self.api_audiences);
            if found.is_empty() {
                return Err(VerifyError::Audience { token: Vec::new(), wanted: audiences.wanted(&self.api_audiences) });
            }
            return Ok(TokenUser { user, audiences: found });
        };
        let wanted = audiences.wanted(&self.api_audiences);
        let found: Vec<_> = wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if found.is_empty() {
            return Err(VerifyError::Audience { token: claims.aud.clone(), wanted });
        }
        if now > claims.exp + LEEWAY {
            return Err(VerifyError::Expired);
        }
        if now < claims.nbf - LEEWAY {
            return Err(VerifyError::NotYet);
        }
        self.check_bound(&claims.kubernetes, now)?;
        self.metrics.valid();
        Ok(TokenUser { user: claims.user(), audiences: found })
    }

    /// The claims of a token with a good signature; `None` when it is of another form.
    fn claims(&self, token: &str) -> Result<Option<Arc<Claims>>, VerifyError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.known.lock().get(&digest) {
            self.metrics.looked_up(true);
            return Ok(Some(known.clone()));
        }
        let Ok(claims) = jsonwebtoken::dangerous::insecure_decode::<Claims>(token) else { return Ok(None) };
        if !self.issuers.contains(&claims.claims.iss) {
            return Ok(None);
        }
        self.metrics.looked_up(false);
        keys::check(token, &self.verifiers).map_err(VerifyError::Signature)?;
        let claims = Arc::new(claims.claims);
        let mut known = self.known.lock();
        if known.len() >= KNOWN {
            known.clear(); // rare and cheap to fill again
        }
        known.insert(digest, claims.clone());
        Ok(Some(claims))
    }

    /// Everything the token is bound to must still be there.
    fn check_bound(&self, bound: &Bound, now: i64) -> Result<(), VerifyError> {
        let (namespace, account) = (bound.namespace.as_str(), &bound.serviceaccount);
        let name = account.name.clone();
        let found = self.reader.get("", "serviceaccounts", namespace, &name);
        let Some(found) = found else { return Err(VerifyError::NoAccount { name }) };
        let another = |kind, of, found: &Entry, claimed: &Ref| VerifyError::Another {
            kind,
            of,
            there: found.uid.to_string(),
            claimed: claimed.uid.clone(),
        };
        if *found.uid != *account.uid {
            return Err(another("service account", "", &found, account));
        }
        if is_gone(&found, now) {
            return Err(VerifyError::AccountDeleted { namespace: namespace.to_owned(), name });
        }
        let there = |resource: &str, namespace: &str, claimed: Option<&Ref>, kind, of| {
            let Some(claimed) = claimed else { return Ok(()) };
            match self.reader.get("", resource, namespace, &claimed.name) {
                Some(found) if *found.uid != *claimed.uid => Err(another(kind, of, &found, claimed)),
                Some(found) if !is_gone(&found, now) => Ok(()),
                _ => Err(VerifyError::Unbound),
            }
        };
        there("secrets", namespace, bound.secret.as_ref(), "secret", "service account secret ref ")?;
        there("pods", namespace, bound.pod.as_ref(), "pod", "service account pod ref ")?;
        // The node of a pod-bound token only tells where it is; a token bound to a node alone falls with it.
        let node = bound.node.as_ref().filter(|_| bound.pod.is_none());
        there("nodes", "", node, "node", "service account node ref ")
    }
}

/// Whether an object's deletion is over: it is told to go, and its grace (`deletionTimestamp`) has passed.
fn is_gone(entry: &Entry, now: i64) -> bool {
    entry.deleting
        && entry
            .decode()
            .pointer("/metadata/deletionTimestamp")
            .and_then(|at| at.as_str()?.parse::<Timestamp>().ok())
            .is_some_and(|at| at.as_second() < now - LEEWAY)
}

// === impl Audiences ===

impl Audiences {
    /// The API itself.
    #[must_use]
    pub const fn of_api() -> Self {
        Self::Api
    }

    /// One of these; the API itself when there are none.
    #[must_use]
    pub fn of(list: Vec<String>) -> Self {
        if list.is_empty() { Self::Api } else { Self::Of(list) }
    }

    /// Those of ours that are also the API's.
    #[must_use]
    pub fn matching(&self, api: &[String]) -> Vec<String> {
        match self {
            Self::Api => api.to_vec(),
            Self::Of(list) => list.iter().filter(|audience| api.contains(audience)).cloned().collect(),
        }
    }

    fn wanted(&self, api: &[String]) -> Vec<String> {
        match self {
            Self::Api => api.to_vec(),
            Self::Of(list) => list.clone(),
        }
    }
}

// === impl Claims ===

impl Claims {
    fn user(&self) -> User {
        let bound = &self.kubernetes;
        let mut extra = Extra::new();
        let mut set = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if !self.jti.is_empty() {
            set("credential-id", &format!("JTI={}", self.jti));
        }
        if let Some(pod) = &bound.pod {
            set("pod-name", &pod.name);
            set("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            set("node-name", &node.name);
            set("node-uid", &node.uid);
        }
        service_account_user(&bound.namespace, &bound.serviceaccount.name, &bound.serviceaccount.uid, extra)
    }
}

/// The user that a service account is.
pub(crate) fn service_account_user(namespace: &str, name: &str, uid: &str, extra: Extra) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: service_account_groups(namespace),
        extra,
    }
}

/// The groups of every service account of a namespace.
pub(crate) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// `aud` may be one string (RFC 7519, section 4.1.3).
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::One(one) => vec![one],
        Form::Many(many) => many,
    })
}
