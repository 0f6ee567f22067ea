//! What CSI drivers and their controllers write: CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment,
//! VolumeAttributesClass.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write, semantic_equal};
use crate::pod::warnings::deprecated_label;
use crate::pod::{defaults, volumes};
use crate::quantity::Quantity;
use crate::{Column, Context, Strategy, check, columns, internal, meta, table, volume};

pub(crate) struct CsiDrivers;

const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;

impl Strategy for CsiDrivers {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        for (key, value) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            if !spec.has(key) {
                spec.put(key, value);
            }
        }
        if !spec.has("fsGroupPolicy") {
            spec.put("fsGroupPolicy", "ReadWriteOnceWithFSType");
        }
        if spec.list("volumeLifecycleModes").is_empty() {
            spec.put("volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let spec = &object["spec"];
        check::optional_one_of(&mut faults, &path, spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]);
        tokens(&mut faults, &path.child("tokenRequests"), spec.list("tokenRequests"));
        for mode in spec.texts("volumeLifecycleModes") {
            check::one_of(&mut faults, &path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
        }
        if let Some(seconds) = spec.opt_int("nodeAllocatableUpdatePeriodSeconds").filter(|seconds| *seconds < 10) {
            let at = path.child("nodeAllocatableUpdatePeriodSeconds");
            faults.invalid_int(&at, seconds, "must be greater than or equal to 10 seconds");
        }
        if spec.has("serviceAccountTokenInSecrets") && spec.list("tokenRequests").is_empty() {
            let at = path.child("serviceAccountTokenInSecrets");
            let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            faults.invalid(&at, &spec["serviceAccountTokenInSecrets"], detail);
        }
        faults
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        // `VolumeLimitScaling` is off.
        object.object("spec").drop_key("preventPodSchedulingIfMissing");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        if !old["spec"].has("preventPodSchedulingIfMissing") {
            object.object("spec").drop_key("preventPodSchedulingIfMissing");
        }
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        let path = Path::new("spec");
        // The reference server misspells the first in its messages.
        for (key, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
            check::immutable(&mut faults, &path.child(shown), &object["spec"][key], &old["spec"][key]);
        }
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let spec = &object["spec"];
        let changed = old.is_none_or(|old| !semantic_equal(&old["spec"]["tokenRequests"], &spec["tokenRequests"]));
        if changed && !spec.list("tokenRequests").is_empty() && !spec.has("serviceAccountTokenInSecrets") {
            let text = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible \
                        logging of tokens in volume attributes";
            return vec![text.into()];
        }
        Vec::new()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::CSIDRIVERS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let audiences: Vec<&str> = spec.list("tokenRequests").iter().map(|token| token.text("audience")).collect();
        let audiences = if audiences.is_empty() { "<unset>".into() } else { audiences.join(",") };
        let modes = spec.texts("volumeLifecycleModes").collect::<Vec<_>>().join(",");
        vec![
            table::name(object),
            spec.opt_flag("attachRequired").unwrap_or(true).into(),
            spec.flag("podInfoOnMount").into(),
            spec.flag("storageCapacity").into(),
            audiences.into(),
            spec.flag("requiresRepublish").into(),
            table::or(&modes, "<none>").into(),
            table::age(object, now),
        ]
    }
}

fn tokens(faults: &mut Faults, path: &Path<'_>, tokens: &[Value]) {
    let mut seen = HashSet::new();
    for (i, token) in tokens.iter().enumerate() {
        let at = path.index(i);
        if !seen.insert(token.text("audience")) {
            check::duplicate(faults, &at.child("audience"), token.text("audience"));
            continue;
        }
        let Some(seconds) = token.opt_int("expirationSeconds") else { continue };
        if seconds < *TOKEN_SECONDS.start() {
            let detail = "may not specify a duration less than 10 minutes";
            faults.invalid_int(&at.child("expirationSeconds"), seconds, detail);
        }
        if seconds > *TOKEN_SECONDS.end() {
            let detail = "may not specify a duration larger than 2^32 seconds";
            faults.invalid_int(&at.child("expirationSeconds"), seconds, detail);
        }
    }
}

pub(crate) struct CsiNodes;

impl Strategy for CsiNodes {
    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        let path = spec.child("drivers");
        let mut seen = HashSet::new();
        for (i, driver) in object["spec"].list("drivers").iter().enumerate() {
            let at = path.index(i);
            let (name, id) = (driver.text("name"), driver.text("nodeID"));
            volumes::csi_driver_name(&mut faults, &at.child("name"), name);
            if id.is_empty() {
                faults.required(&at.child("nodeID"), "");
            }
            if id.len() > 256 {
                faults.invalid_str(&at.child("nodeID"), id, "must be 256 characters or less");
            }
            if let Some(count) = driver["allocatable"].opt_int("count") {
                check::not_negative(&mut faults, &at.child("allocatable").child("count"), count);
            }
            if !seen.insert(name) {
                check::duplicate(&mut faults, &at.child("name"), name);
            }
            let keys = driver.texts("topologyKeys");
            let mut known = HashSet::new();
            for key in keys {
                if key.is_empty() {
                    faults.required(&at, "");
                }
                if !known.insert(key) {
                    check::duplicate(&mut faults, &at, key);
                }
                check::qualified_name(&mut faults, &at, key);
            }
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        let path = Path::new("spec");
        for before in old["spec"].list("drivers") {
            for now in object["spec"].list("drivers").iter().filter(|now| now.text("name") == before.text("name")) {
                let mut same_but_count = now.clone();
                same_but_count.copy_from(before, "allocatable");
                if !semantic_equal(&same_but_count, before) {
                    same_but_count.drop_key("allocatable");
                    let shown = internal::shown("CSINodeDriver", &same_but_count);
                    check::invalid_shown(&mut faults, &path.child("drivers"), &shown, check::IMMUTABLE);
                }
            }
        }
        faults
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::CSINODES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object["spec"].list("drivers").len().into(), table::age(object, now)]
    }
}

pub(crate) struct CsiStorageCapacities;

impl Strategy for CsiStorageCapacities {
    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        check::label_selector(&mut faults, &Path::new("nodeTopology"), &object["nodeTopology"], false);
        check::dns_subdomain(&mut faults, &Path::new("storageClassName"), object.text("storageClassName"));
        if let Some(amount) = Quantity::of(&object["capacity"]).filter(Quantity::is_negative) {
            faults.invalid_str(&Path::new("capacity"), &amount.to_string(), check::NEGATIVE);
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        for (key, kind) in [("nodeTopology", "*LabelSelector"), ("storageClassName", "s")] {
            check::immutable_as(&mut faults, &Path::new(key), kind, &object[key], &old[key]);
        }
        faults
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let selector = &object["nodeTopology"];
        let mut warnings = Vec::new();
        for (i, expression) in selector.list("matchExpressions").iter().enumerate() {
            let key = expression.text("key");
            if let Some(message) = deprecated_label(key) {
                warnings.push(format!("nodeTopology.matchExpressions[{i}].key: {key} is {message}"));
            }
        }
        for label in selector.map("matchLabels").keys() {
            if let Some(message) = deprecated_label(label) {
                warnings.push(format!("nodeTopology.matchLabels.{label}: {message}"));
            }
        }
        warnings
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

pub(crate) struct VolumeAttachments;

impl Strategy for VolumeAttachments {
    fn default(&self, object: &mut Value) {
        if let Some(inline) = object.object("spec").object("source").child("inlineVolumeSpec") {
            defaults::common_volume_source(inline);
        }
        let status = object.object("status");
        if !status.has("attached") {
            status.put("attached", false);
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({ "attached": false }));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        attachment(object)
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::keep_all_but_status(object, old);
    }

    fn validate_status(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        self.validate_update(object, old, ctx)
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = attachment(object);
        if !semantic_equal(&object["spec"], &old["spec"]) {
            let shown = internal::shown("VolumeAttachmentSpec", &object["spec"]);
            check::invalid_shown(&mut faults, &Path::new("spec"), &shown, check::IMMUTABLE);
        }
        faults
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::VOLUMEATTACHMENTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            table::name(object),
            spec.text("attacher").into(),
            spec["source"].text("persistentVolumeName").into(),
            spec.text("nodeName").into(),
            object["status"].flag("attached").into(),
            table::age(object, now),
        ]
    }
}

fn attachment(object: &Value) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("spec");
    let spec = &object["spec"];
    volumes::csi_driver_name(&mut faults, &path.child("attacher"), spec.text("attacher"));
    let source = &spec["source"];
    let at = path.child("source");
    match (source.opt("inlineVolumeSpec"), source.opt_text("persistentVolumeName")) {
        (None, None) => faults.required(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (Some(_), Some(_)) => faults.forbidden(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (None, Some("")) => {
            faults.required(&at.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (None, Some(_)) => {}
        (Some(inline), None) => volume::spec(
            &mut faults,
            &at.child("inlineVolumeSpec"),
            inline,
            &volume::Known { inline: true, ..volume::Known::default() },
        ),
    }
    check::dns_subdomain(&mut faults, &path.child("nodeName"), spec.text("nodeName"));
    let path = Path::new("status");
    let status = &object["status"];
    let metadata = status.map("attachmentMetadata");
    if metadata.iter().map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum::<usize>() > MAX_METADATA {
        faults.too_long(&path.child("attachmentMetadata"), MAX_METADATA);
    }
    for key in ["attachError", "detachError"] {
        let at = path.child(key);
        if status[key].text("message").len() > MAX_MESSAGE {
            // The limit named is that of the metadata.
            faults.too_long(&at.child("message"), MAX_METADATA);
        }
        if let Some(code) = status[key].opt_int("errorCode").filter(|code| *code < 0) {
            faults.invalid_int(&at.child("errorCode"), code, "must be between 0 and 2147483647, inclusive");
        }
    }
    if let Some(name) = source.opt_text("persistentVolumeName") {
        check::dns_subdomain(&mut faults, &Path::new("spec.source.persistentVolumeName"), name);
    }
    faults
}

/// Most bytes of what an attacher says about an attachment: 256 KiB.
const MAX_METADATA: usize = 256 * 1024;
/// Most bytes of an error's message: 1 KiB.
const MAX_MESSAGE: usize = 1024;

pub(crate) struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let driver = object.text("driverName");
        let path = Path::new("driverName");
        if driver.is_empty() {
            faults.required(&path, "");
        } else {
            check::qualified_name(&mut faults, &path, &driver.to_lowercase());
        }
        super::parameters(&mut faults, object, false);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        if object["driverName"] != old["driverName"] {
            faults.forbidden(&Path::new("driverName"), "updates to driverName are forbidden.");
        }
        if object.map("parameters") != old.map("parameters") {
            faults.forbidden(&Path::new("parameters"), "updates to parameters are forbidden.");
        }
        faults.0.extend(self.validate(object, ctx).0);
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::VOLUMEATTRIBUTESCLASSES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object.text("driverName").into(), table::age(object, now)]
    }
}
