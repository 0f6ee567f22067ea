//! Validation of a pod's volumes and of the sources that persistent volumes share with them.

mod projected;
mod remote;

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::check;
use crate::doc::Read;
use crate::names;
use crate::pod::Options;

use projected::{downward_api, key_paths, projected};
pub(crate) use remote::{azure_disk, csi_driver_name, disk, fc, flex, flocker, iscsi, nfs, quobyte, rbd, storage_os};

/// One kind of volume source: its field, the name under which its faults are reported (a few differ, for history's sake),
/// the name under which a second source is refused, and its checks.
struct Source {
    field: &'static str,
    shown: &'static str,
    refused: &'static str,
    check: fn(&mut Faults, &Path<'_>, &Value, &Options),
}

const fn source(field: &'static str, check: fn(&mut Faults, &Path<'_>, &Value, &Options)) -> Source {
    Source { field, shown: field, refused: field, check }
}

/// In the order in which the reference server looks.
static SOURCES: &[Source] = &[
    source("emptyDir", |faults, path, source, _| {
        if crate::quantity::Quantity::of(&source["sizeLimit"]).is_some_and(|limit| limit.is_negative()) {
            faults.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
    }),
    source("hostPath", |faults, path, source, _| host_path(faults, path, source)),
    source("gitRepo", |faults, path, source, _| {
        required(faults, path, source, &["repository"]);
        check::descending_path(faults, &path.child("directory"), source.text("directory"));
    }),
    Source {
        field: "gcePersistentDisk",
        shown: "persistentDisk",
        refused: "gcePersistentDisk",
        check: |faults, path, source, _| disk(faults, path, source, "pdName"),
    },
    source("awsElasticBlockStore", |faults, path, source, _| disk(faults, path, source, "volumeID")),
    source("secret", |faults, path, source, _| {
        required(faults, path, source, &["secretName"]);
        check::file_mode(faults, &path.child("defaultMode"), source.opt_int("defaultMode"));
        key_paths(faults, &path.child("items"), source);
    }),
    source("nfs", |faults, path, source, _| nfs(faults, path, source)),
    Source {
        field: "iscsi",
        shown: "iscsi",
        refused: "iscsi",
        check: |faults, path, source, _| iscsi(faults, path, source, None),
    },
    source("glusterfs", |faults, path, source, _| required(faults, path, source, &["endpoints", "path"])),
    source("flocker", |faults, path, source, _| flocker(faults, path, source)),
    source("persistentVolumeClaim", |faults, path, source, _| required(faults, path, source, &["claimName"])),
    source("rbd", |faults, path, source, _| rbd(faults, path, source)),
    source("cinder", |faults, path, source, _| {
        required(faults, path, source, &["volumeID"]);
        local_secret(faults, path, source);
    }),
    Source {
        field: "cephfs",
        shown: "cephfs",
        refused: "cephFS",
        check: |faults, path, source, _| required_list(faults, path, source, "monitors"),
    },
    source("quobyte", |faults, path, source, _| quobyte(faults, path, source)),
    Source { field: "downwardAPI", shown: "downwardAPI", refused: "downwarAPI", check: downward_api },
    source("fc", |faults, path, source, _| fc(faults, path, source)),
    source("flexVolume", |faults, path, source, _| flex(faults, path, source)),
    source("configMap", |faults, path, source, _| {
        required(faults, path, source, &["name"]);
        check::file_mode(faults, &path.child("defaultMode"), source.opt_int("defaultMode"));
        key_paths(faults, &path.child("items"), source);
    }),
    source("azureFile", |faults, path, source, _| required(faults, path, source, &["secretName", "shareName"])),
    source("vsphereVolume", |faults, path, source, _| required(faults, path, source, &["volumePath"])),
    source("photonPersistentDisk", |faults, path, source, _| required(faults, path, source, &["pdID"])),
    source("portworxVolume", |faults, path, source, _| required(faults, path, source, &["volumeID"])),
    source("azureDisk", |faults, path, source, _| azure_disk(faults, path, source)),
    source("storageos", |faults, path, source, _| {
        storage_os(faults, path, source);
        local_secret(faults, path, source);
    }),
    source("projected", projected),
    source("scaleIO", |faults, path, source, _| required(faults, path, source, &["gateway", "system", "volumeName"])),
    source("csi", |faults, path, source, _| {
        csi_driver_name(faults, &path.child("driver"), source.text("driver"));
        if let Some(secret) = source.opt("nodePublishSecretRef") {
            let name = secret.text("name");
            if name.is_empty() {
                faults.required(&path.child("nodePublishSecretRef").child("name"), "");
            } else {
                check::dns_subdomain(faults, &path.child("name"), name);
            }
        }
    }),
    source("ephemeral", |faults, path, source, _| match source.opt("volumeClaimTemplate") {
        None => faults.required(&path.child("volumeClaimTemplate"), ""),
        Some(template) => claim_template(faults, &path.child("volumeClaimTemplate"), template),
    }),
    source("image", |faults, path, source, options| {
        if options.is_pod && source.text("reference").is_empty() {
            faults.required(&path.child("reference"), "");
        }
        crate::pod::containers::pull_policy(faults, &path.child("pullPolicy"), source.text("pullPolicy"));
    }),
];

/// Validates the volumes of a pod. Returns the volumes that containers may name: those without faults.
pub(super) fn validate<'a>(
    faults: &mut Faults,
    path: &Path<'_>,
    volumes: &'a [Value],
    pod_name: Option<&str>,
    options: &Options,
) -> Vec<&'a Value> {
    let mut names = HashSet::new();
    let mut good = Vec::new();
    let created: HashSet<String> = volumes
        .iter()
        .filter(|volume| volume.has("ephemeral") && !volume.text("name").is_empty())
        .filter_map(|volume| Some(format!("{}-{}", pod_name.filter(|pod| !pod.is_empty())?, volume.text("name"))))
        .collect();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let name_at = at.child("name");
        let name = volume.text("name");
        let before = faults.0.len();
        validate_source(faults, &at, volume, pod_name, options);
        check::required(faults, &name_at, name, check::dns_label);
        if names.contains(name) {
            check::duplicate(faults, &name_at, name);
        }
        if faults.0.len() == before {
            names.insert(name);
            good.push(volume);
        }
        let claim = volume["persistentVolumeClaim"].text("claimName");
        if created.contains(claim) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            faults.invalid_str(&at.child("persistentVolumeClaim").child("claimName"), claim, detail);
        }
    }
    good
}

fn validate_source(faults: &mut Faults, path: &Path<'_>, volume: &Value, pod_name: Option<&str>, options: &Options) {
    let mut found = false;
    for source in SOURCES {
        let Some(value) = volume.opt(source.field) else { continue };
        let name = volume.text("name");
        let is_first = !std::mem::replace(&mut found, true);
        if is_first {
            (source.check)(faults, &path.child(source.shown), value, options);
        } else {
            faults.forbidden(&path.child(source.refused), "may not specify more than 1 volume type");
        }
        if source.field == "iscsi" && value.has("initiatorName") && name.len() + 1 + value.text("targetPortal").len() > 64 {
            faults.invalid_str(
                &path.child("name"),
                name,
                "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
                 specified.",
            );
        }
        if source.field == "ephemeral"
            && is_first
            && let Some(pod) = pod_name.filter(|pod| !pod.is_empty() && !name.is_empty())
        {
            let claim = format!("{pod}-{name}");
            for message in names::dns_subdomain(&claim) {
                faults.invalid_str(&path.child("name"), name, &format!("PVC name {claim:?}: {message}"));
            }
        }
    }
    if !found {
        faults.required(path, "must specify a volume type");
    }
}

/// Each of `keys` must not be empty.
pub(crate) fn required(faults: &mut Faults, path: &Path<'_>, source: &Value, keys: &[&str]) {
    for key in keys {
        if source.text(key).is_empty() {
            faults.required(&path.child(key), "");
        }
    }
}

/// The list at `key` must not be empty.
pub(crate) fn required_list(faults: &mut Faults, path: &Path<'_>, source: &Value, key: &str) {
    if source.list(key).is_empty() {
        faults.required(&path.child(key), "");
    }
}

fn local_secret(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    if source.opt("secretRef").is_some_and(|secret| secret.text("name").is_empty()) {
        faults.required(&path.child("secretRef").child("name"), "");
    }
}

/// `hostPath`
pub(crate) fn host_path(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    const TYPES: &[&str] = &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let at = path.child("path");
    if source.text("path").is_empty() {
        faults.required(&at, "");
        return;
    }
    check::no_backsteps(faults, &at, source.text("path"));
    check::optional_one_of(faults, path, source, "type", TYPES);
}

/// The template of a generic ephemeral volume's claim: only labels and annotations of its metadata may be set.
fn claim_template(faults: &mut Faults, path: &Path<'_>, template: &Value) {
    let metadata = &template["metadata"];
    let at = path.child("metadata");
    check::annotations(faults, &at.child("annotations"), metadata.map("annotations"));
    check::labels(faults, &at.child("labels"), metadata.map("labels"));
    for (key, value) in metadata.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "annotations" | "labels") && !value.is_null() && value != &json!("") {
            // The reference server shows the name of its own field.
            let shown = if key == "uid" { "uID" } else { key };
            faults.forbidden(&at.child(shown), "cannot be set");
        }
    }
    crate::claim::spec(faults, &path.child("spec"), &template["spec"], &crate::claim::Lax::default());
}
