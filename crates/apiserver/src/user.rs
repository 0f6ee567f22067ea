//! Who makes a request, as authentication found out and authorization, admission and audit read it.

use std::collections::BTreeMap;

use corten_api::names;

/// `authentication.k8s.io/v1.UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Unique name among all active users.
    pub name: String,
    /// Unique over time; empty when the authenticator knows none.
    pub uid: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// What the authenticator adds, such as the node a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group of every request that proved who it is.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of requests without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

impl User {
    /// A user with a name and groups, and nothing else.
    #[must_use]
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..Self::default() }
    }

    /// `system:anonymous`, who made a request without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new("system:anonymous", &[UNAUTHENTICATED])
    }

    /// The server itself, for what it writes on its own account.
    #[must_use]
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", &[MASTERS, AUTHENTICATED])
    }

    /// Whether the user is a member of `group`.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The namespace and name of a service account user (`system:serviceaccount:NAMESPACE:NAME`).
    #[must_use]
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let is_one = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
        is_one.then_some((namespace, name))
    }
}
