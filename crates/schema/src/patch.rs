//! The patch kinds of the API: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and strategic merge patch.
//!
//! A body is read once ([`Patch::read`]) and may then be applied to several states of an object, as a retried update does.
//! What the reference API server takes or refuses is decided by the libraries it uses, so their particularities (a path
//! without a leading slash, negative indices, replacing a member that is absent) are kept.

use corten_api::facts::Type;
use corten_api::field::{Faults, Path};
use corten_api::status::Status;
use serde_json::Value;

use crate::decode::{self, FieldValidation, Format};

mod json;
mod merge;
mod show;
mod strategic;

pub use show::go_value;

/// Most operations in one JSON Patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the `copy` operations of one JSON Patch may make, in all.
pub const MAX_COPIED: usize = 3 * 1024 * 1024;

/// What kind of patch a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

/// A patch that has been read.
#[derive(Clone, Debug)]
pub struct Patch {
    body: Body,
    /// Doubled fields in the body, in upstream's words. They come before the faults of the patched object when both are
    /// reported.
    pub strict: Vec<String>,
}

impl Patch {
    /// Whether upstream converts the patched document instead of decoding it: [`decode::convert`].
    #[must_use]
    pub fn is_converted(&self) -> bool {
        matches!(self.body, Body::Strategic(_))
    }
}

#[derive(Clone, Debug)]
enum Body {
    Json(Vec<json::Operation>),
    Merge(Value),
    Strategic(serde_json::Map<String, Value>),
}

/// Why a patch is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch cannot be read. 400.
    #[error("{0}")]
    BadRequest(String),
    /// The patch has too many operations. 413.
    #[error("{0}")]
    TooLarge(String),
    /// The patch does not fit the object. 422, and the text stays in the log.
    #[error("{0}")]
    Unprocessable(String),
    /// The patch contradicts the type's merge keys or has an unknown directive. 500 with the text as it is.
    #[error("{0}")]
    Strategic(String),
}

// === impl Patch ===

impl Patch {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`PatchError::BadRequest`] and [`PatchError::TooLarge`].
    pub fn read(kind: PatchKind, bytes: &[u8], validation: FieldValidation) -> Result<Self, PatchError> {
        let checked = validation != FieldValidation::Ignore;
        match kind {
            PatchKind::Json => {
                let (operations, strict) = json::read(bytes).map_err(|err| unchecked(checked, bytes, err))?;
                Ok(Self { body: Body::Json(operations), strict: if checked { strict } else { Vec::new() } })
            }
            PatchKind::Merge => {
                let decoded = decode::decode_as_written(bytes);
                let decoded = decoded.map_err(|err| PatchError::BadRequest(format!("error decoding patch: {err}")));
                let decoded =
                    decoded.map_err(|err| if checked { err } else { PatchError::BadRequest("Invalid JSON Patch".into()) })?;
                if decoded.document.is_null() {
                    return Err(PatchError::BadRequest("Invalid JSON Patch".into()));
                }
                not_a_map(&decoded.document)
                    .map_or(Ok(()), |err| Err(PatchError::BadRequest(format!("error decoding patch: {err}"))))?;
                Ok(Self { body: Body::Merge(decoded.document), strict: if checked { decoded.strict } else { Vec::new() } })
            }
            PatchKind::Strategic => {
                let decoded = decode::decode_any(bytes, Format::Json);
                let decoded = decoded.map_err(|err| PatchError::BadRequest(err.to_string()))?;
                if let Some(err) = not_a_map(&decoded.document) {
                    return Err(PatchError::BadRequest(err));
                }
                let strict = if checked { decoded.strict } else { Vec::new() };
                let map = match decoded.document {
                    Value::Object(map) => map,
                    _ => serde_json::Map::new(),
                };
                Ok(Self { body: Body::Strategic(map), strict })
            }
        }
    }

    /// The patched document, which has still to be normalized: a patch may put anything anywhere. `ty` is the document's
    /// type and only needed by strategic merge patches.
    ///
    /// # Errors
    ///
    /// [`PatchError`]; a strategic merge patch without a type is a bad request, since custom resources do not support it.
    pub fn apply(&self, document: &Value, ty: Option<&Type>) -> Result<Value, PatchError> {
        match &self.body {
            Body::Json(operations) => json::apply(document.clone(), operations),
            Body::Merge(patch) => Ok(merge::apply(document.clone(), patch)),
            Body::Strategic(patch) => {
                let ty = ty.ok_or_else(|| PatchError::BadRequest("strategic merge patch format is not supported".into()))?;
                strategic::apply(document, patch.clone(), ty)
            }
        }
    }

    /// Whether it is a strategic merge patch.
    #[must_use]
    pub fn is_strategic(&self) -> bool {
        matches!(self.body, Body::Strategic(_))
    }

    /// Whether the patch may look at or change managed fields. When it does not, they may be in any form: see
    /// [`crate::apply::unfold`].
    #[must_use]
    pub fn concerns_managed_fields(&self) -> bool {
        let names = |metadata: Option<&Value>| metadata.is_some_and(|metadata| metadata.get("managedFields").is_some());
        match &self.body {
            Body::Json(operations) => !operations.iter().all(json::Operation::is_aside),
            Body::Merge(patch) => names(patch.get("metadata")),
            Body::Strategic(patch) => names(patch.get("metadata")),
        }
    }

    /// Whether the patch does nothing but set and remove labels and annotations whose names are not in the domains of Kubernetes,
    /// which mean nothing to it. To apply it takes no more of an object than its metadata.
    #[must_use]
    pub fn relabels(&self) -> bool {
        self.strict.is_empty()
            && match &self.body {
                Body::Json(operations) => operations.iter().all(json::Operation::relabels),
                Body::Merge(Value::Object(patch)) | Body::Strategic(patch) => {
                    patch.iter().all(|(name, change)| name == "metadata" && relabels(change))
                }
                Body::Merge(_) => false,
            }
    }

    /// The answer when the patched document cannot be decoded, or only with faults and the request is strict: 422 with
    /// `patch` as the field. `patched` is the document after [`Patch::apply`], `ty` its type.
    #[must_use]
    pub fn invalid(&self, patched: &Value, ty: Option<&Type>, fault: &str) -> Status {
        let mut faults = Faults::default();
        faults.invalid_str(&Path::new("patch"), &self.shown(patched, ty), fault);
        Status::invalid("", "", "", &faults)
    }

    fn shown(&self, patched: &Value, ty: Option<&Type>) -> String {
        match &self.body {
            Body::Json(operations) => show::document(patched, ty, &json::touched(operations)),
            Body::Merge(patch) => show::document(patched, ty, &merge::touched(patch)),
            Body::Strategic(patch) => go_value(&Value::Object(patch.clone())),
        }
    }
}

/// Whether a change of metadata is about labels and annotations that mean nothing to Kubernetes.
fn relabels(metadata: &Value) -> bool {
    let texts = |change: &Value| {
        let set = |(name, value): (&String, &Value)| is_foreign(name) && (value.is_string() || value.is_null());
        change.as_object().is_some_and(|change| change.iter().all(set))
    };
    let is_one = |(name, change): (&String, &Value)| is_labels(name) && texts(change);
    metadata.as_object().is_some_and(|metadata| metadata.iter().all(is_one))
}

/// Whether a field of the metadata is one of the two.
fn is_labels(field: &str) -> bool {
    matches!(field, "labels" | "annotations")
}

/// Whether the name of a label or an annotation is in none of the domains that Kubernetes keeps for itself, and is no directive
/// of a strategic merge patch.
fn is_foreign(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    let is_own = |own: &str| domain.strip_suffix(own).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'));
    !is_own("kubernetes.io") && !is_own("k8s.io") && !name.starts_with('$')
}

/// Without a check of its fields a JSON Patch is read by another library, whose words come as they are.
fn unchecked(checked: bool, bytes: &[u8], err: PatchError) -> PatchError {
    match err {
        PatchError::BadRequest(text) if !checked && bytes.trim_ascii().is_empty() => {
            PatchError::BadRequest(text.trim_start_matches("error decoding patch: ").into())
        }
        err => err,
    }
}

/// What Go's decoder says of a body that is no object; `null` is taken for an empty one.
fn not_a_map(document: &Value) -> Option<String> {
    let kind = match document {
        Value::Object(_) | Value::Null => return None,
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Some(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
}

// === impl PatchError ===

impl From<PatchError> for Status {
    fn from(err: PatchError) -> Self {
        match err {
            PatchError::BadRequest(text) => Self::bad_request(text),
            PatchError::TooLarge(text) => {
                Self::failure(413, "RequestEntityTooLarge", format!("Request entity too large: {text}"))
            }
            PatchError::Unprocessable(_) => {
                let text = "the server rejected our request due to an error in our request";
                Self::failure(422, "Invalid", text).about("", "", "").because(err)
            }
            PatchError::Strategic(text) => Self::failure(500, "", text),
        }
    }
}

#[cfg(test)]
mod tests;
