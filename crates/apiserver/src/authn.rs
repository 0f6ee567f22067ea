//! Authentication: who makes a request. Client certificates, the front proxy's headers, static tokens, bootstrap tokens,
//! service account tokens; without credentials the anonymous user.
//!
//! Credentials that are there and wrong are refused (401), also where an anonymous request would be let in.

mod bootstrap_token;
mod certificate;
mod front_proxy;
mod static_tokens;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use rustls::pki_types::CertificateDer;

use corten_api::status::Status;

use crate::certs::Certificates;
use crate::config::Config;
use crate::proof::Authenticated;
use crate::reader::Reader;
use crate::tokens::{Audiences, Tokens, VerifyError};
use crate::user::{AUTHENTICATED, UNAUTHENTICATED, User};

use front_proxy::FrontProxy;
use static_tokens::StaticTokens;

/// Where a request came from.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Address of the client; none for the in-process service.
    pub address: Option<std::net::SocketAddr>,
    /// The certificates it presented, its own first. The handshake proved that it has the key; nothing else is checked yet.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Finds out who a request is from.
pub struct Authenticator {
    anonymous: bool,
    certificates: certificate::Verifier,
    front_proxy: FrontProxy,
    static_tokens: StaticTokens,
    tokens: Arc<Tokens>,
    reader: Reader,
}

/// Why authentication could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// A file could not be read.
    #[error("{}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of the token file has too few columns or no token.
    #[error("{}:{line}: expected token,user,uid and optionally \"group1,group2\"", path.display())]
    TokenLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The CAs are of no use.
    #[error("use the client CAs")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

/// A token that was found good: whose it is, and for which audiences of those asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    /// Whose it is, with all groups.
    pub user: User,
    /// Audiences it is good for.
    pub audiences: Vec<String>,
}

impl Authenticator {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub fn new(config: &Config, certs: &Arc<Certificates>, tokens: &Arc<Tokens>, reader: &Reader) -> Result<Self, AuthnError> {
        let static_tokens = match &config.token_auth_file {
            Some(path) => StaticTokens::read(path)?,
            None => StaticTokens::default(),
        };
        Ok(Self {
            anonymous: config.anonymous_auth,
            certificates: certificate::Verifier::new(certs.client_roots())?,
            front_proxy: FrontProxy::new(config, certs.front_proxy_roots())?,
            static_tokens,
            tokens: tokens.clone(),
            reader: reader.clone(),
        })
    }

    /// Who sent these headers over this connection; 401 when credentials are wrong, or absent and needed.
    ///
    /// # Errors
    /// 401 in upstream's words; why is only in the log.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Authenticated, Status> {
        let user = self.user_of(headers, peer).ok_or_else(Status::unauthorized)?;
        Ok(Authenticated::new(user))
    }

    fn user_of(&self, headers: &HeaderMap, peer: &Peer) -> Option<User> {
        if let Some(user) = self.front_proxy.user(headers, &peer.certificates) {
            return Some(with_group(user));
        }
        // A certificate and a token may come together: either is enough (upstream's union).
        if let Some(user) = self.certificates.user(&peer.certificates) {
            return Some(with_group(user));
        }
        match bearer_token(headers) {
            Some(token) => self.token(&token, &Audiences::of_api()).ok().map(|found| found.user),
            // A certificate that is no good is a credential that is wrong.
            None => (self.anonymous && peer.certificates.is_empty()).then(User::anonymous),
        }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// Why it is no good for any of `audiences`.
    pub fn token(&self, token: &str, audiences: &Audiences) -> Result<TokenUser, VerifyError> {
        let api = self.tokens.api_audiences();
        // Tokens that name no audience are good for the API only.
        let for_api = audiences.matching(api);
        if let Some(user) = self.static_tokens.user(token) {
            let found = || TokenUser { user: with_group(user.clone()), audiences: for_api.clone() };
            return (!for_api.is_empty()).then(found).ok_or(VerifyError::Foreign);
        }
        if let Some(user) = bootstrap_token::user(token, &self.reader) {
            let found = || TokenUser { user: with_group(user), audiences: for_api.clone() };
            return (!for_api.is_empty()).then(found).ok_or(VerifyError::Foreign);
        }
        match self.tokens.verify(token, audiences) {
            Ok(found) => Ok(TokenUser { user: with_group(found.user), audiences: found.audiences }),
            Err(err) => {
                tracing::debug!(error = %err, "a bearer token was refused");
                Err(err)
            }
        }
    }
}

/// Adds `system:authenticated`, unless the credentials are those of an anonymous user.
fn with_group(mut user: User) -> User {
    if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

/// The token of `Authorization: Bearer TOKEN`, or of the WebSocket subprotocol that browsers use instead.
fn bearer_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return websocket_token(headers) };
    let (token, _) = token_and_rest(value)?;
    (!token.is_empty()).then_some(Cow::Borrowed(token))
}

/// The token of an `Authorization` header, up to the next space, and whether there is one.
fn token_and_rest(value: &HeaderValue) -> Option<(&str, bool)> {
    let mut parts = value.to_str().ok()?.trim().splitn(3, ' ');
    let scheme = parts.next()?;
    let token = parts.next()?;
    scheme.eq_ignore_ascii_case("bearer").then_some((token, parts.next().is_some()))
}

/// What the sender of these headers should know of its credentials.
pub(crate) fn warning(headers: &HeaderMap) -> Option<&'static str> {
    let spaced = token_and_rest(headers.get(header::AUTHORIZATION)?) == Some(("", true));
    spaced.then_some("the provided Authorization header contains extra space before the bearer token, and is ignored")
}

fn websocket_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut protocols = protocols.flat_map(|list| list.split(',')).map(str::trim);
    let encoded = protocols.find_map(|protocol| protocol.strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    let token = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    Some(Cow::Owned(String::from_utf8(token).ok()?))
}

/// Extra attributes, in the form a [`User`] has them.
pub(crate) type Extra = BTreeMap<String, Vec<String>>;

#[cfg(test)]
mod tests;
