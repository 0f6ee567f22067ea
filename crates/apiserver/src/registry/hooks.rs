//! What a few kinds need beside the generic steps: addresses and ports for Services.

use serde_json::Value;

use corten_api::status::Status;

use super::target::Target;
use super::write::Writing;

/// Something taken for a write that may still fail; given back when dropped.
#[must_use]
#[derive(Default)]
pub(crate) struct Reserved {
    release: Option<Box<dyn FnOnce() + Send>>,
}

impl Reserved {
    /// The write succeeded.
    pub(crate) fn keep(mut self) {
        self.release = None;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

/// Before a new object is judged.
pub(crate) async fn before_create(_writing: &Writing<'_>, _document: &mut Value) -> Result<Reserved, Status> {
    Ok(Reserved::default())
}

/// Before a change is judged.
pub(crate) async fn before_update(_writing: &Writing<'_>, _document: &mut Value, _old: &Value) -> Result<Reserved, Status> {
    Ok(Reserved::default())
}

/// After a change is stored.
pub(crate) async fn after_update(_writing: &Writing<'_>, _document: &Value, _old: &Value) {}

/// After an object is gone.
pub(crate) async fn after_delete(_writing: &Writing<'_>, _document: &Value) {}

/// Whether a deletion is answered with the object, for kinds whose clients came to expect it.
pub(crate) fn shows_deleted(target: &Target) -> bool {
    match target.resource.group.as_str() {
        "" => matches!(
            target.resource.plural.as_str(),
            "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ),
        "storage.k8s.io" => target.resource.plural != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    }
}
