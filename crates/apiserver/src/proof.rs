//! What the steps of the pipeline return: values that only the step itself can make, so that a handler that takes one
//! cannot run without it. `Authenticated` -> `Authorized` -> `Admitted`.

use crate::request::RequestInfo;
use crate::user::User;

/// Somebody made this request, and we know who.
#[derive(Clone, Debug)]
pub struct Authenticated {
    user: User,
    impersonator: Option<User>,
    constraint: Option<&'static str>,
}

impl Authenticated {
    /// Only authentication and the in-process service, which is given an identity by its owner, make one.
    pub(crate) fn new(user: User) -> Self {
        Self { user, impersonator: None, constraint: None }
    }

    /// The same request in the name of somebody else; only impersonation makes one.
    pub(crate) fn impersonate(self, user: User, constraint: Option<&'static str>) -> Self {
        Self { user, impersonator: Some(self.impersonator.unwrap_or(self.user)), constraint }
    }

    /// In whose name the request acts.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The verb by which the sender may act as the user, when it is one of constrained impersonation.
    #[must_use]
    pub fn constraint(&self) -> Option<&'static str> {
        self.constraint
    }

    /// Who really sent it, when that is somebody else.
    #[must_use]
    pub fn impersonator(&self) -> Option<&User> {
        self.impersonator.as_ref()
    }
}

/// This user may make this request. Holds both, so that neither is exchanged afterwards.
#[derive(Clone, Debug)]
pub struct Authorized {
    who: Authenticated,
    info: RequestInfo,
    reason: String,
}

impl Authorized {
    /// Only the authorizer makes one.
    pub(crate) fn new(who: Authenticated, info: RequestInfo, reason: String) -> Self {
        Self { who, info, reason }
    }

    /// In whose name the request acts.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.who.user
    }

    /// Who was authenticated.
    #[must_use]
    pub fn authenticated(&self) -> &Authenticated {
        &self.who
    }

    /// What was asked for.
    #[must_use]
    pub fn info(&self) -> &RequestInfo {
        &self.info
    }

    /// Which rule allowed it, for audit.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Every admission plugin has seen this object in its final form and agreed.
#[derive(Clone, Debug)]
#[must_use]
pub struct Admitted(());

impl Admitted {
    /// Only the admission chain makes one.
    pub(crate) fn new() -> Self {
        Self(())
    }
}
