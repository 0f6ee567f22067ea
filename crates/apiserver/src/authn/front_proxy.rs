//! The front proxy (an aggregator before this server) names the user in headers; its certificate proves that it may.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::certificate::{self, Verifier};
use super::{AuthnError, Extra};
use crate::config::Config;
use crate::user::User;

/// Who may name users, and in which headers.
pub(super) struct FrontProxy {
    verifier: Verifier,
    /// Common names of certificates; any when empty.
    allowed: Vec<String>,
    users: Vec<HeaderName>,
    uids: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// In lower case.
    extras: Vec<String>,
}

impl FrontProxy {
    pub(super) fn new(config: &Config, roots: &Arc<RootCertStore>) -> Result<Self, AuthnError> {
        let names = |given: &[String]| given.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Self {
            verifier: Verifier::new(roots)?,
            allowed: config.requestheader_allowed_names.clone(),
            users: names(&config.requestheader_username_headers),
            uids: names(&config.requestheader_uid_headers),
            groups: names(&config.requestheader_group_headers),
            extras: config.requestheader_extra_headers_prefix.iter().map(|prefix| prefix.to_ascii_lowercase()).collect(),
        })
    }

    /// The user that the headers name, if they do and the connection is that of a proxy that may.
    pub(super) fn user(&self, headers: &HeaderMap, chain: &[CertificateDer<'static>]) -> Option<User> {
        let user = self.named(headers)?;
        let is_allowed = || {
            let name = chain.first().and_then(|own| certificate::common_name(own));
            self.allowed.is_empty() || name.is_some_and(|name| self.allowed.contains(&name))
        };
        (self.verifier.accepts(chain) && is_allowed()).then_some(user)
    }

    fn named(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[HeaderName]| {
            let mut values = names.iter().filter_map(|name| headers.get(name)?.to_str().ok());
            values.find(|value| !value.is_empty()).map(str::to_owned)
        };
        let name = first(&self.users)?;
        let mut extra = Extra::new();
        for (name, value) in headers {
            let key = self.extras.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                extra.entry(crate::request::unescape(key, false)).or_default().push(value.to_owned());
            }
        }
        let groups = self.groups.iter().flat_map(|name| headers.get_all(name)).filter_map(|value| value.to_str().ok());
        Some(User { name, uid: first(&self.uids).unwrap_or_default(), groups: groups.map(str::to_owned).collect(), extra })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn headers_name_users_as_the_flags_say() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(directory.path());
        config.requestheader_username_headers = vec!["X-User".into(), "X-Remote-User".into()];
        config.requestheader_extra_headers_prefix = vec!["X-More-".into()];
        let certs = crate::certs::Certificates::open(&config, &corten_task::Tasks::root("test")).unwrap();
        let proxy = FrontProxy::new(&config, certs.front_proxy_roots()).unwrap();
        let named = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let headers: HeaderMap = pairs.collect();
            assert!(proxy.user(&headers, &[]).is_none(), "there is no certificate");
            proxy.named(&headers).map(|user| (user.name, user.groups.join(","), user.extra.len()))
        };
        assert_eq!(named(&[("x-remote-group", "a")]), None);
        let all =
            [("x-user", ""), ("x-remote-user", "eve"), ("x-remote-group", "a"), ("x-more-scope", "b"), ("x-remote-extra-c", "d")];
        assert_eq!(named(&all), Some(("eve".into(), "a".into(), 1)));
    }
}
