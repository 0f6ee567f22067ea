//! Carries a plan for slices out, and keeps from planning on a cache that does not show the last one yet.

use std::collections::HashMap;
use std::sync::Arc;

use corten_client::{Client, Key};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use parking_lot::Mutex;

use super::packing::Plan;
use crate::error::{During, Result, gone_is_fine, is_namespace_terminating};
use crate::meta::{name, uid};

/// What was written and may not be in the cache yet, by service.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    services: Mutex<HashMap<Key, Service>>,
}

#[derive(Debug, Default)]
struct Service {
    /// The last write of each slice, by uid.
    slices: HashMap<String, Written>,
    /// Somebody waits for the cache to show them.
    awaited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Written {
    /// At this generation.
    Exists(i64),
    Deleted,
}

impl Tracker {
    fn note(&self, service: &Key, slice: &EndpointSlice, written: Written) {
        self.services.lock().entry(service.clone()).or_default().slices.insert(uid(&slice.metadata).to_owned(), written);
    }

    /// The cache shows a change of `slice`. Returns whether the service has to be looked at: the change was somebody else's, or
    /// a reconciliation found the cache stale and waits for it.
    pub(crate) fn observe(&self, service: &Key, slice: &EndpointSlice, deleted: bool) -> bool {
        let mut services = self.services.lock();
        let Some(service) = services.get_mut(service) else { return true };
        let awaited = std::mem::take(&mut service.awaited);
        let known = service.slices.get(uid(&slice.metadata)).copied();
        if deleted {
            service.slices.remove(uid(&slice.metadata));
            return awaited || known != Some(Written::Deleted);
        }
        let generation = slice.metadata.generation.unwrap_or(0);
        // Our own writes come back with exactly the generation we were told, or an earlier one.
        let foreign = !matches!(known, Some(Written::Exists(ours)) if generation <= ours) && known != Some(Written::Deleted);
        awaited || foreign
    }

    /// Whether `cached` lacks something that was written, or has what was deleted. [`Tracker::observe`] then tells of the next
    /// change, which brings it nearer.
    pub(crate) fn is_stale(&self, service: &Key, cached: &[Arc<EndpointSlice>]) -> bool {
        let mut services = self.services.lock();
        let Some(service) = services.get_mut(service) else { return false };
        service.awaited = service.slices.iter().any(|(uid_, written)| {
            let found = cached.iter().find(|slice| uid(&slice.metadata) == uid_);
            match (written, found) {
                (Written::Exists(generation), Some(slice)) => slice.metadata.generation.unwrap_or(0) < *generation,
                (Written::Exists(_), None) | (Written::Deleted, Some(_)) => true,
                (Written::Deleted, None) => false,
            }
        });
        service.awaited
    }

    /// The service is gone.
    pub(crate) fn forget(&self, service: &Key) {
        self.services.lock().remove(service);
    }
}

/// Writes the slices of one service.
pub(crate) struct Writer<'a> {
    pub(crate) client: &'a Client,
    pub(crate) tracker: &'a Tracker,
    pub(crate) service: &'a Key,
}

impl Writer<'_> {
    /// New endpoints before old ones go.
    pub(crate) async fn carry_out(&self, plan: Plan) -> Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.service.namespace);
        for slice in plan.create {
            match api.create(&PostParams::default(), &slice).await {
                Ok(created) => self.tracker.note(self.service, &created, exists(&created)),
                Err(err) if is_namespace_terminating(&err) => return Ok(()),
                Err(err) => return Err(err).during("create an endpoint slice of", self.service),
            }
        }
        for slice in plan.update {
            let written = api.replace(name(&slice.metadata), &PostParams::default(), &slice).await;
            let written = written.during("update endpoint slice", name(&slice.metadata))?;
            self.tracker.note(self.service, &written, exists(&written));
        }
        for slice in plan.delete {
            let deleted = api.delete(name(&slice.metadata), &DeleteParams::default()).await;
            gone_is_fine(deleted).during("delete endpoint slice", name(&slice.metadata))?;
            self.tracker.note(self.service, &slice, Written::Deleted);
        }
        Ok(())
    }
}

fn exists(slice: &EndpointSlice) -> Written {
    Written::Exists(slice.metadata.generation.unwrap_or(0))
}
