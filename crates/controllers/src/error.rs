//! Why a reconcile failed: a request that the API server did not grant. What to do about it is the same everywhere:
//! the work queue retries with a growing delay.

use std::fmt::Display;

/// A failed reconcile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A request failed.
    #[error("{verb} {what}")]
    Api {
        /// What was tried, as a verb.
        verb: &'static str,
        /// On what.
        what: String,
        /// The server's answer, or why there is none.
        source: Box<kube::Error>,
    },
    /// The object cannot be acted on as it is; a change of it will wake us.
    #[error("{0}")]
    Invalid(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Says what a request was for.
pub(crate) trait During<T> {
    /// `delete pod default/web: ...`
    fn during(self, verb: &'static str, what: impl Display) -> Result<T>;
}

impl<T> During<T> for kube::Result<T> {
    fn during(self, verb: &'static str, what: impl Display) -> Result<T> {
        self.map_err(|source| Error::Api { verb, what: what.to_string(), source: Box::new(source) })
    }
}

/// Takes "not found" for done: what should go is gone, what should change cannot any more.
pub(crate) fn gone_is_fine<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(err) => Err(err),
    }
}

/// Takes "already exists" for done.
pub(crate) fn exists_is_fine<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(err) => Err(err),
    }
}

/// Whether a creation failed because its namespace is going away: nothing to say and nothing to retry.
pub(crate) fn is_namespace_terminating(err: &kube::Error) -> bool {
    let kube::Error::Api(status) = err else { return false };
    status.is_forbidden()
        && status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}

/// The server's message, which is what events quote.
pub(crate) fn message(err: &kube::Error) -> String {
    match err {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
