//! PersistentVolumeClaims, and the claim templates of other kinds.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write, semantic_equal};
use crate::pod::defaults;
use crate::quantity::Quantity;
use crate::{Column, Context, Strategy, check, columns, internal, names, resources, table};

pub(crate) struct PersistentVolumeClaims;

/// What the stored object has already, and so may keep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lax {
    selector: bool,
    api_group: bool,
}

pub(crate) const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

impl Strategy for PersistentVolumeClaims {
    fn default(&self, object: &mut Value) {
        defaults::claim_spec(object.object("spec"));
        let status = object.object("status");
        status.default_to("phase", "Pending");
        defaults::round_up(status, "capacity");
        defaults::round_up(status, "allocatedResources");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({ "phase": "Pending" }));
        data_sources(object.object("spec"), &Value::Null);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, &Path::new("spec"), &object["spec"], &Lax::default());
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        data_sources(object.object("spec"), &old["spec"]);
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        update(object, old)
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        status(object)
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut found = Vec::new();
        if object["metadata"]["annotations"].opt_text(BETA_CLASS).is_some() {
            let message = "deprecated since v1.8; use \"storageClassName\" attribute instead";
            found.push(format!("metadata.annotations[{BETA_CLASS}]: {message}"));
        }
        warnings(&mut found, "spec", &object["spec"]);
        found
    }

    fn columns(&self) -> &'static [Column] {
        columns::PERSISTENTVOLUMECLAIMS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let phase = if object["metadata"].has("deletionTimestamp") { "Terminating" } else { status.text("phase") };
        let bound = !spec.text("volumeName").is_empty();
        let (modes, capacity) = if bound {
            (short_modes(status), status["capacity"].opt_text("storage").unwrap_or("0").to_owned())
        } else {
            (String::new(), String::new())
        };
        let beta = object["metadata"]["annotations"].opt_text(BETA_CLASS);
        vec![
            table::name(object),
            phase.into(),
            spec.text("volumeName").into(),
            capacity.into(),
            modes.into(),
            beta.unwrap_or(spec.text("storageClassName")).into(),
            spec.opt_text("volumeAttributesClassName").unwrap_or("<unset>").into(),
            table::age(object, now),
            spec.opt_text("volumeMode").unwrap_or("<unset>").into(),
        ]
    }
}

/// `RWO,ROX`, each once.
pub(crate) fn short_modes(object: &Value) -> String {
    let all = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let have = |mode: &str| object.texts("accessModes").any(|have| have == mode);
    all.iter().filter(|(mode, _)| have(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// `dataSource` and `dataSourceRef` follow each other (KEP-1495). What a new claim may not refer to is dropped: other namespaces,
/// and in the older field anything but claims and snapshots.
fn data_sources(spec: &mut Value, old: &Value) {
    if !old.has("dataSourceRef") && !spec["dataSourceRef"].text("namespace").is_empty() {
        spec.drop_key("dataSourceRef");
    }
    if !["dataSource", "dataSourceRef"].iter().any(|key| old.has(key)) && !spec.has("dataSourceRef") {
        let source = &spec["dataSource"];
        let known = [("PersistentVolumeClaim", ""), ("VolumeSnapshot", "snapshot.storage.k8s.io")];
        if !known.contains(&(source.text("kind"), source.text("apiGroup"))) {
            spec.drop_key("dataSource");
        }
    }
    let foreign = spec["dataSourceRef"].opt_text("namespace").is_some_and(|namespace| !namespace.is_empty());
    match (spec.has("dataSource"), spec.has("dataSourceRef")) {
        (true, false) => {
            let source = spec["dataSource"].clone();
            spec.put("dataSourceRef", source);
        }
        (false, true) if !foreign => {
            let mut source = spec["dataSourceRef"].clone();
            source.drop_key("namespace");
            spec.put("dataSource", source);
        }
        _ => {}
    }
}

/// Access modes: known ones, and `ReadWriteOncePod` alone.
pub(crate) fn access_modes(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let at = path.child("accessModes");
    let (mut single, mut other) = (false, false);
    for mode in spec.texts("accessModes") {
        check::one_of(faults, &at, mode, ACCESS_MODES);
        single |= mode == "ReadWriteOncePod";
        other |= mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode);
    }
    if single && other {
        faults.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Faults of a claim's spec.
pub(crate) fn spec(faults: &mut Faults, path: &Path<'_>, spec: &Value, lax: &Lax) {
    if spec.list("accessModes").is_empty() {
        faults.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    check::label_selector(faults, &path.child("selector"), &spec["selector"], lax.selector);
    access_modes(faults, path, spec);
    let resources = path.child("resources");
    let at = resources.key("storage");
    match spec["resources"]["requests"].opt("storage") {
        None => faults.required(&at, ""),
        Some(amount) => {
            if check::positive_quantity(faults, &at, amount) {
                check::resource_quantity(faults, &at, "storage", amount);
            }
        }
    }
    for key in ["storageClassName", "volumeMode", "dataSource", "dataSourceRef"] {
        let at = path.child(key);
        match key {
            "storageClassName" => {
                let class = spec.text(key);
                if !class.is_empty() {
                    check::dns_subdomain(faults, &at, class);
                }
            }
            "volumeMode" => check::optional_one_of(faults, path, spec, key, VOLUME_MODES),
            _ => {
                if let Some(source) = spec.opt(key) {
                    data_source(faults, &at, source, lax.api_group);
                }
            }
        }
    }
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    // What is shown is the path of the field, which has nothing to show.
    let shown = "{}";
    if !reference.text("namespace").is_empty() {
        if !source.is_null() {
            check::invalid_shown(faults, path, shown, "may not be specified when dataSourceRef.namespace is specified");
        }
    } else if !source.is_null() && !reference.is_null() {
        let same = ["apiGroup", "kind", "name"].iter().all(|key| source[*key] == reference[*key]);
        if !same {
            check::invalid_shown(faults, path, shown, "must match dataSourceRef");
        }
    }
    let class = spec.text("volumeAttributesClassName");
    if !class.is_empty() {
        check::dns_subdomain(faults, &path.child("volumeAttributesClassName"), class);
    }
}

fn data_source(faults: &mut Faults, path: &Path<'_>, source: &Value, lax_group: bool) {
    for key in ["name", "kind"] {
        if source.text(key).is_empty() {
            faults.required(&path.child(key), "");
        }
    }
    let group = source.text("apiGroup");
    if group.is_empty() {
        if source.text("kind") != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            faults.invalid_str(path, source.text("kind"), detail);
        }
    } else if !lax_group {
        check::dns_subdomain(faults, &path.child("apiGroup"), group);
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        check::dns_label(faults, &path.child("namespace"), namespace);
    }
}

fn update(object: &Value, old: &Value) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("spec");
    let (new_spec, old_spec) = (&object["spec"], &old["spec"]);
    let mut selector_faults = Faults::default();
    check::label_selector(&mut selector_faults, &path, &old_spec["selector"], false);
    let lax = Lax {
        selector: !selector_faults.is_empty(),
        api_group: old_spec["dataSource"].has("apiGroup") || old_spec["dataSourceRef"].has("apiGroup"),
    };
    spec(&mut faults, &path, new_spec, &lax);
    let (mut now, mut before) = (new_spec.clone(), old_spec.clone());
    // A claim is bound once.
    if old_spec.text("volumeName").is_empty() {
        before.copy_from(new_spec, "volumeName");
    }
    let annotation = |object: &Value| object["metadata"]["annotations"].opt_text(BETA_CLASS).map(str::to_owned);
    let (was, is) = (annotation(old), annotation(object));
    let class = new_spec.opt_text("storageClassName");
    let from_annotation =
        was.is_some() && !old_spec.has("storageClassName") && class == was.as_deref() && (is.is_none() || is == was);
    if from_annotation {
        now.drop_key("storageClassName");
    } else {
        if was.clone().unwrap_or_default() != is.clone().unwrap_or_default() {
            let metadata = Path::new("metadata");
            let annotations = metadata.child("annotations");
            faults.invalid_str(&annotations.child(BETA_CLASS), &is.unwrap_or_default(), check::IMMUTABLE);
        }
        if class.is_some() && !old_spec.has("storageClassName") && was.as_deref().is_none_or(|was| Some(was) == class) {
            now.copy_from(old_spec, "storageClassName");
        }
    }
    let bound = object["status"].text("phase") == "Bound";
    if bound && now["resources"].has("requests") {
        let size = &old_spec["resources"]["requests"]["storage"];
        now.object("resources").object("requests").put("storage", size.clone());
    }
    if bound {
        now.copy_from(old_spec, "volumeAttributesClassName");
    }
    if !semantic_equal(&now, &before) {
        let diff = internal::diff("PersistentVolumeClaimSpec", &before, &now);
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        faults.forbidden(&path, &format!("{detail}\n{diff}"));
    }
    let size = |spec: &Value| Quantity::of(&spec["resources"]["requests"]["storage"]).unwrap_or_default();
    if size(new_spec).amount() < size(old_spec).amount() {
        let have = Quantity::of(&old["status"]["capacity"]["storage"]).unwrap_or_default();
        if size(new_spec).amount() <= have.amount() {
            let resources = path.child("resources");
            let requests = resources.child("requests");
            faults.forbidden(&requests.child("storage"), "field can not be less than status.capacity");
        }
    }
    check::immutable(&mut faults, &Path::new("volumeMode"), &new_spec["volumeMode"], &old_spec["volumeMode"]);
    let class = new_spec.opt_text("volumeAttributesClassName");
    if class != old_spec.opt_text("volumeAttributesClassName") && old["status"].has("currentVolumeAttributesClassName") {
        let what = match class {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return faults,
        };
        let detail = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        faults.forbidden(&path.child("volumeAttributesClassName"), &detail);
    }
    faults
}

fn status(object: &Value) -> Faults {
    let mut faults = Faults::default();
    if object["spec"].list("accessModes").is_empty() {
        faults.required(&Path::new("Spec").child("accessModes"), "");
    }
    let root = Path::new("status");
    let status = &object["status"];
    let not_negative = |faults: &mut Faults, path: &Path<'_>, amount: &Value| {
        let negative = Quantity::of(amount).filter(|amount| amount.value() < 0);
        if let Some(amount) = &negative {
            faults.invalid_int(path, amount.value(), "must be a valid resource quantity");
        }
        negative.is_none()
    };
    let at = root.child("capacity");
    for (name, amount) in status.map("capacity") {
        not_negative(&mut faults, &at.key(name), amount);
    }
    const STATES: &[&str] = &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let at = root.child("allocatedResourceStatuses");
    for (name, state) in status.map("allocatedResourceStatuses") {
        resource_key(&mut faults, &at, name);
        if !state.as_str().is_some_and(|state| STATES.contains(&state)) {
            faults.not_supported(&at, name, STATES);
        }
    }
    let at = root.child("allocatedResources");
    for (name, amount) in status.map("allocatedResources") {
        if resource_key(&mut faults, &at, name) && not_negative(&mut faults, &at.key(name), amount) {
            check::resource_quantity(&mut faults, &at.key(name), "storage", amount);
        }
    }
    faults
}

fn resource_key(faults: &mut Faults, path: &Path<'_>, name: &str) -> bool {
    let wrong = names::qualified_name(name);
    let bad_name = !wrong.is_empty();
    check::invalid_each(faults, path, name, wrong);
    let unsupported = !bad_name && resources::is_native(name) && name != "storage";
    if unsupported {
        faults.not_supported(path, name, &["storage"]);
    }
    !bad_name && !unsupported
}

/// Warnings about a claim's spec at `at`.
pub(crate) fn warnings(warnings: &mut Vec<String>, at: &str, spec: &Value) {
    let fractional = |list: &str| {
        Quantity::of(&spec["resources"][list]["storage"]).filter(|amount| !amount.is_whole()).map(|amount| amount.to_string())
    };
    for list in ["requests", "limits"] {
        if let Some(amount) = fractional(list) {
            let shown = corten_api::field::quoted(&amount);
            warnings
                .push(format!("{at}.resources.{list}[storage]: fractional byte value {shown} is invalid, must be an integer"));
        }
    }
}

#[cfg(test)]
mod tests;
