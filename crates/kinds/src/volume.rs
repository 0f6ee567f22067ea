//! PersistentVolumes.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::claim::{VOLUME_MODES, access_modes, short_modes};
use crate::doc::{Read, Write, semantic_equal};
use crate::pod::{defaults, scheduling, volumes};
use crate::quantity::Quantity;
use crate::{Column, Context, Strategy, check, columns, internal, names, table};

pub(crate) struct PersistentVolumes;

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

impl Strategy for PersistentVolumes {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        defaults::round_up(spec, "capacity");
        defaults::common_volume_source(spec);
        spec.default_to("persistentVolumeReclaimPolicy", "Retain");
        if !spec.has("volumeMode") {
            spec.put("volumeMode", "Filesystem");
        }
        object.object("status").default_to("phase", "Pending");
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Context<'_>) {
        object.put("status", json!({ "phase": "Pending", "lastPhaseTransitionTime": corten_api::time::seconds(ctx.now) }));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let name = object["metadata"].text("name");
        spec(&mut faults, &Path::new("spec"), &object["spec"], &Known { name, ..Known::default() });
        mount_options(&mut faults, object);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        object.copy_from(old, "spec");
        let status = object.object("status");
        let before = &old["status"];
        if status.text("phase") == before.text("phase") {
            if !status.has("lastPhaseTransitionTime") {
                status.copy_from(before, "lastPhaseTransitionTime");
            }
        } else if !status.has("lastPhaseTransitionTime") || status["lastPhaseTransitionTime"] == before["lastPhaseTransitionTime"]
        {
            status.put("lastPhaseTransitionTime", corten_api::time::seconds(ctx.now));
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let (new_spec, old_spec) = (&object["spec"], &old["spec"]);
        let known = Known { name: object["metadata"].text("name"), lax_labels: has_invalid_labels(old_spec), inline: false };
        // Once as a whole, and once as the first part of the change.
        spec(&mut faults, &path, new_spec, &known);
        mount_options(&mut faults, object);
        spec(&mut faults, &path, new_spec, &known);
        let mut now = source_of(new_spec);
        let before = source_of(old_spec);
        if before.has("csi") && !before["csi"].has("controllerExpandSecretRef") && now.has("csi") {
            now.object("csi").drop_key("controllerExpandSecretRef");
        }
        if !semantic_equal(&now, &before) {
            let diff = internal::diff("PersistentVolumeSource", &before, &now);
            let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
            faults.forbidden(&path.child("persistentvolumesource"), &detail);
        }
        check::immutable(&mut faults, &Path::new("volumeMode"), &new_spec["volumeMode"], &old_spec["volumeMode"]);
        if old_spec.has("nodeAffinity")
            && !semantic_equal(&new_spec["nodeAffinity"], &relabelled(&old_spec["nodeAffinity"], &new_spec["nodeAffinity"]))
        {
            let shown = internal::shown("*VolumeNodeAffinity", &new_spec["nodeAffinity"]);
            let detail = "field is immutable, except for updating from beta label to GA";
            check::invalid_shown(&mut faults, &Path::new("nodeAffinity"), &shown, detail);
        }
        if old_spec.has("volumeAttributesClassName") && !new_spec.has("volumeAttributesClassName") {
            faults.forbidden(&path.child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden");
        }
        faults
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        columns::PERSISTENTVOLUMES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let claim =
            spec.opt("claimRef").map_or(String::new(), |claim| format!("{}/{}", claim.text("namespace"), claim.text("name")));
        let phase = if object["metadata"].has("deletionTimestamp") { "Terminating" } else { status.text("phase") };
        let beta = object["metadata"]["annotations"].opt_text("volume.beta.kubernetes.io/storage-class");
        vec![
            table::name(object),
            spec["capacity"].opt_text("storage").unwrap_or("0").into(),
            short_modes(spec).into(),
            spec.text("persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            beta.unwrap_or(spec.text("storageClassName")).into(),
            spec.opt_text("volumeAttributesClassName").unwrap_or("<unset>").into(),
            status.text("reason").into(),
            table::age(object, now),
            spec.opt_text("volumeMode").unwrap_or("<unset>").into(),
        ]
    }
}

/// What is known of a volume besides its spec.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known<'a> {
    /// Its name, which some sources use.
    pub(crate) name: &'a str,
    /// It is written into a VolumeAttachment.
    pub(crate) inline: bool,
    /// It has invalid values of labels already, and may keep them.
    pub(crate) lax_labels: bool,
}

/// Whether nodes are required to have labels that no node can have.
fn has_invalid_labels(spec: &Value) -> bool {
    let terms = spec["nodeAffinity"]["required"].list("nodeSelectorTerms").iter();
    let mut values = terms.flat_map(|term| term.list("matchExpressions")).flat_map(|requirement| requirement.texts("values"));
    values.any(|value| !names::label_value(value).is_empty())
}

/// The annotation of the time before `mountOptions` is only for sources that are mounted.
fn mount_options(faults: &mut Faults, object: &Value) {
    const MOUNTED: &[&str] = &[
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    ];
    if object["metadata"]["annotations"].has(MOUNT_OPTIONS) && !MOUNTED.iter().any(|key| object["spec"].has(key)) {
        let metadata = Path::new("metadata");
        let annotations = metadata.child("annotations");
        faults.forbidden(&annotations.child(MOUNT_OPTIONS), "may not specify mount options for this volume type");
    }
}

/// Everything in a spec that says where the data is.
fn source_of(spec: &Value) -> Value {
    let mut source = json!({});
    for (name, ..) in SOURCES {
        source.copy_from(spec, name);
    }
    source
}

/// `affinity` with the node labels that `new` calls otherwise by the names that they have there, where that is allowed: a label of
/// the beta may become the one of today. What had no such name may lose it.
fn relabelled(affinity: &Value, new: &Value) -> Value {
    let mut affinity = affinity.clone();
    let Some(required) = affinity.child("required") else { return affinity };
    for (term, new) in required.items("nodeSelectorTerms").zip(new["required"].list("nodeSelectorTerms")) {
        for list in ["matchExpressions", "matchFields"] {
            for (requirement, new) in term.items(list).zip(new.list(list)) {
                if label_of_today(requirement.text("key")) == new.text("key") {
                    requirement.put("key", new["key"].clone());
                }
            }
        }
    }
    affinity
}

/// The name that a label of the beta has today; empty for all others.
fn label_of_today(label: &str) -> &'static str {
    match label {
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        "beta.kubernetes.io/os" => "kubernetes.io/os",
        "beta.kubernetes.io/arch" => "kubernetes.io/arch",
        "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
        _ => "",
    }
}

type Check = fn(&mut Faults, &Path<'_>, &Value, &str);

/// Field, name under which its faults are reported, name under which a second source is refused, checks.
static SOURCES: &[(&str, &str, &str, Check)] = &[
    ("hostPath", "hostPath", "hostPath", |f, p, v, _| volumes::host_path(f, p, v)),
    ("gcePersistentDisk", "persistentDisk", "gcePersistentDisk", |f, p, v, _| volumes::disk(f, p, v, "pdName")),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", |f, p, v, _| volumes::disk(f, p, v, "volumeID")),
    ("glusterfs", "glusterfs", "glusterfs", |f, p, v, _| {
        volumes::required(f, p, v, &["endpoints", "path"]);
        if let Some(namespace) = v.opt_text("endpointsNamespace") {
            let at = p.child("endpointsNamespace");
            if namespace.is_empty() {
                f.invalid_str(&at, namespace, "if the endpointnamespace is set, it must be a valid namespace name");
            } else {
                check::dns_label(f, &at, namespace);
            }
        }
    }),
    ("flocker", "flocker", "flocker", |f, p, v, _| volumes::flocker(f, p, v)),
    ("nfs", "nfs", "nfs", |f, p, v, _| volumes::nfs(f, p, v)),
    ("rbd", "rbd", "rbd", |f, p, v, _| volumes::rbd(f, p, v)),
    ("quobyte", "quobyte", "quobyte", |f, p, v, _| volumes::quobyte(f, p, v)),
    ("cephfs", "cephfs", "cephFS", |f, p, v, _| volumes::required_list(f, p, v, "monitors")),
    ("iscsi", "iscsi", "iscsi", |f, p, v, name| volumes::iscsi(f, p, v, Some(name))),
    ("cinder", "cinder", "cinder", |f, p, v, _| {
        volumes::required(f, p, v, &["volumeID"]);
        full_secret(f, p, v);
    }),
    ("fc", "fc", "fc", |f, p, v, _| volumes::fc(f, p, v)),
    ("flexVolume", "flexVolume", "flexVolume", |f, p, v, _| volumes::flex(f, p, v)),
    ("azureFile", "azureFile", "azureFile", |f, p, v, _| {
        volumes::required(f, p, v, &["secretName", "shareName"]);
        if v.opt_text("secretNamespace") == Some("") {
            f.required(&p.child("secretNamespace"), "");
        }
    }),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", |f, p, v, _| volumes::required(f, p, v, &["volumePath"])),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", |f, p, v, _| volumes::required(f, p, v, &["pdID"])),
    ("portworxVolume", "portworxVolume", "portworxVolume", |f, p, v, _| volumes::required(f, p, v, &["volumeID"])),
    ("azureDisk", "azureDisk", "azureDisk", |f, p, v, _| volumes::azure_disk(f, p, v)),
    ("scaleIO", "scaleIO", "scaleIO", |f, p, v, _| volumes::required(f, p, v, &["gateway", "system", "volumeName"])),
    ("local", "local", "local", |f, p, v, _| {
        volumes::required(f, p, v, &["path"]);
        check::no_backsteps(f, &p.child("path"), v.text("path"));
    }),
    ("storageos", "storageos", "storageos", |f, p, v, _| {
        volumes::storage_os(f, p, v);
        full_secret(f, p, v);
    }),
    ("csi", "csi", "csi", |f, p, v, _| csi(f, p, v)),
];

fn full_secret(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    if let Some(secret) = source.opt("secretRef") {
        volumes::required(faults, &path.child("secretRef"), secret, &["name", "namespace"]);
    }
}

fn csi(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    volumes::csi_driver_name(faults, &path.child("driver"), source.text("driver"));
    volumes::required(faults, path, source, &["volumeHandle"]);
    for key in ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"] {
        let Some(secret) = source.opt(key) else { continue };
        let at = path.child(key);
        let (name, namespace) = (secret.text("name"), secret.text("namespace"));
        check::required(faults, &at.child("name"), name, check::dns_subdomain);
        check::required(faults, &at.child("namespace"), namespace, check::dns_label);
    }
}

/// Faults of a volume's spec.
pub(crate) fn spec(faults: &mut Faults, path: &Path<'_>, spec: &Value, known: &Known<'_>) {
    let Known { name, inline, lax_labels } = *known;
    const INLINE: &str = "may not be specified in the context of inline volumes";
    if inline {
        for key in ["claimRef", "capacity"] {
            if spec.has(key) {
                faults.forbidden(&path.child(key), INLINE);
            }
        }
        if !spec.has("csi") {
            faults.required(&path.child("csi"), "has to be specified in the context of inline volumes");
        }
    }
    if spec.list("accessModes").is_empty() {
        faults.required(&path.child("accessModes"), "");
    }
    access_modes(faults, path, spec);
    if !inline {
        capacity(faults, &path.child("capacity"), spec);
    }
    let policy = spec.text("persistentVolumeReclaimPolicy");
    let policy_at = path.child("persistentVolumeReclaimPolicy");
    if inline && !matches!(policy, "" | "Retain") {
        faults.forbidden(&policy_at, "may only be Retain in the context of inline volumes");
    } else if !inline && !policy.is_empty() {
        check::one_of(faults, &policy_at, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = spec.opt("nodeAffinity") {
        let at = path.child("nodeAffinity");
        if inline {
            faults.forbidden(&at, INLINE);
        } else {
            match affinity.opt("required") {
                Some(required) => scheduling::node_selector(faults, &at.child("required"), required, lax_labels),
                None => faults.required(&at.child("required"), "must specify required node constraints"),
            }
        }
    }
    sources(faults, path, spec, name, inline);
    let host_path = spec["hostPath"].opt_text("path");
    if policy == "Recycle"
        && host_path.is_some_and(|path| path.split('/').all(|part| part.is_empty() || part == ".") && path.starts_with('/'))
    {
        faults.forbidden(&policy_at, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        if inline {
            faults.forbidden(&path.child("storageClassName"), INLINE);
        } else {
            check::dns_subdomain(faults, &path.child("storageClassName"), class);
        }
    }
    if let Some(mode) = spec.opt_text("volumeMode") {
        let at = path.child("volumeMode");
        if inline && mode != "Filesystem" {
            faults.forbidden(&at, "may not specify volumeMode other than Filesystem in the context of inline volumes");
        } else if !inline {
            check::one_of(faults, &at, mode, VOLUME_MODES);
        }
    }
    if let Some(class) = spec.opt_text("volumeAttributesClassName").filter(|_| !inline) {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            faults.required(&at, "an empty string is disallowed");
        } else {
            check::dns_subdomain(faults, &at, class);
        }
        if !spec.has("csi") {
            faults.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn capacity(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let list = spec.map("capacity");
    if list.is_empty() {
        faults.required(path, "");
    }
    if !list.contains_key("storage") || list.len() > 1 {
        check::not_supported_shown(faults, path, &spec["capacity"].to_string(), &["storage"]);
    }
    for (name, amount) in list {
        let at = path.key(name);
        if let Some(amount) = Quantity::of(amount).filter(|amount| amount.value() < 0) {
            faults.invalid_int(&at, amount.value(), "must be a valid resource quantity");
        }
        check::positive_quantity(faults, &at, amount);
    }
}

fn sources(faults: &mut Faults, path: &Path<'_>, spec: &Value, name: &str, inline: bool) {
    let mut found = false;
    for (field, shown, refused, check) in SOURCES {
        let Some(source) = spec.opt(field) else { continue };
        if found && *field != "flexVolume" {
            faults.forbidden(&path.child(refused), "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        check(faults, &path.child(shown), source, name);
        if *field == "local" && (inline || !spec.has("nodeAffinity")) {
            faults.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if !found {
        faults.required(path, "must specify a volume type");
    }
}

fn warnings(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let mut found = Vec::new();
    if object["metadata"]["annotations"].opt_text("volume.beta.kubernetes.io/storage-class").is_some() {
        found.push(
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute \
             instead"
                .into(),
        );
    }
    if object["metadata"]["annotations"].opt_text("volume.beta.kubernetes.io/mount-options").is_some() {
        found.push(
            "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute \
             instead"
                .into(),
        );
    }
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        found.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use \
             dynamic provisioning."
                .into(),
        );
    }
    for (i, term) in spec["nodeAffinity"]["required"].list("nodeSelectorTerms").iter().enumerate() {
        let at = format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]");
        crate::pod::warnings::node_term(&mut found, &at, term, true);
    }
    for (key, message) in [
        ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if spec.has(key) {
            let shown = if key == "storageos" { "storageOS" } else { key };
            found.push(format!("spec.{shown}: {message}"));
        }
    }
    found
}
