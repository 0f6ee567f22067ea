//! Answers on the wire: one object, a list, or a row of events, in the form that the client asked for. The stored form as
//! JSON is copied from the cache; every other form is made from a decoded document.

mod gzip;
mod items;
mod list;

pub(crate) use gzip::maybe_compressed;
pub(crate) use items::{ItemWriter, write_partial};
pub(crate) use list::{Items, ListMeta, list, list_document};

use std::ops::Bound;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use corten_api::status::Status;

use super::Outcome;
use super::codec;
use super::target::{Filter, Target};
use crate::cache::{self, Entry, Map};
use crate::negotiate::{Encoding, Form, MetaVersion, Shape};
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::table::{IncludeObject, Table};

/// Whether the answer can be had in the form that the client asked for, and how a Table is wanted. Asked when there is an
/// answer: a write that was done stays done.
fn check_form(target: &Target, form: Form, is_list: bool, call: &Call) -> Result<IncludeObject, Status> {
    let include = table_options(call, form)?;
    form.fits(is_list, &|| type_name(target, is_list, &call.info().subresource))?;
    Ok(include)
}

/// What upstream calls the type of an answer inside.
fn type_name(target: &Target, is_list: bool, subresource: &str) -> String {
    let resource = &target.resource;
    let sub = target.version().subresource(subresource);
    let (group, kind) = match sub {
        Some(sub) => (sub.group.as_str(), &sub.kind),
        None if is_list => (resource.group.as_str(), &resource.list_kind),
        None => (resource.group.as_str(), &resource.kind),
    };
    match group.split('.').next().unwrap_or_default() {
        _ if resource.custom && is_list => "unstructured.UnstructuredList".to_owned(),
        _ if resource.custom => "unstructured.Unstructured".to_owned(),
        // Events of both groups are one type inside.
        "" | "events" => format!("core.{kind}"),
        package => format!("{package}.{kind}"),
    }
}

/// How a Table is wanted.
pub(crate) fn table_options(call: &Call, form: Form) -> Result<IncludeObject, Status> {
    if form.shape != Shape::Table {
        return Ok(IncludeObject::Metadata);
    }
    IncludeObject::parse(call.query.text("includeObject"))
}

/// One cached object as a response.
pub(crate) fn object(target: &Target, form: Form, entry: &Entry, call: &Call) -> Result<Response, Status> {
    check_form(target, form, false, call)?;
    let plain = form.encoding == Encoding::Json && !form.pretty && !is_recorded(call);
    if plain && form.shape == Shape::Whole && target.is_stored_form() {
        let mut out = Vec::with_capacity(entry.size() + 1);
        entry.write(&mut out);
        out.push(b'\n');
        return Ok(maybe_compressed(200, "application/json", out.into(), call));
    }
    if plain && form.shape == Shape::Partial {
        let mut out = Vec::with_capacity(1024);
        write_partial(&mut out, target, form.meta, entry);
        out.push(b'\n');
        return Ok(response::bytes(200, "application/json", out));
    }
    stored_document(target, form, 200, entry.decode(), call)
}

/// A document in the stored form as a response. What is not shown as a whole is printed from this form, so that what a version
/// says in annotations is no part of its metadata.
fn stored_document(target: &Target, form: Form, code: u16, stored: Value, call: &Call) -> Result<Response, Status> {
    let as_stored = (form.shape != Shape::Whole).then(|| stored.clone());
    let mut document = stored;
    codec::from_stored(target, &mut document)?;
    printed(target, form, code, as_stored, document, call)
}

/// A document (in the version of the path) as a response in the wanted form.
pub(crate) fn shaped(target: &Target, form: Form, code: u16, document: Value, call: &Call) -> Result<Response, Status> {
    printed(target, form, code, None, document, call)
}

/// A document in the wanted form; `stored` is the same in the stored form, where that is known.
fn printed(
    target: &Target,
    form: Form,
    code: u16,
    stored: Option<Value>,
    document: Value,
    call: &Call,
) -> Result<Response, Status> {
    let include = check_form(target, form, false, call)?;
    let document = match form.shape {
        Shape::Whole => document,
        Shape::Partial => partial(target, form.meta, stored.as_ref().unwrap_or(&document)),
        Shape::Table => {
            let shows_stored = stored.is_some() && include != IncludeObject::Object;
            let stored = match stored {
                Some(stored) => stored,
                None => {
                    let mut stored = document.clone();
                    codec::to_stored(target, &mut stored)?;
                    stored
                }
            };
            let table = Table::of_subresource(target, &call.info().subresource, form.meta);
            let meta = match &document["metadata"]["resourceVersion"] {
                Value::Null => json!({}),
                version => json!({"resourceVersion": version}),
            };
            let shown = if shows_stored { &stored } else { &document };
            let row = table.row(&stored, shown, include, jiff::Timestamp::now());
            table.document(meta, true, vec![row])
        }
    };
    let (body, content_type) = codec::encode(Some(target), &document, form)?;
    record(call, document);
    Ok(maybe_compressed(code, content_type, body, call))
}

/// Whether the audit log wants what is answered.
fn is_recorded(call: &Call) -> bool {
    call.trail().is_some_and(|trail| trail.wants_response())
}

fn record(call: &Call, document: Value) {
    if let Some(trail) = call.trail() {
        trail.response_object(document);
    }
}

/// What a write left behind, as a response.
pub(crate) fn outcome(target: &Target, form: Form, code: u16, outcome: Outcome, call: &Call) -> Result<Response, Status> {
    match outcome {
        Outcome::Entry(entry) => {
            let mut response = object(target, form, &entry, call)?;
            *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
            Ok(response)
        }
        Outcome::Document(document) => stored_document(target, form, code, document, call),
    }
}

/// A Status that is no failure.
pub(crate) fn status_document(form: Form, code: u16, status: &Value, call: &Call) -> Result<Response, Status> {
    if let Some(trail) = call.trail() {
        trail.response_status(status);
    }
    let form = Form { shape: Shape::Whole, ..form };
    let (body, content_type) = codec::encode(None, status, form)?;
    Ok(response::bytes(code, content_type, body))
}

/// `PartialObjectMetadata` of a document.
pub(crate) fn partial(target: &Target, meta: MetaVersion, document: &Value) -> Value {
    let metadata = crate::table::metadata(document, hidden(target));
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta.api_version(), "metadata": metadata})
}

/// Annotations that are no part of the metadata by itself.
fn hidden(target: &Target) -> &'static [&'static str] {
    target.strategy.map_or(&[], |strategy| strategy.hidden_annotations())
}

/// Entries of a state that a filter selects, in key order, from a key on.
pub(crate) fn selected<'a>(map: &'a Map, filter: &'a Filter, from: Bound<Arc<str>>) -> impl Iterator<Item = &'a Arc<Entry>> {
    cache::range_from(map, &filter.namespace, from).map(|(_, entry)| entry).filter(|entry| filter.selects(entry))
}
