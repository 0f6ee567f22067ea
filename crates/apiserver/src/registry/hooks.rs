//! What a few kinds need beside the generic steps: addresses and ports for Services.

use serde_json::Value;

use corten_api::catalogue::Resource;
use corten_api::status::Status;

use super::services::{self, Addresses};
use super::write::Writing;
use crate::allocator::PortClaim;

/// Something taken for a write that may still fail; given back when dropped.
#[must_use]
#[derive(Default)]
pub(crate) struct Reserved {
    addresses: Option<Addresses>,
    /// Held until the Service is in the cache, or is not going to be.
    _ports: Option<PortClaim>,
}

impl Reserved {
    pub(crate) fn of(addresses: Addresses, ports: PortClaim) -> Self {
        Self { addresses: Some(addresses), _ports: Some(ports) }
    }

    /// The write succeeded.
    pub(crate) fn keep(mut self) {
        if let Some(addresses) = &mut self.addresses {
            addresses.keep();
        }
    }
}

/// Before a new object is judged.
pub(crate) async fn before_create(writing: &Writing<'_>, document: &mut Value) -> Result<Reserved, Status> {
    if services::is_service(writing.target) {
        return services::before_create(writing, document).await;
    }
    Ok(Reserved::default())
}

/// Before a change is judged.
pub(crate) async fn before_update(writing: &Writing<'_>, document: &mut Value, old: &Value) -> Result<Reserved, Status> {
    if services::is_service(writing.target) && writing.subresource.is_empty() {
        return services::before_update(writing, document, old).await;
    }
    Ok(Reserved::default())
}

/// After a change is stored.
pub(crate) async fn after_update(writing: &Writing<'_>, document: &Value, old: &Value) {
    if services::is_service(writing.target) {
        services::release(writing, old, Some(document)).await;
    }
}

/// After an object is gone.
pub(crate) async fn after_delete(writing: &Writing<'_>, document: &Value) {
    if services::is_service(writing.target) {
        services::release(writing, document, None).await;
    }
}

/// Whether a deletion is answered with the object, for kinds whose clients came to expect it.
pub(crate) fn answers_deleted_object(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(
            resource.plural.as_str(),
            "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ),
        "storage.k8s.io" => resource.plural != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    }
}
