//! A change of labels and annotations that mean nothing to Kubernetes: what controllers and people write most besides status. It
//! reads and writes no more of the object than its metadata, the rest is carried over as bytes. Where anybody might look at the
//! rest, or anything is wrong, the way of every update is taken instead, so that there is one place for faults and their order.

use std::sync::Arc;

use corten_api::status::Status;
use corten_kinds::Strategy;
use corten_store::{Durability, Expect, Revision};

use super::{Attempt, Change, metadata_faults};
use crate::admission::Operation;
use crate::cache::Entry;
use crate::registry::write::{CommitError, Writing};
use crate::registry::{Outcome, codec, managed};

/// Whether a change is of this sort, as far as can be told without a look at the object.
pub(super) fn may(writing: &Writing<'_>, entry: &Entry, change: &dyn Change) -> bool {
    // Who is being deleted may be gone with an update, and a trial answers with the whole.
    writing.subresource.is_empty()
        && !writing.options.dry_run
        && !entry.deleting
        && writing.target.strategy.is_some_and(Strategy::labels_are_free)
        && change.relabels(writing.target)
}

/// Carries the change out; nothing when it takes more than metadata.
pub(super) async fn attempt(
    writing: &mut Writing<'_>,
    name: &str,
    entry: &Arc<Entry>,
    change: &dyn Change,
) -> Result<Option<Attempt>, Status> {
    let target = writing.target;
    let old = entry.decode_metadata();
    let mut document = change.make(writing, Some(&old))?;
    if let Some(members) = document.as_object_mut() {
        // The normal form has members that the type always has; here they would be taken for changed ones.
        members.retain(|name, _| matches!(name.as_str(), "kind" | "apiVersion" | "metadata"));
    }
    managed::track(writing, Some(&old), &mut document)?;
    if !metadata_faults(writing, &document, &old).is_empty() {
        return Ok(None);
    }
    let mut request = writing.admission(Operation::Update, name, Some(document), Some(old));
    if writing.state.admission.reads_content(&request) {
        return Ok(None);
    }
    writing.state.admission.prepare(&mut request);
    writing.state.admission.mutate(&mut request).await?;
    let admitted = writing.state.admission.validate(&mut request).await?;
    let (Some(mut document), Some(old)) = (request.object.take(), request.old.take()) else { return Ok(None) };
    codec::settle(target, &mut document);
    managed::keep_times(&mut document, &old);

    let layout = &target.cache()?.spec().layout;
    let (bytes, index) = layout.encode_relabeled(&document, entry);
    if layout.is_state_of(&bytes, entry) {
        return Ok(Some(Attempt::Done(Outcome::Entry(entry.clone()))));
    }
    let _prepared = writing.state.caches.prepare(&bytes, index);
    let expected = Expect::At(Revision(entry.stored));
    match writing.commit_as(Durability::Sync, name, Some(bytes.clone()), expected, admitted).await {
        Ok(revision) => Ok(Some(Attempt::Done(outcome(writing, name, revision, &bytes)?))),
        Err(CommitError::Conflict(Some(_))) => Ok(Some(Attempt::Raced)),
        Err(CommitError::Conflict(None)) => Err(target.not_found(name)),
        Err(CommitError::Status(status)) => Err(*status),
    }
}

/// The object as it was written, whoever has written it since.
fn outcome(writing: &Writing<'_>, name: &str, revision: u64, bytes: &bytes::Bytes) -> Result<Outcome, Status> {
    if let Some(entry) = writing.cached(name)?.filter(|entry| entry.revision == revision) {
        return Ok(Outcome::Entry(entry));
    }
    let spec = writing.target.cache()?.spec();
    let entry = Entry::new(&spec.layout, name, bytes, revision, spec.fields.as_ref());
    entry.map(|entry| Outcome::Entry(Arc::new(entry))).map_err(|err| Status::internal(err.to_string()))
}
