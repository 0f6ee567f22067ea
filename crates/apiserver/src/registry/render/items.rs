//! One object in the form of a request: an item of a list, a row of a Table, the object of an event.

use serde_json::{Value, json};

use corten_api::status::Status;

use super::{hidden, partial};
use crate::cache::Entry;
use crate::negotiate::{Form, MetaVersion, Shape};
use crate::registry::codec;
use crate::registry::target::Target;
use crate::table::{IncludeObject, Table};

pub(crate) fn write_partial(out: &mut Vec<u8>, target: &Target, meta: MetaVersion, entry: &Entry) {
    if !hidden(target).is_empty() {
        let document = partial(target, meta, &entry.decode());
        return out.extend_from_slice(document.to_string().as_bytes());
    }
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(meta.api_version().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    entry.write_metadata(out);
    out.push(b'}');
}

/// Writes objects in the form of one request.
pub(crate) struct ItemWriter {
    pub target: Target,
    pub shape: Shape,
    pub meta: MetaVersion,
    pub table: Table,
    pub include: IncludeObject,
    pub now: jiff::Timestamp,
    /// Whole objects in the stored form: what is written is what is stored.
    pub plain: bool,
}

impl ItemWriter {
    pub(crate) fn new(target: &Target, form: Form, include: IncludeObject) -> Self {
        Self {
            target: target.clone(),
            shape: form.shape,
            meta: form.meta,
            table: Table::of(target, form.meta),
            include,
            now: jiff::Timestamp::now(),
            plain: form.shape == Shape::Whole && target.is_stored_form(),
        }
    }

    pub(super) fn list_head(&self, meta: &Value) -> Vec<u8> {
        let (kind, version, items) = match self.shape {
            Shape::Whole => (self.target.resource.list_kind.as_str(), self.target.api_version(), "items"),
            Shape::Partial => ("PartialObjectMetadataList", self.meta.api_version().to_owned(), "items"),
            Shape::Table => ("Table", self.meta.api_version().to_owned(), "rows"),
        };
        let columns = match self.shape {
            Shape::Table => format!("\"columnDefinitions\":{},", self.table.definitions()),
            _ => String::new(),
        };
        let (kind, version) = (Value::from(kind), Value::from(version));
        format!("{{\"kind\":{kind},\"apiVersion\":{version},\"metadata\":{meta},{columns}\"{items}\":[").into_bytes()
    }

    /// One item of a list.
    pub(super) fn write(&self, out: &mut Vec<u8>, entry: &Entry) -> Result<(), Status> {
        match self.shape {
            Shape::Whole if self.plain => entry.write_item(out),
            Shape::Whole => {
                let mut document = entry.decode();
                codec::from_stored(&self.target, &mut document)?;
                if let Some(map) = document.as_object_mut() {
                    map.remove("kind");
                    map.remove("apiVersion");
                }
                append(out, &document)?;
            }
            Shape::Partial => write_partial(out, &self.target, self.meta, entry),
            Shape::Table => append(out, &self.row(entry)?)?,
        }
        Ok(())
    }

    /// One row of a Table.
    pub(crate) fn row(&self, entry: &Entry) -> Result<Value, Status> {
        let stored = entry.decode();
        let mut document = stored.clone();
        if self.include == IncludeObject::Object {
            codec::from_stored(&self.target, &mut document)?;
        }
        Ok(self.table.row(&stored, &document, self.include, self.now))
    }

    /// One object on its own, as an event has it.
    pub(crate) fn write_object(&self, out: &mut Vec<u8>, entry: &Entry, first: bool) -> Result<(), Status> {
        match self.shape {
            Shape::Whole if self.plain => entry.write(out),
            Shape::Whole => {
                let mut document = entry.decode();
                codec::from_stored(&self.target, &mut document)?;
                append(out, &document)?;
            }
            Shape::Partial => write_partial(out, &self.target, self.meta, entry),
            Shape::Table => {
                let meta = json!({"resourceVersion": entry.revision.to_string()});
                append(out, &self.table.document(meta, first, vec![self.row(entry)?]))?;
            }
        }
        Ok(())
    }
}

fn append(out: &mut Vec<u8>, document: &Value) -> Result<(), Status> {
    serde_json::to_writer(out, document).map_err(|err| Status::internal(err.to_string()))
}
