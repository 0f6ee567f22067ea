//! A list on the wire, piece by piece.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use corten_api::status::Status;

use super::gzip::{Gzip, accepts_gzip, mark_gzip};
use super::items::ItemWriter;
use super::{check_form, is_recorded, maybe_compressed, record};
use crate::cache::{self, Cache, Entry, Map};
use crate::negotiate::{Encoding, Form, Shape};
use crate::pipeline::Call;
use crate::registry::codec;
use crate::registry::read::Page;
use crate::registry::target::{Filter, Target};
use crate::response::{self, Body, Response};
use crate::table::{IncludeObject, Table};

/// Size of a piece of a list on its way to the socket.
const PIECE: usize = 128 << 10;

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
