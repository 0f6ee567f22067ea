//! `Status`: the one error every client sees (API conventions, "Response Status Kind"). This is the place where an
//! error becomes HTTP: a code, a reason, a message and its details.

use serde::{Deserialize, Serialize};

use crate::field::{Faults, quoted};

/// A `v1.Status`, failure or success. `because` is for the log, never for the client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// HTTP code.
    #[serde(default)]
    pub code: u16,
    /// Machine-readable reason, empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `Failure` or `Success`.
    #[serde(default)]
    pub status: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// List metadata, always present and empty.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Why, for the request log.
    #[serde(skip)]
    pub because: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

/// `v1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource (or kind, for invalid objects).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One entry a fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which a retry may help; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

/// `v1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Reason of the cause.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Field path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl Status {
    /// A failure with the given code, reason and message, and no details.
    #[must_use]
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), status: "Failure".into(), ..Self::default() }
    }

    /// 404 `pods "x" not found`
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let qualified = qualified(group, resource);
        Self::failure(404, "NotFound", format!("{qualified} {} not found", quoted(name))).about(group, resource, name)
    }

    /// 409 `pods "x" already exists`
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let qualified = qualified(group, resource);
        Self::failure(409, "AlreadyExists", format!("{qualified} {} already exists", quoted(name))).about(group, resource, name)
    }

    /// 409 `Operation cannot be fulfilled on pods "x": why`
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = qualified(group, resource);
        Self::failure(409, "Conflict", format!("Operation cannot be fulfilled on {qualified} {}: {why}", quoted(name)))
            .about(group, resource, name)
    }

    /// 403 `pods "x" is forbidden: why`
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = qualified(group, resource);
        let message = if resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{qualified} is forbidden: {why}")
        } else {
            format!("{qualified} {} is forbidden: {why}", quoted(name))
        };
        Self::failure(403, "Forbidden", message).about(group, resource, name)
    }

    /// 400 with the message as it is.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 401
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 422 `Pod "x" is invalid: faults`, one cause a fault.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, faults: &Faults) -> Self {
        let kind_shown = qualified(group, kind);
        let message = match faults.0.len() {
            0 => format!("{kind_shown} {} is invalid", quoted(name)),
            _ => format!("{kind_shown} {} is invalid: {}", quoted(name), faults.aggregate()),
        };
        let causes = faults
            .0
            .iter()
            .map(|f| Cause { reason: f.kind.reason().into(), message: f.message.clone(), field: f.field.clone() })
            .collect();
        let mut status = Self::failure(422, "Invalid", message).about(group, kind, name);
        status.details.get_or_insert_default().causes = causes;
        status
    }

    /// 500 with a message for the client.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut status = Self::failure(500, "InternalError", format!("Internal error occurred: {message}"));
        status.details = Some(Details { causes: vec![Cause { message, ..Cause::default() }], ..Details::default() });
        status
    }

    /// 410 `Expired`
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// Sets what the status is about.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = group.into();
        details.kind = kind.into();
        details.name = name.into();
        self
    }

    /// Keeps the cause for the request log.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.because = Some(std::sync::Arc::new(source));
        self
    }

    /// The document as it is sent, with `kind` and `apiVersion`.
    #[must_use]
    pub fn to_document(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("kind".into(), "Status".into());
            map.insert("apiVersion".into(), "v1".into());
        }
        value
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.because.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

/// `deployments.apps`, or `pods` in the core group.
#[must_use]
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.into() } else { format!("{resource}.{group}") }
}
