//! From bytes to a document in the form the reference API server would have after decoding into its Go struct and encoding
//! again: unknown fields dropped, quantities and times canonical, zero values dropped or written as the struct tags say.
//!
//! Upstream decodes with a fork of Go's `encoding/json` that is case sensitive. Its texts are part of the API (clients see
//! them in Status messages), so the scanner here speaks Go's words. One pass over the bytes builds the document.

use corten_api::facts::Type;
use serde_json::Value;

mod changed;
mod convert;
pub(crate) mod fields;
pub(crate) mod go;
mod scan;
mod text;
mod typed;
mod untyped;
mod yaml;

pub use changed::Changed;
pub use yaml::to_json as yaml_to_json;

/// Deepest nesting that is read. Upstream reads 10,000 levels; other JSON readers of this program stop at 128, and
/// an object that can be written but not read back would be worse than one that is refused.
pub const MAX_DEPTH: usize = 120;

/// Most faults of strict decoding that are reported.
const MAX_STRICT: usize = 100;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// A document and what is questionable about its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The document.
    pub document: Value,
    /// Unknown and duplicate fields, such as `unknown field "spec.bogus"`, in upstream's words and order. What becomes of them
    /// is told by the request's `fieldValidation`: see [`FieldValidation`].
    pub strict: Vec<String>,
}

/// What to do about unknown and duplicate fields (`?fieldValidation=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them with a `Warning` header each. The default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Why bytes are no document, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not JSON.
    #[error("{0}")]
    Syntax(String),
    /// The bytes are not YAML.
    #[error("{0}")]
    Yaml(String),
    /// A value has a wrong type or cannot be read as what it should be.
    #[error("{0}")]
    Value(String),
    /// A value has a type that does not fit.
    #[error("{told}")]
    Mismatch {
        /// In the words of the decoder of bodies.
        told: String,
        /// In the words of the converter of patched and applied objects.
        converted: String,
    },
    /// The kind and version cannot be found.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Meta(String),
}

/// `kind` and `apiVersion` of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// Such as `apps/v1`; empty when absent.
    pub api_version: String,
    /// Such as `Deployment`; empty when absent.
    pub kind: String,
}

/// Reads a body as a document of a built-in type.
///
/// # Errors
///
/// [`DecodeError`]; its text is what upstream appends to `… cannot be handled as a …: `.
pub fn decode(bytes: &[u8], format: Format, ty: &Type) -> Result<Decoded, DecodeError> {
    match format {
        Format::Json => typed::document(bytes, ty, false),
        Format::Yaml => through_json(bytes, |json| typed::document(json, ty, false)),
    }
}

/// [`decode`] for an object that is to be written: the empty lists that were sent are kept, for defaults and validation that tell
/// them from nothing. [`settle`] drops them.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_as_sent(bytes: &[u8], format: Format, ty: &Type) -> Result<Decoded, DecodeError> {
    match format {
        Format::Json => typed::document(bytes, ty, true),
        Format::Yaml => through_json(bytes, |json| typed::document(json, ty, true)),
    }
}

/// [`normalize`], but empty lists are kept.
///
/// # Errors
///
/// As [`decode`].
pub fn normalize_as_sent(document: &Value, ty: &Type) -> Result<Decoded, DecodeError> {
    typed::document(&crate::encode::json(document), ty, true)
}

/// [`normalize_as_sent`] of a document that was made of `live`, which has that form already: only what differs is read, so a
/// patch of one annotation costs no more than that.
///
/// # Errors
///
/// As [`decode`].
pub fn normalize_changed(live: &Value, document: &Value, ty: &Type) -> Result<Changed, DecodeError> {
    changed::read(live, document, ty)
}

/// Does to a document that does not fit its type what upstream's converter does, which reads strategic merge patches and applied
/// configurations: numbers are cut to the bits of their fields. The outcome has still to be normalized.
///
/// # Errors
///
/// The first value that does not fit.
pub fn convert(document: &mut Value, ty: &Type) -> Result<(), DecodeError> {
    match document {
        Value::Object(map) => convert::structure(map, ty),
        _ => Ok(()),
    }
}

/// Gives the empty lists of a document the form they have once stored: absent, or null where the encoder always writes the field.
pub fn settle(document: &mut Value, ty: &Type) {
    if let Value::Object(map) = document {
        fields::settle(map, ty, false);
    }
}

/// Drops the empty lists that the encoder leaves out, and keeps the others: what a writer of the document owns.
pub fn drop_unwritten(document: &mut Value, ty: &Type) {
    if let Value::Object(map) = document {
        fields::settle(map, ty, true);
    }
}

/// Whether there is an empty list anywhere in a document.
#[must_use]
pub fn has_empty_list(document: &Value) -> bool {
    fields::has_empty_list(document)
}

/// Reads a body as a document of a custom resource: everything is kept but object metadata, which has the built-in shape.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_custom(bytes: &[u8], format: Format) -> Result<Decoded, DecodeError> {
    match format {
        Format::Json => typed::custom(bytes),
        Format::Yaml => through_json(bytes, typed::custom),
    }
}

/// Reads a body as it is, without any type: for patches and for embedded documents. Integers stay integers; of duplicate
/// fields the last one wins, and they are reported.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_any(bytes: &[u8], format: Format) -> Result<Decoded, DecodeError> {
    match format {
        Format::Json => untyped::document(bytes),
        Format::Yaml => through_json(bytes, untyped::document),
    }
}

/// [`decode_any`] of JSON whose numbers keep their form: `1.0` stays a double, which no field of an integer takes.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_as_written(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    untyped::as_written(bytes)
}

/// Gives a document the form that [`decode`] would have given it: after a patch, or when a default was filled in by hand.
///
/// # Errors
///
/// As [`decode`].
pub fn normalize(document: &Value, ty: &Type) -> Result<Decoded, DecodeError> {
    typed::document(&crate::encode::json(document), ty, false)
}

/// [`normalize`] for custom resources: only object metadata changes.
///
/// # Errors
///
/// As [`decode`].
pub fn normalize_custom(document: &Value) -> Result<Decoded, DecodeError> {
    typed::custom(&crate::encode::json(document))
}

/// What the encoder writes for a type when nothing is set: the form of `metadata: {}` and the like.
#[must_use]
pub fn zero(ty: &Type) -> Value {
    Value::Object(fields::zero_struct(ty))
}

/// Reads only the kind and version of a body.
///
/// # Errors
///
/// [`DecodeError::Meta`] when it is no JSON object, with upstream's text; [`DecodeError::Yaml`] when it is no YAML.
pub fn type_meta(bytes: &[u8], format: Format) -> Result<TypeMeta, DecodeError> {
    match format {
        Format::Json => untyped::type_meta(bytes),
        Format::Yaml => untyped::type_meta(&yaml::to_json(bytes)?.json),
    }
}

/// Whether a plain scalar of YAML is text, and not a number, boolean or null.
pub(crate) fn reads_as_text(text: &str) -> bool {
    yaml::reads_as_text(text)
}

/// The beginning of a body, as upstream shows it behind "the object provided is unrecognized": text when it is text,
/// otherwise hexadecimal.
#[must_use]
pub fn summary(bytes: &[u8]) -> String {
    text::summary(bytes)
}

impl DecodeError {
    /// What upstream says of an object that it made of a strategic merge patch or an applied configuration: those are not
    /// decoded but converted.
    #[must_use]
    pub fn converted(&self) -> String {
        match self {
            Self::Mismatch { converted, .. } => converted.clone(),
            Self::Value(told) if told.starts_with("illegal base64") => format!("error decoding from json: {told}"),
            other => other.to_string(),
        }
    }
}

impl FieldValidation {
    /// The value of the query parameter; empty is the default.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "Ignore" => Self::Ignore,
            "" | "Warn" => Self::Warn,
            "Strict" => Self::Strict,
            _ => return None,
        })
    }
}

impl Decoded {
    /// `strict decoding error: unknown field "spec.bogus", …`, or nothing when there is nothing to complain about.
    #[must_use]
    pub fn strict_error(&self) -> Option<String> {
        (!self.strict.is_empty()).then(|| format!("strict decoding error: {}", self.strict.join(", ")))
    }
}

fn through_json(bytes: &[u8], read: impl FnOnce(&[u8]) -> Result<Decoded, DecodeError>) -> Result<Decoded, DecodeError> {
    let converted = yaml::to_json(bytes)?;
    let mut decoded = read(&converted.json)?;
    if let Some(duplicates) = converted.duplicates {
        decoded.strict.insert(0, duplicates);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
