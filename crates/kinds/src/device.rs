//! `resource.k8s.io`: DeviceClasses, ResourceClaims and their templates, ResourceSlices: defaults, isolation, table rows and what
//! may not change. [`validation`] and [`slice`] have the rules of their specs.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write, semantic_equal};
use crate::{Column, Context, Strategy, check, columns, internal, meta, table};

mod capacity;
mod selector;
mod slice;
mod status;
mod validation;

pub use status::{ClaimChanges, claim_changes};

pub(crate) struct DeviceClasses;

impl Strategy for DeviceClasses {
    fn default(&self, object: &mut Value) {
        object.object("spec");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        validation::class(&mut faults, &Path::new("spec"), &object["spec"]);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn columns(&self) -> &'static [Column] {
        columns::DEVICECLASSES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        table::name_and_age(object, now)
    }
}

/// Requests ask for one device unless they say otherwise.
fn default_claim(spec: &mut Value) {
    let one = |request: &mut Value| {
        if request.text("allocationMode").is_empty() {
            request.put("allocationMode", "ExactCount");
        }
        if request.text("allocationMode") == "ExactCount" {
            request.default_int("count", 1);
        }
        for toleration in request.items("tolerations") {
            toleration.default_to("operator", "Equal");
        }
    };
    for request in spec.object("devices").items("requests") {
        if let Some(exactly) = request.child("exactly") {
            one(exactly);
        }
        request.items("firstAvailable").for_each(one);
    }
}

pub(crate) struct ResourceClaims;

impl Strategy for ResourceClaims {
    fn default(&self, object: &mut Value) {
        default_claim(object.object("spec"));
        let status = object.object("status");
        if let Some(devices) = status.child("allocation").and_then(|allocation| allocation.child("devices")) {
            for toleration in devices.items("results").flat_map(|result| result.items("tolerations")) {
                toleration.default_to("operator", "Equal");
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({}));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        validation::claim(&mut faults, &Path::new("spec"), &object["spec"]);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::keep_all_but_status(object, old);
        status::drop_deallocated(object.object("status"), &old["status"]);
    }

    fn validate_status(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        validation::claim_status(&mut faults, &Path::new("status"), object, &old["status"]);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        if !semantic_equal(&object["spec"], &old["spec"]) {
            let shown = internal::shown("ResourceClaimSpec", &object["spec"]);
            check::invalid_shown(&mut faults, &Path::new("spec"), &shown, check::IMMUTABLE);
        }
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::RESOURCECLAIMS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let mut states = Vec::new();
        if object["metadata"].has("deletionTimestamp") {
            states.push("deleted");
        }
        if !status.has("allocation") {
            if !object["metadata"].has("deletionTimestamp") {
                states.push("pending");
            }
        } else {
            states.push("allocated");
            if !status.list("reservedFor").is_empty() {
                states.push("reserved");
            }
        }
        vec![table::name(object), states.join(",").into(), table::age(object, now)]
    }
}

/// Whether the objects of a kind may ask for administrative access to devices.
#[must_use]
pub fn may_want_admin_access(group: &str, plural: &str) -> bool {
    group == "resource.k8s.io" && matches!(plural, "resourceclaims" | "resourceclaimtemplates")
}

/// The fault of a claim or a template that asks for administrative access to devices, or of the status of a claim that got it, in a
/// namespace without the label that allows it. `old` is what is there before an update; specs do not change.
#[must_use]
pub fn admin_access_faults(object: &Value, old: Option<&Value>) -> Faults {
    const WHY: &str =
        "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    let mut faults = Faults::default();
    let wanted = |list: &Value, key: &str, admin: fn(&Value) -> bool| list["devices"].list(key).iter().position(admin);
    if let Some(old) = old {
        let (now, before) = (&object["status"]["allocation"], &old["status"]["allocation"]);
        if !semantic_equal(now, before)
            && let Some(index) = wanted(now, "results", |result| result.flag("adminAccess"))
        {
            let path = Path::new("status");
            let path = path.child("allocation");
            let path = path.child("devices");
            let path = path.child("results");
            faults.forbidden(&path.index(index).child("adminAccess"), WHY);
        }
        return faults;
    }
    let spec = if object["spec"].has("spec") { &object["spec"]["spec"] } else { &object["spec"] };
    if let Some(index) = wanted(spec, "requests", |request| request["exactly"].flag("adminAccess")) {
        let path = Path::new("spec");
        let path = path.child("devices");
        let path = path.child("requests");
        faults.forbidden(&path.index(index).child("adminAccess"), WHY);
    }
    faults
}

/// What the metadata of a template may not say, by its name in JSON and in faults.
const NOT_OF_TEMPLATES: [(&str, &str); 13] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

pub(crate) struct ResourceClaimTemplates;

impl Strategy for ResourceClaimTemplates {
    fn default(&self, object: &mut Value) {
        default_claim(object.object("spec").object("spec"));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let (metadata, at) = (&object["spec"]["metadata"], path.child("metadata"));
        check::annotations(&mut faults, &at.child("annotations"), metadata.map("annotations"));
        check::labels(&mut faults, &at.child("labels"), metadata.map("labels"));
        for (key, shown) in NOT_OF_TEMPLATES {
            if metadata.has(key) {
                faults.forbidden(&at.child(shown), "cannot be set");
            }
        }
        validation::claim(&mut faults, &path.child("spec"), &object["spec"]["spec"]);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        if !semantic_equal(&object["spec"], &old["spec"]) {
            let shown = internal::shown("ResourceClaimTemplateSpec", &object["spec"]);
            check::invalid_shown(&mut faults, &Path::new("spec"), &shown, check::IMMUTABLE);
        }
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::RESOURCECLAIMTEMPLATES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        table::name_and_age(object, now)
    }
}

pub(crate) struct ResourceSlices;

/// Attributes with lists of values, which are an alpha feature.
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// Drops fields of alpha features from devices, unless the slice there is uses them already.
fn drop_disabled(spec: &mut Value, old: &Value) {
    let lists_used = old
        .list("devices")
        .iter()
        .flat_map(|device| device.map("attributes").values())
        .any(|attribute| LISTS.iter().any(|key| attribute.has(key)));
    let mappings_used = old.list("devices").iter().any(|device| !device.map("nodeAllocatableResourceMappings").is_empty());
    for device in spec.items("devices") {
        if !mappings_used {
            device.drop_key("nodeAllocatableResourceMappings");
        }
        if let (false, Some(attributes)) = (lists_used, device.get_mut("attributes").and_then(Value::as_object_mut)) {
            attributes.values_mut().for_each(|attribute| LISTS.iter().for_each(|key| attribute.drop_key(key)));
        }
    }
}

impl Strategy for ResourceSlices {
    fn default_at(&self, object: &mut Value, now: jiff::Timestamp) {
        for taint in object.object("spec").items("devices").flat_map(|device| device.items("taints")) {
            if !taint.has("timeAdded") {
                taint.put("timeAdded", corten_api::time::seconds(now));
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
        drop_disabled(object.object("spec"), &Value::Null);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::bump_generation(object, old, |object| &object["spec"]);
        drop_disabled(object.object("spec"), &old["spec"]);
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let driver = object["spec"].text("driver");
        if driver.to_lowercase() == driver {
            return Vec::new();
        }
        let shown = corten_api::field::quoted(driver);
        vec![format!("spec.driver: driver names should be lowercase; {shown} contains uppercase characters")]
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        slice::slice(&mut faults, &Path::new("spec"), &object["spec"], None);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        slice::slice(&mut faults, &Path::new("spec"), &object["spec"], Some(&old["spec"]));
        faults
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let spec = &object["spec"];
        vec![("spec.driver", spec.text("driver").into()), ("spec.nodeName", spec.text("nodeName").into())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::RESOURCESLICES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let node = spec.text("nodeName");
        vec![
            table::name(object),
            node.into(),
            spec.text("driver").into(),
            spec["pool"].text("name").into(),
            table::age(object, now),
        ]
    }
}
