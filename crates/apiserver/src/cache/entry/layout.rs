//! How the bytes of the objects of one resource are laid out, and what a writer knows of them when it has written them.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::{Entry, Labels};

/// What an entry knows of its object besides the bytes. A writer has the document and makes it of that, which spares the cache
/// a look into the bytes.
#[derive(Debug)]
pub struct Index {
    pub(super) metadata_end: u32,
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) uid: Box<str>,
    pub(super) labels: Labels,
    pub(super) fields: Box<[(&'static str, Box<str>)]>,
    pub(super) owners: Box<[Box<str>]>,
    pub(super) deleting: bool,
}

/// What all objects of a resource have in common in their bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `{"kind":K,"apiVersion":V,"metadata":{`
    pub(super) head: Arc<str>,
    /// Length of `{"kind":K,"apiVersion":V,`
    pub(super) item: u32,
    /// Whether objects hold raw JSON, which is kept in the form that Go's encoder gives it.
    pub(super) holds_raw: bool,
}

impl Layout {
    /// The layout of a kind.
    #[must_use]
    pub fn new(kind: &str, api_version: &str) -> Self {
        let item = format!("{{\"kind\":{},\"apiVersion\":{},", Value::from(kind), Value::from(api_version));
        Self { item: item.len() as u32, head: format!("{item}\"metadata\":{{").into(), holds_raw: false }
    }

    /// The layout of a kind whose objects hold raw JSON, if `holds_raw`: see [`corten_schema::encode::go_raw`].
    #[must_use]
    pub fn holding_raw(self, holds_raw: bool) -> Self {
        Self { holds_raw, ..self }
    }

    /// The bytes to store for a document: kind, version and metadata first, without `resourceVersion`, which the store
    /// gives when it commits. Managed fields may be in either form.
    #[must_use]
    pub fn encode(&self, document: &Value) -> Bytes {
        self.write(document).0
    }

    /// [`Self::encode`], and what the entry of these bytes will know. `fields` are the selectable fields of the document.
    #[must_use]
    pub fn encode_indexed(&self, document: &Value, fields: Vec<(&'static str, String)>) -> (Bytes, Index) {
        let (bytes, metadata_end) = self.write(document);
        let fields = fields.into_iter().map(|(name, value)| (name, value.into())).collect();
        (bytes, Self::index(document, metadata_end, fields))
    }

    /// [`Self::encode_indexed`] of an entry's object with the metadata of `document`, whose other members are not looked at.
    #[must_use]
    pub fn encode_relabeled(&self, document: &Value, entry: &Entry) -> (Bytes, Index) {
        let mut out = self.write_metadata(document);
        let metadata_end = out.len() as u32;
        out.extend_from_slice(&entry.bytes[entry.metadata_end as usize..]);
        out.shrink_to_fit();
        (out.into(), Self::index(document, metadata_end, entry.fields.clone()))
    }

    fn index(document: &Value, metadata_end: u32, fields: Box<[(&'static str, Box<str>)]>) -> Index {
        let meta = &document["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default().into();
        let text_of = |value: &Value| value.as_str().unwrap_or_default().into();
        let labels = meta["labels"].as_object().into_iter().flatten();
        let owners = meta["ownerReferences"].as_array().into_iter().flatten();
        Index {
            metadata_end,
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            labels: labels.map(|(key, value)| (key.as_str().into(), text_of(value))).collect(),
            fields,
            owners: owners.map(|owner| text_of(&owner["uid"])).collect(),
            deleting: !meta["deletionTimestamp"].is_null(),
        }
    }

    /// The bytes of a document, and where the value of `metadata` ends in them.
    fn write(&self, document: &Value) -> (Bytes, u32) {
        let mut out = self.write_metadata(document);
        let metadata_end = out.len() as u32;
        let members = document.as_object().into_iter().flatten();
        for (key, value) in members.filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata")) {
            out.push(b',');
            if self.holds_raw {
                write_text(&mut out, key);
                corten_schema::encode::go_raw(&mut out, value);
            } else {
                write_member(&mut out, key, value);
            }
        }
        out.push(b'}');
        // These bytes stay for long: no room is kept for more.
        out.shrink_to_fit();
        (Bytes::from(out), metadata_end)
    }

    /// The bytes of a document up to the end of the value of `metadata`.
    fn write_metadata(&self, document: &Value) -> Vec<u8> {
        let metadata = document["metadata"].as_object().into_iter().flatten();
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(self.head.as_bytes());
        for (i, (key, value)) in metadata.filter(|(key, _)| *key != "resourceVersion").enumerate() {
            if i > 0 {
                out.push(b',');
            }
            match value {
                Value::String(text) if key == "managedFields" => {
                    out.extend_from_slice(b"\"managedFields\":");
                    out.extend_from_slice(text.as_bytes());
                }
                value => write_member(&mut out, key, value),
            }
        }
        out.push(b'}');
        out
    }

    /// Whether bytes to store say just what an entry says.
    #[must_use]
    pub fn is_state_of(&self, stored: &Bytes, entry: &Entry) -> bool {
        *stored == entry.bytes
    }

    /// Whether stored bytes are laid out like this.
    pub(super) fn fits(&self, stored: &[u8]) -> bool {
        stored.strip_prefix(self.head.as_bytes()).is_some_and(|rest| !rest.starts_with(b"\"resourceVersion\""))
    }
}

fn write_text(out: &mut Vec<u8>, key: &str) {
    serde_json::to_writer(&mut *out, key).expect("a string is always JSON");
    out.push(b':');
}

fn write_member(out: &mut Vec<u8>, key: &str, value: &Value) {
    write_text(out, key);
    serde_json::to_writer(&mut *out, value).expect("a document is always JSON");
}
