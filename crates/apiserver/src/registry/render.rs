//! Answers on the wire: one object, a list, or a row of events, in the form that the client asked for. The stored form as
//! JSON is copied from the cache; every other form is made from a decoded document.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use corten_api::status::Status;

use super::Outcome;
use super::codec;
use super::target::{Filter, Target};
use crate::cache::{self, Cache, Entry, Map};
use crate::negotiate::{Encoding, Form, MetaVersion, Shape};
use crate::pipeline::Call;
use crate::registry::read::Page;
use crate::response::{self, Body, Response};
use crate::table::{IncludeObject, Table};

/// Size of a piece of a list on its way to the socket.
const PIECE: usize = 128 << 10;
/// Answers longer than this are compressed for clients that can take it (upstream's limit).
const COMPRESS_FROM: usize = 128 << 10;

/// `metav1.ListMeta`
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub revision: u64,
    pub continuation: String,
    pub remaining: Option<usize>,
}

impl ListMeta {
    pub(crate) fn document(&self) -> Value {
        let mut meta = serde_json::Map::new();
        if self.revision > 0 {
            meta.insert("resourceVersion".into(), self.revision.to_string().into());
        }
        if !self.continuation.is_empty() {
            meta.insert("continue".into(), self.continuation.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount".into(), remaining.into());
        }
        meta.into()
    }
}

/// The objects of a list.
pub(crate) enum Items {
    /// Everything selected in a state, found on the way to the socket.
    Range { map: Map, filter: Filter, from: Bound<Arc<str>> },
    /// A page, found already.
    Page(Vec<Arc<Entry>>),
}

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

/// Annotations that are no part of the metadata by itself.
fn hidden(target: &Target) -> &'static [&'static str] {
    target.strategy.map_or(&[], |strategy| strategy.hidden_annotations())
}

/// A list as a response: streamed when it is long, so that it never exists as a whole.
pub(crate) fn list(target: &Target, form: Form, page: Page, call: &Call) -> Result<Response, Status> {
    let include = check_form(target, form, true, call)?;
    let is_recorded = is_recorded(call);
    if form.encoding == Encoding::Protobuf && form.shape == Shape::Whole && !is_recorded {
        let meta = page.meta.document();
        let encoded = match &page.items {
            Items::Page(items) => codec::encode_list(target, &meta, items.iter().map(|entry| &**entry)),
            Items::Range { map, filter, from } => {
                let mut counted = Counted::of(target);
                let entries = cache::range_from(map, &filter.namespace, from.clone()).map(|(_, entry)| &**entry);
                codec::encode_list(target, &meta, entries.filter(|entry| counted.selected(filter.selects(entry))))
            }
        };
        if let Some(body) = encoded {
            return Ok(maybe_compressed(200, "application/vnd.kubernetes.protobuf", body?, call));
        }
    }
    let mut pieces = Pieces::new(target, form, include, page);
    if form.encoding != Encoding::Json || form.pretty || is_recorded {
        // A form that has to be made as a whole.
        let mut whole = Vec::new();
        for piece in pieces {
            whole.extend_from_slice(&piece?);
        }
        let document: Value = serde_json::from_slice(&whole).map_err(|err| Status::internal(err.to_string()))?;
        let (body, content_type) = codec::encode(Some(target), &document, form)?;
        record(call, document);
        return Ok(maybe_compressed(200, content_type, body, call));
    }
    let Some(first) = pieces.next().transpose()? else {
        return Err(Status::internal("an empty list has a body too"));
    };
    if pieces.ended {
        return Ok(maybe_compressed(200, "application/json", first, call));
    }
    let pieces = std::iter::once(Ok(first)).chain(pieces);
    if accepts_gzip(call) {
        let stream = futures::stream::iter(Gzip::new(pieces));
        let mut response = response::bytes(200, "application/json", Body::stream(stream));
        mark_gzip(&mut response);
        return Ok(response);
    }
    let stream = futures::stream::iter(pieces.map(|piece| piece.map_err(Into::into)));
    Ok(response::bytes(200, "application/json", Body::stream(stream)))
}

/// A list that was made as a document, as a response.
pub(crate) fn list_document(target: &Target, form: Form, list: Value, call: &Call) -> Result<Response, Status> {
    let include = check_form(target, form, true, call)?;
    let document = match form.shape {
        Shape::Table => {
            let (table, now) = (Table::of(target, form.meta), jiff::Timestamp::now());
            let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let rows = items.iter().map(|item| table.row(item, item, include, now)).collect();
            table.document(list["metadata"].clone(), true, rows)
        }
        Shape::Whole | Shape::Partial => list,
    };
    let (body, content_type) = codec::encode(Some(target), &document, form)?;
    record(call, document);
    Ok(maybe_compressed(200, content_type, body, call))
}

/// The JSON text of a list, piece by piece.
struct Pieces {
    writer: ItemWriter,
    items: Source,
    head: Option<Vec<u8>>,
    first: bool,
    ended: bool,
    counted: Option<Counted>,
}

/// Objects that a list looks at and shows, told to the cache when it is over.
struct Counted {
    cache: Option<Arc<Cache>>,
    fetched: usize,
    returned: usize,
}

impl Counted {
    fn of(target: &Target) -> Self {
        Self { cache: target.cache.clone(), fetched: 0, returned: 0 }
    }

    /// One more was looked at; gives back whether it is shown.
    fn selected(&mut self, is_shown: bool) -> bool {
        self.fetched += 1;
        self.returned += usize::from(is_shown);
        is_shown
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(cache) = &self.cache {
            cache.tally().scanned.add(self.fetched, self.returned);
        }
    }
}

enum Source {
    /// From `at` to the key `last`; nothing when there is no such key.
    Range {
        map: Map,
        filter: Filter,
        at: Bound<Arc<str>>,
        last: Option<Arc<str>>,
    },
    Page(std::vec::IntoIter<Arc<Entry>>),
}

impl Pieces {
    fn new(target: &Target, form: Form, include: IncludeObject, page: Page) -> Self {
        let writer = ItemWriter::new(target, form, include);
        let head = writer.list_head(&page.meta.document());
        let counted = matches!(page.items, Items::Range { .. }).then(|| Counted::of(target));
        let items = match page.items {
            Items::Range { map, filter, from } => {
                let at = match from {
                    Bound::Unbounded if !filter.namespace.is_empty() => Bound::Included(format!("{}/", filter.namespace).into()),
                    from => from,
                };
                // Found once: keys are then compared by their place, without a look at each.
                let end = if filter.namespace.is_empty() {
                    Bound::Unbounded
                } else {
                    Bound::Excluded(Arc::<str>::from(format!("{}0", filter.namespace)))
                };
                let last = map.range((at.clone(), end)).next_back().map(|(key, _)| key.clone());
                Source::Range { map, filter, at, last }
            }
            Items::Page(items) => Source::Page(items.into_iter()),
        };
        Self { writer, items, head: Some(head), first: true, ended: false, counted }
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let mut out = self.head.take().unwrap_or_default();
        // With room for the item that fills the piece: growing would copy it as a whole.
        out.reserve(PIECE + PIECE / 4);
        let (writer, first) = (&self.writer, &mut self.first);
        let mut add = |out: &mut Vec<u8>, entry: &Entry| {
            if !std::mem::take(first) {
                out.push(b',');
            }
            writer.write(out, entry)
        };
        let finished = match &mut self.items {
            Source::Page(items) => loop {
                let Some(entry) = items.next() else { break true };
                if let Err(status) = add(&mut out, &entry) {
                    return Some(Err(status));
                }
                if out.len() >= PIECE {
                    break false;
                }
            },
            Source::Range { map, filter, at, last } => {
                let mut finished = last.is_none();
                let last = last.as_ref();
                let counted = &mut self.counted;
                for (key, entry) in map.range((at.clone(), Bound::Unbounded)).take_while(|_| last.is_some()) {
                    let is_shown = filter.selects(entry);
                    counted.as_mut().map(|counted| counted.selected(is_shown));
                    if is_shown && let Err(status) = add(&mut out, entry) {
                        return Some(Err(status));
                    }
                    if last.is_some_and(|last| Arc::ptr_eq(last, key)) {
                        finished = true;
                        break;
                    }
                    if out.len() >= PIECE {
                        // The next piece goes on behind this key.
                        *at = Bound::Excluded(key.clone());
                        break;
                    }
                }
                finished
            }
        };
        if finished {
            let null_when_empty = match self.writer.shape {
                Shape::Whole => false,
                Shape::Partial => true,
                Shape::Table => self.writer.table.is_null_when_empty(),
            };
            if self.first && null_when_empty {
                out.pop();
                out.extend_from_slice(b"null}\n");
            } else {
                out.extend_from_slice(b"]}\n");
            }
            self.ended = true;
        }
        Some(Ok(out.into()))
    }
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

    fn list_head(&self, meta: &Value) -> Vec<u8> {
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
    fn write(&self, out: &mut Vec<u8>, entry: &Entry) -> Result<(), Status> {
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

/// A response of these bytes, compressed when that is worth it and the client can take it.
pub(crate) fn maybe_compressed(code: u16, content_type: &str, body: Bytes, call: &Call) -> Response {
    if body.len() <= COMPRESS_FROM || !accepts_gzip(call) {
        return response::bytes(code, content_type, body);
    }
    let pieces = Gzip::new(std::iter::once(Ok(body)));
    let mut response = response::bytes(code, content_type, Body::stream(futures::stream::iter(pieces)));
    mark_gzip(&mut response);
    response
}

fn accepts_gzip(call: &Call) -> bool {
    call.header(header::ACCEPT_ENCODING).split(',').any(|coding| coding.trim() == "gzip")
}

fn mark_gzip(response: &mut Response) {
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Compresses pieces as they come.
struct Gzip<I> {
    pieces: I,
    encoder: Option<flate2::write::GzEncoder<Vec<u8>>>,
}

impl<I> Gzip<I> {
    fn new(pieces: I) -> Self {
        // The fastest level: upstream found the others not worth their time.
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        Self { pieces, encoder: Some(encoder) }
    }
}

impl<I: Iterator<Item = Result<Bytes, Status>>> Iterator for Gzip<I> {
    type Item = Result<Bytes, response::BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        use std::io::Write;
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.pieces.next() {
                Some(Ok(piece)) => {
                    if let Err(err) = encoder.write_all(&piece) {
                        return Some(Err(err.into()));
                    }
                    let out = std::mem::take(encoder.get_mut());
                    if !out.is_empty() {
                        return Some(Ok(out.into()));
                    }
                }
                Some(Err(status)) => return Some(Err(status.into())),
                None => {
                    let encoder = self.encoder.take()?;
                    return Some(encoder.finish().map(Bytes::from).map_err(Into::into));
                }
            }
        }
    }
}

/// Entries of a state that a filter selects, in key order, from a key on.
pub(crate) fn selected<'a>(map: &'a Map, filter: &'a Filter, from: Bound<Arc<str>>) -> impl Iterator<Item = &'a Arc<Entry>> {
    cache::range_from(map, &filter.namespace, from).map(|(_, entry)| entry).filter(|entry| filter.selects(entry))
}
