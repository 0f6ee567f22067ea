//! One object as the cache holds it: its canonical JSON, once, and the little that reads need to know without decoding.
//!
//! The bytes are laid out so that every form a reader wants is a slice of them. They begin with a head that is the same for
//! all objects of a resource, `{"kind":K,"apiVersion":V,"metadata":{"resourceVersion":"`, so the whole is the object as `get` and
//! `watch` send it, what follows `V,` is the object as a list item has it, and the metadata alone is a partial object.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{IgnoredAny, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// One object. Immutable; a change makes a new entry.
#[derive(Debug)]
pub struct Entry {
    bytes: Bytes,
    /// Where the list form begins: the bytes from here on need only a `{` before them.
    item: u32,
    /// Where the value of `metadata` begins and ends.
    metadata: (u32, u32),
    /// Namespace, empty for cluster scope.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// UID.
    pub uid: Box<str>,
    /// The revision of this state: its `resourceVersion`.
    pub revision: u64,
    /// The revision that the store knows the key by. It differs from `revision` only for the last state of a deleted object.
    pub stored: u64,
    /// Labels, sorted by key.
    pub labels: Labels,
    /// Selectable fields besides name and namespace.
    pub fields: Box<[(&'static str, Box<str>)]>,
    /// UIDs of the owners.
    pub owners: Box<[Box<str>]>,
    /// Whether `deletionTimestamp` is set.
    pub deleting: bool,
}

/// Labels of an object, sorted by key.
pub type Labels = Box<[(Box<str>, Box<str>)]>;

/// What all objects of a resource have in common in their bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `{"kind":K,"apiVersion":V,"metadata":{`
    head: Box<str>,
    /// Length of `{"kind":K,"apiVersion":V,`
    item: u32,
}

/// Bytes that are no object.
#[derive(Debug, thiserror::Error)]
#[error("the stored bytes of {key} are no object of this resource")]
pub struct Malformed {
    /// The key.
    pub key: String,
    /// Where the bytes went wrong.
    pub source: serde_json::Error,
}

impl Layout {
    /// The layout of a kind.
    #[must_use]
    pub fn new(kind: &str, api_version: &str) -> Self {
        let item = format!("{{\"kind\":{},\"apiVersion\":{},", Value::from(kind), Value::from(api_version));
        Self { item: item.len() as u32, head: format!("{item}\"metadata\":{{").into() }
    }

    /// The bytes to store for a document: kind, version and metadata first, without `resourceVersion`, which the store
    /// gives when it commits.
    #[must_use]
    pub fn encode(&self, document: &Value) -> Bytes {
        let empty = serde_json::Map::new();
        let root = document.as_object().unwrap_or(&empty);
        let metadata = root.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(self.head.as_bytes());
        write_members(&mut out, metadata.iter().filter(|(key, _)| *key != "resourceVersion"));
        out.push(b'}');
        let rest = root.iter().filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata"));
        for (key, value) in rest {
            out.push(b',');
            write_members(&mut out, std::iter::once((key, value)));
        }
        out.push(b'}');
        Bytes::from(out)
    }

    /// Whether bytes to store say just what an entry says.
    #[must_use]
    pub fn is_state_of(&self, stored: &Bytes, entry: &Entry) -> bool {
        self.splice(stored, entry.revision).is_some_and(|bytes| bytes == entry.bytes)
    }

    /// Puts the revision into stored bytes.
    fn splice(&self, stored: &[u8], revision: u64) -> Option<Bytes> {
        let rest = stored.strip_prefix(self.head.as_bytes())?;
        if rest.starts_with(b"\"resourceVersion\"") {
            return None;
        }
        let mut out = Vec::with_capacity(stored.len() + 42);
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(revision.to_string().as_bytes());
        out.push(b'"');
        if !rest.starts_with(b"}") {
            out.push(b',');
        }
        out.extend_from_slice(rest);
        Some(Bytes::from(out))
    }
}

fn write_members<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    for (i, (key, value)) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key).expect("a string is always JSON");
        out.push(b':');
        serde_json::to_writer(&mut *out, value).expect("a document is always JSON");
    }
}

/// Reads the selectable fields of an object's bytes; see [`corten_kinds::Strategy::fields`].
pub type Fields = Box<dyn Fn(&[u8]) -> Result<Vec<(&'static str, String)>, serde_json::Error> + Send + Sync>;

impl Entry {
    /// Makes an entry of stored bytes. `fields` is absent for resources that have no selectable fields of their own, whose
    /// documents are then never decoded.
    pub fn new(layout: &Layout, key: &str, stored: &Bytes, revision: u64, fields: Option<&Fields>) -> Result<Self, Malformed> {
        let malformed = |source| Malformed { key: key.to_owned(), source };
        let bytes = match layout.splice(stored, revision) {
            Some(bytes) => bytes,
            // Written by somebody who orders members differently, such as another server on the same store.
            None => {
                let document: Value = serde_json::from_slice(stored).map_err(malformed)?;
                let canonical = layout.encode(&document);
                layout.splice(&canonical, revision).expect("encode begins with the head and leaves the revision out")
            }
        };
        let document: Outline<'_> = serde_json::from_slice(&bytes).map_err(malformed)?;
        let raw = document.metadata.get();
        let meta: Meta<'_> = serde_json::from_str(raw).map_err(malformed)?;
        let start = (raw.as_ptr() as usize - bytes.as_ptr() as usize) as u32;
        let fields = match fields {
            Some(fields) => fields(&bytes).map_err(malformed)?.into_iter().map(|(name, value)| (name, value.into())).collect(),
            None => Box::default(),
        };
        Ok(Self {
            item: layout.item,
            metadata: (start, start + raw.len() as u32),
            namespace: meta.namespace.into(),
            name: meta.name.into(),
            uid: meta.uid.into(),
            revision,
            stored: revision,
            labels: meta.labels.0,
            fields,
            owners: meta.owner_references.into_iter().map(|o| o.uid.into()).collect(),
            deleting: meta.deletion_timestamp.is_some(),
            bytes,
        })
    }

    /// The same state under another revision: the last state of a deleted object, or of one that left a selector.
    #[must_use]
    pub fn at(&self, layout: &Layout, revision: u64) -> Self {
        let old = self.revision.to_string().len();
        let from = layout.head.len() + "\"resourceVersion\":\"".len();
        let mut out = Vec::with_capacity(self.bytes.len() + 8);
        out.extend_from_slice(&self.bytes[..from]);
        out.extend_from_slice(revision.to_string().as_bytes());
        let grown = out.len() as i64 - from as i64 - old as i64;
        out.extend_from_slice(&self.bytes[from + old..]);
        Self {
            bytes: Bytes::from(out),
            item: self.item,
            metadata: (self.metadata.0, (i64::from(self.metadata.1) + grown) as u32),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            revision,
            stored: self.stored,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            owners: self.owners.clone(),
            deleting: self.deleting,
        }
    }

    /// The object as `get` sends it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The object as a list item has it, less the `{` it begins with: without `kind` and `apiVersion`.
    #[must_use]
    pub fn item(&self) -> &[u8] {
        &self.bytes[self.item as usize..]
    }

    /// The value of `metadata`, with braces.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.bytes[self.metadata.0 as usize..self.metadata.1 as usize]
    }

    /// The whole document, `resourceVersion` included.
    #[must_use]
    pub fn decode(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("an entry is made of bytes that were parsed once")
    }

    /// A view of the document: any type that borrows or owns only the fields it names.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }

    /// The value of a selectable field; `None` when the resource has no such field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| &**value),
        }
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.labels[at].1)
    }
}

/// One revision of one object is one state: nothing else has to be compared.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && self.uid == other.uid
    }
}

impl Eq for Entry {}

#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(default, borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    namespace: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    uid: std::borrow::Cow<'a, str>,
    #[serde(default)]
    labels: Sorted,
    #[serde(default)]
    owner_references: Vec<Owner>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    uid: String,
}

/// A map read into a sorted slice, without a tree in between.
#[derive(Default)]
struct Sorted(Labels);

impl<'de> Deserialize<'de> for Sorted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Sorted;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Sorted, A::Error> {
                let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                pairs.sort_unstable();
                Ok(Sorted(pairs.into()))
            }

            fn visit_unit<E>(self) -> Result<Sorted, E> {
                Ok(Sorted::default())
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(document: &Value, revision: u64) -> (Layout, Entry) {
        let layout = Layout::new("Pod", "v1");
        let entry = Entry::new(&layout, "/registry/pods/a/b", &layout.encode(document), revision, None).unwrap();
        (layout, entry)
    }

    #[test]
    fn every_form_is_a_slice() {
        let document = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"x": 1},
            "metadata": {"name": "b", "namespace": "a", "labels": {"z": "1", "app": "w"}, "resourceVersion": "3"}});
        let (layout, entry) = entry(&document, 17);
        let mut expected = document;
        expected["metadata"]["resourceVersion"] = "17".into();
        assert_eq!(entry.decode(), expected);
        let item: Value = serde_json::from_str(&format!("{{{}", std::str::from_utf8(entry.item()).unwrap())).unwrap();
        assert_eq!(item, json!({"metadata": expected["metadata"], "spec": {"x": 1}}));
        assert_eq!(serde_json::from_slice::<Value>(entry.metadata()).unwrap(), expected["metadata"]);
        assert_eq!((entry.label("app"), entry.label("z"), entry.label("y")), (Some("w"), Some("1"), None));

        let later = entry.at(&layout, 100);
        expected["metadata"]["resourceVersion"] = "100".into();
        assert_eq!(later.decode(), expected);
        assert_eq!(serde_json::from_slice::<Value>(later.metadata()).unwrap(), expected["metadata"]);
    }

    #[test]
    fn bytes_of_another_order_are_taken_too() {
        let layout = Layout::new("Pod", "v1");
        let stored = Bytes::from_static(br#"{"metadata":{"name":"b"},"apiVersion":"v1","kind":"Pod"}"#);
        let entry = Entry::new(&layout, "k", &stored, 5, None).unwrap();
        assert_eq!(entry.decode(), json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "resourceVersion": "5"}}));
        assert!(Entry::new(&layout, "k", &Bytes::from_static(b"no"), 5, None).is_err());
    }
}
