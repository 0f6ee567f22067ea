//! Plugins for storage and ingress: protection finalizers, default classes, what may be resized.

use serde_json::Value;

use corten_api::quantity::Quantity;
use corten_api::status::Status;

use super::tools::{done, items, list_mut, map_mut, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::reader::Reader;

/// StorageObjectInUseProtection: what is in use is not deleted under its user.
pub(super) struct StorageObjectInUseProtection;

impl StorageObjectInUseProtection {
    fn finalizer(request: &AdmissionRequest) -> Option<&'static str> {
        match (request.group.as_str(), request.resource.as_str()) {
            ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
            ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
            ("storage.k8s.io", "volumeattributesclasses") => Some("kubernetes.io/vac-protection"),
            _ => None,
        }
    }
}

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.subresource.is_empty() && Self::finalizer(request).is_some()
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        if let (Some(finalizer), Some(object)) = (Self::finalizer(request), &mut request.object)
            && !items(&object["metadata"]["finalizers"]).any(|own| own == finalizer)
        {
            map_mut(object, "metadata");
            list_mut(&mut object["metadata"], "finalizers").push(finalizer.into());
        }
        done(Ok(()))
    }
}

/// The name of the class that annotations mark as the default; of several the newest.
fn default_class(reader: &Reader, group: &str, resource: &str, annotations: &[&str]) -> Option<String> {
    let classes = reader.list(group, resource, "");
    let marked = |class: &Value| annotations.iter().any(|annotation| class["metadata"]["annotations"][annotation] == "true");
    let mut classes: Vec<_> = classes.iter().map(|entry| entry.decode()).filter(marked).collect();
    classes.sort_by(|a, b| {
        let made = |class: &Value| text(class, "/metadata/creationTimestamp").to_owned();
        made(b).cmp(&made(a)).then_with(|| text(a, "/metadata/name").cmp(text(b, "/metadata/name")))
    });
    classes.first().map(|class| text(class, "/metadata/name").to_owned())
}

/// DefaultStorageClass: a claim that names no class gets the default one.
pub(super) struct DefaultStorageClass {
    pub(super) reader: Reader,
}

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is("", "persistentvolumeclaims")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        let Some(claim) = &mut request.object else { return done(Ok(())) };
        let annotated = claim["metadata"]["annotations"].get("volume.beta.kubernetes.io/storage-class").is_some();
        // An empty name is a choice: no class.
        if annotated || claim["spec"].get("storageClassName").is_some_and(|name| !name.is_null()) {
            return done(Ok(()));
        }
        let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        if let Some(class) = default_class(&self.reader, "storage.k8s.io", "storageclasses", &marks) {
            claim["spec"]["storageClassName"] = class.into();
        }
        done(Ok(()))
    }
}

/// DefaultIngressClass: an ingress that names no class gets the default one.
pub(super) struct DefaultIngressClass {
    pub(super) reader: Reader,
}

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is("networking.k8s.io", "ingresses")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        let Some(ingress) = &mut request.object else { return done(Ok(())) };
        let annotated = ingress["metadata"]["annotations"].get("kubernetes.io/ingress.class").is_some();
        if annotated || ingress["spec"].get("ingressClassName").is_some_and(|name| !name.is_null()) {
            return done(Ok(()));
        }
        let mark = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) = default_class(&self.reader, "networking.k8s.io", "ingressclasses", &mark) {
            map_mut(ingress, "spec").insert("ingressClassName".into(), class.into());
        }
        done(Ok(()))
    }
}

/// PersistentVolumeClaimResize: a claim grows only where its class allows it.
pub(super) struct PersistentVolumeClaimResize {
    pub(super) reader: Reader,
}

impl PersistentVolumeClaimResize {
    fn check(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&request.object, &request.old) else { return Ok(()) };
        let size = |claim: &Value| Quantity::parse(text(claim, "/spec/resources/requests/storage")).ok();
        let grows = size(new).zip(size(old)).is_some_and(|(new, old)| new > old);
        if !grows || text(old, "/status/phase") != "Bound" {
            return Ok(());
        }
        let class = self.reader.document("storage.k8s.io", "storageclasses", "", text(new, "/spec/storageClassName"));
        if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
            return Ok(());
        }
        Err(request.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update && request.is("", "persistentvolumeclaims")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        done(self.check(request))
    }
}
