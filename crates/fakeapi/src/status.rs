//! The failures the double answers with.

use kube::core::Status;

use crate::request::Target;

/// A failure with code, reason and message, for [`crate::FakeApi::fail`].
#[must_use]
pub fn failure(code: u16, reason: &str, message: &str) -> Status {
    Status::failure(message, reason).with_code(code)
}

/// 500 with a message.
#[must_use]
pub fn internal(message: &str) -> Status {
    failure(500, "InternalError", message)
}

pub(crate) fn not_found(target: &Target) -> Status {
    failure(404, "NotFound", &format!("{} {:?} not found", target.qualified(), target.name))
}

pub(crate) fn already_exists(target: &Target) -> Status {
    failure(409, "AlreadyExists", &format!("{} {:?} already exists", target.qualified(), target.name))
}

pub(crate) fn conflict(target: &Target, why: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on {} {:?}: {why}", target.qualified(), target.name);
    failure(409, "Conflict", &message)
}
