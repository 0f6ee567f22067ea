//! One object as the cache holds it: its canonical JSON, which it shares with the store, and the little that reads need to know
//! without decoding.
//!
//! The bytes are laid out so that every form a reader wants is put together of slices. They begin with a head that is the same
//! for all objects of a resource, `{"kind":K,"apiVersion":V,"metadata":{`. The `resourceVersion`, which only the store knows, is
//! written behind the head on the way out. The whole is the object as `get` and `watch` send it, what follows `V,` is the
//! object as a list item has it, and the metadata alone is a partial object.

mod folded;
mod layout;

pub use layout::{Index, Layout};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{IgnoredAny, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// One object. Immutable; a change makes a new entry.
#[derive(Debug)]
pub struct Entry {
    /// As the store holds them: everything but the `resourceVersion`.
    bytes: Bytes,
    layout: Layout,
    /// Where the value of `metadata` ends.
    metadata_end: u32,
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

/// Bytes that are no object.
#[derive(Debug, thiserror::Error)]
#[error("the stored bytes of {key} are no object of this resource")]
pub struct Malformed {
    /// The key.
    pub key: String,
    /// Where the bytes went wrong.
    pub source: serde_json::Error,
}

const REVISION: &[u8] = b"\"resourceVersion\":\"";

/// Reads the selectable fields of an object's bytes; see [`corten_kinds::Strategy::fields`].
pub type Fields = Box<dyn Fn(&[u8]) -> Result<Vec<(&'static str, String)>, serde_json::Error> + Send + Sync>;

impl Entry {
    /// Makes an entry of stored bytes. `fields` is absent for resources that have no selectable fields of their own, whose
    /// documents are then never decoded.
    pub fn new(layout: &Layout, key: &str, stored: &Bytes, revision: u64, fields: Option<&Fields>) -> Result<Self, Malformed> {
        let malformed = |source| Malformed { key: key.to_owned(), source };
        let bytes = if layout.fits(stored) {
            stored.clone()
        } else {
            // Written by somebody who orders members differently, such as another server on the same store.
            layout.encode(&serde_json::from_slice(stored).map_err(malformed)?)
        };
        let document: Outline<'_> = serde_json::from_slice(&bytes).map_err(malformed)?;
        let raw = document.metadata.get();
        let meta: Meta<'_> = serde_json::from_str(raw).map_err(malformed)?;
        let start = raw.as_ptr() as usize - bytes.as_ptr() as usize;
        let fields = match fields {
            Some(fields) => fields(&bytes).map_err(malformed)?.into_iter().map(|(name, value)| (name, value.into())).collect(),
            None => Box::default(),
        };
        let index = Index {
            metadata_end: (start + raw.len()) as u32,
            namespace: meta.namespace.into(),
            name: meta.name.into(),
            uid: meta.uid.into(),
            labels: meta.labels.0,
            fields,
            owners: meta.owner_references.into_iter().map(|o| o.uid.into()).collect(),
            deleting: meta.deletion_timestamp.is_some(),
        };
        Ok(Self::indexed(layout, bytes, revision, index))
    }

    /// The entry of bytes that [`Layout::encode_indexed`] gave.
    #[must_use]
    pub fn indexed(layout: &Layout, bytes: Bytes, revision: u64, index: Index) -> Self {
        Self {
            bytes,
            layout: layout.clone(),
            metadata_end: index.metadata_end,
            namespace: index.namespace,
            name: index.name,
            uid: index.uid,
            revision,
            stored: revision,
            labels: index.labels,
            fields: index.fields,
            owners: index.owners,
            deleting: index.deleting,
        }
    }

    /// The same state under another revision: the last state of a deleted object, or of one that left a selector.
    #[must_use]
    pub fn at(&self, revision: u64) -> Self {
        Self {
            bytes: self.bytes.clone(),
            layout: self.layout.clone(),
            metadata_end: self.metadata_end,
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

    /// Length of the object as `get` sends it, and a few bytes more at most.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + REVISION.len() + 22
    }

    /// Writes the object as `get` sends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_between(out, 0, self.bytes.len());
    }

    /// Writes the object as a list item has it: without `kind` and `apiVersion`.
    pub fn write_item(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_between(out, self.layout.item as usize, self.bytes.len());
    }

    /// Writes the value of `metadata`, with braces.
    pub fn write_metadata(&self, out: &mut Vec<u8>) {
        self.write_between(out, self.layout.head.len() - 1, self.metadata_end as usize);
    }

    /// Writes a part that has the beginning of the metadata in it, and the revision there.
    fn write_between(&self, out: &mut Vec<u8>, from: usize, to: usize) {
        let head = self.layout.head.len();
        let rest = &self.bytes[head..to];
        out.reserve(to - from + REVISION.len() + 22);
        out.extend_from_slice(&self.bytes[from..head]);
        out.extend_from_slice(REVISION);
        write_number(out, self.revision);
        out.extend_from_slice(if rest.starts_with(b"}") { b"\"" } else { b"\"," });
        out.extend_from_slice(rest);
    }

    /// The whole document, `resourceVersion` included.
    #[must_use]
    pub fn decode(&self) -> Value {
        let mut document: Value = serde_json::from_slice(&self.bytes).expect("an entry is made of bytes that were parsed once");
        document["metadata"]["resourceVersion"] = self.revision.to_string().into();
        document
    }

    /// [`Self::decode`], but managed fields stay the text they are: see [`corten_schema::apply::unfold`]. They are a third of a
    /// pod, and a write looks at little of them.
    #[must_use]
    pub fn decode_folded(&self) -> Value {
        self.folded(&self.bytes)
    }

    /// What [`Self::decode_folded`] gives, but of kind, version and metadata alone.
    #[must_use]
    pub fn decode_metadata(&self) -> Value {
        let mut object = Vec::with_capacity(self.metadata_end as usize + 1);
        object.extend_from_slice(&self.bytes[..self.metadata_end as usize]);
        object.push(b'}');
        self.folded(&object)
    }

    fn folded(&self, bytes: &[u8]) -> Value {
        let mut document = folded::read(bytes).expect("an entry is made of bytes that were parsed once");
        document["metadata"]["resourceVersion"] = self.revision.to_string().into();
        document
    }

    /// A view of the document: any type that borrows or owns only the fields it names. The `resourceVersion` is none of them:
    /// see [`Self::revision`].
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

/// A number in digits, without the machinery of formatting: lists write thousands.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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
        let (_, entry) = entry(&document, 17);
        let mut expected = document;
        expected["metadata"]["resourceVersion"] = "17".into();
        assert_eq!(entry.decode(), expected);
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        assert_eq!(written(&|out| entry.write(out)), expected);
        let item = written(&|out| entry.write_item(out));
        assert_eq!(item, json!({"metadata": expected["metadata"], "spec": {"x": 1}}));
        assert_eq!(written(&|out| entry.write_metadata(out)), expected["metadata"]);
        assert_eq!((entry.label("app"), entry.label("z"), entry.label("y")), (Some("w"), Some("1"), None));

        let later = entry.at(100);
        expected["metadata"]["resourceVersion"] = "100".into();
        assert_eq!(later.decode(), expected);
        assert_eq!(written(&|out| later.write_metadata(out)), expected["metadata"]);
    }

    #[test]
    fn a_document_tells_an_index_what_its_bytes_do() {
        let document = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"x": 1}, "metadata": {"name": "b", "namespace": "a",
            "uid": "u", "labels": {"z": "1", "app": "w"}, "ownerReferences": [{"uid": "o"}], "deletionTimestamp": "now"}});
        for document in [document, json!({"metadata": {"name": "b"}}), json!({"metadata": {}})] {
            let layout = Layout::new("Pod", "v1");
            let (bytes, index) = layout.encode_indexed(&document, vec![("x", "1".into())]);
            let made = Entry::indexed(&layout, bytes.clone(), 3, index);
            let fields: Fields = Box::new(|_| Ok(vec![("x", "1".into())]));
            let read = Entry::new(&layout, "k", &bytes, 3, Some(&fields)).unwrap();
            assert_eq!(format!("{made:?}"), format!("{read:?}"));
            assert!(layout.is_state_of(&bytes, &made));
        }
    }

    #[test]
    fn new_metadata_leaves_the_rest_as_it_is() {
        let mut document = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"x": [1]}, "status": {"y": "metadata"},
            "metadata": {"name": "b", "labels": {"z": "1"}, "managedFields": [{"manager": "m"}]}});
        let (layout, entry) = entry(&document, 17);
        let mut metadata = entry.decode_metadata();
        assert_eq!((metadata["spec"].clone(), &metadata["metadata"]["resourceVersion"]), (Value::Null, &json!("17")));
        metadata["metadata"]["labels"]["app"] = json!("w");
        document["metadata"]["labels"]["app"] = json!("w");
        let (bytes, index) = layout.encode_relabeled(&metadata, &entry);
        let (whole, whole_index) = layout.encode_indexed(&document, Vec::new());
        assert_eq!((bytes, format!("{index:?}")), (whole, format!("{whole_index:?}")));
    }

    #[test]
    fn managed_fields_may_stay_text() {
        let entries = json!([{"manager": "m", "fieldsV1": {"f:a\"b": {".": {}, "k:{\"x\":1}": {}}}}]);
        let of = |entries: Value| {
            json!({"kind": "Pod", "apiVersion": "v1", "spec": {"managedFields": "x"},
            "metadata": {"name": "b", "managedFields": entries, "resourceVersion": "17"}})
        };
        for (entries, folded) in
            [(entries.clone(), entries.to_string().into()), (json!([]), json!([])), (Value::Null, Value::Null)]
        {
            let (layout, entry) = entry(&of(entries.clone()), 17);
            assert_eq!(entry.decode_folded(), of(folded));
            assert!(layout.is_state_of(&layout.encode(&entry.decode_folded()), &entry));
            let mut document = entry.decode_folded();
            corten_schema::apply::unfold(&mut document);
            assert_eq!(document, of(entries));
        }
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
