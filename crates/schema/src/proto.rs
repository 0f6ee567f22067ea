//! The protobuf form of built-in kinds (`application/vnd.kubernetes.protobuf`), driven by the field numbers in the table of
//! types: no generated code, and one pass from document to bytes and back.
//!
//! An object on the wire is `k8s\0` and a `runtime.Unknown` that names its kind and carries its message.

use corten_api::facts::Type;
use serde_json::{Map, Value};

pub mod openapi;
mod read;
mod wire;
mod write;

use wire::{Reader, Writer};

/// What every protobuf body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are no object, or a document no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    /// There are no bytes.
    #[error("empty data")]
    Empty,
    /// The bytes do not begin with `k8s\0`.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// Nothing follows `k8s\0`.
    #[error("empty body")]
    EmptyBody,
    /// The bytes end in the middle of a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A field has a number, wire type or length that cannot be.
    #[error("proto: illegal field in {message}")]
    Illegal {
        /// Where it was found.
        message: &'static str,
    },
    /// Messages are nested deeper than any type of the API.
    #[error("proto: exceeded max depth")]
    Depth,
    /// A value cannot be read as what it should be.
    #[error("{0}")]
    Value(String),
}

/// An opened envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Such as `apps/v1`; may be empty.
    pub api_version: String,
    /// Such as `Deployment`; may be empty.
    pub kind: String,
    /// The message, or whatever `content_type` says.
    pub raw: &'a [u8],
    /// Empty for protobuf.
    pub content_type: String,
}

/// Opens an envelope.
///
/// # Errors
///
/// [`ProtoError`]
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, ProtoError> {
    if bytes.is_empty() {
        return Err(ProtoError::Empty);
    }
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtoError::Magic)?;
    if body.is_empty() {
        return Err(ProtoError::EmptyBody);
    }
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[], content_type: String::new() };
    let mut reader = Reader::new(body, "runtime.Unknown");
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => {
                let mut meta = Reader::new(value.bytes("runtime.Unknown")?, "runtime.TypeMeta");
                while let Some((number, value)) = meta.field()? {
                    match number {
                        1 => envelope.api_version = value.text("runtime.TypeMeta")?,
                        2 => envelope.kind = value.text("runtime.TypeMeta")?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = value.bytes("runtime.Unknown")?,
            4 => envelope.content_type = value.text("runtime.Unknown")?,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Reads a message of a built-in type as a document, in the form [`crate::decode::decode`] gives it. Kind and version are
/// not part of a message.
///
/// # Errors
///
/// [`ProtoError`]
pub fn decode(message: &[u8], ty: &Type) -> Result<Value, ProtoError> {
    read::message(message, ty, 0).map(Value::Object)
}

/// Writes a document as a message, without an envelope. What the type does not know is left out.
#[must_use]
pub fn encode(document: &Value, ty: &Type) -> Vec<u8> {
    let mut writer = Writer::default();
    if let Some(map) = document.as_object() {
        write::message(&mut writer, map, ty);
    }
    writer.finish()
}

/// Puts a message into an envelope.
#[must_use]
pub fn seal(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut writer = Writer::starting_with(MAGIC);
    writer.nested(1, |writer| {
        writer.text(1, api_version);
        writer.text(2, kind);
    });
    writer.bytes(2, message);
    writer.text(3, "");
    writer.text(4, "");
    writer.finish()
}

/// Writes a document with its envelope; kind and version are taken from it.
#[must_use]
pub fn encode_object(document: &Value, ty: &Type) -> Vec<u8> {
    let text = |name: &str| document[name].as_str().unwrap_or_default();
    seal(text("apiVersion"), text("kind"), &encode(document, ty))
}

/// Writes a list with its envelope from items that are messages already. Every list type has its metadata as field 1 and
/// its items as field 2.
#[must_use]
pub fn encode_list<'a>(
    api_version: &str,
    kind: &str,
    metadata: &Map<String, Value>,
    items: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut writer = Writer::default();
    list_meta(&mut writer, 1, metadata);
    for item in items {
        writer.bytes(2, item);
    }
    seal(api_version, kind, &writer.finish())
}

/// Writes a `PartialObjectMetadataList` of `meta.k8s.io/v1beta1`, the one list that has its items before its metadata.
#[must_use]
pub fn encode_old_partial_list(document: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    let item = corten_api::facts::Types::get().named("meta.v1.PartialObjectMetadata");
    for object in document["items"].as_array().into_iter().flatten() {
        writer.bytes(1, &item.map(|ty| encode(object, ty)).unwrap_or_default());
    }
    list_meta(&mut writer, 2, document["metadata"].as_object().unwrap_or(&Map::new()));
    seal("meta.k8s.io/v1beta1", "PartialObjectMetadataList", &writer.finish())
}

fn list_meta(writer: &mut Writer, number: u32, metadata: &Map<String, Value>) {
    if let Some(ty) = corten_api::facts::Types::get().named("meta.v1.ListMeta") {
        writer.nested(number, |writer| write::message(writer, metadata, ty));
    }
}

/// One frame of a watch stream (`;stream=watch`): the length as four bytes, and an event that carries a sealed object.
#[must_use]
pub fn watch_frame(event: &str, sealed: &[u8]) -> Vec<u8> {
    let mut writer = Writer::starting_with(&[0; 4]);
    writer.text(1, event);
    writer.nested(2, |writer| writer.bytes(1, sealed));
    let mut frame = writer.finish();
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests;
