//! Volumes that come over a network or from a provider; the same rules hold for PersistentVolumes.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::{local_secret, required, required_list};
use crate::check;
use crate::doc::Read;
use crate::names;

/// A cloud disk with partitions.
pub(crate) fn disk(faults: &mut Faults, path: &Path<'_>, source: &Value, id: &str) {
    required(faults, path, source, &[id]);
    let partition = source.int("partition");
    if !(0..=255).contains(&partition) {
        faults.invalid_int(&path.child("partition"), partition, "must be between 1 and 255, inclusive");
    }
}

/// `nfs`
pub(crate) fn nfs(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    required(faults, path, source, &["server", "path"]);
    if !source.text("path").starts_with('/') {
        faults.invalid_str(&path.child("path"), source.text("path"), "must be an absolute path");
    }
}

/// `rbd`
pub(crate) fn rbd(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    required_list(faults, path, source, "monitors");
    required(faults, path, source, &["image"]);
}

fn iscsi_name_fits(name: &str) -> bool {
    use std::sync::LazyLock;
    static IQN: LazyLock<regex::Regex> = LazyLock::new(|| {
        regex::Regex::new(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").expect("the pattern is a constant")
    });
    let exact = |prefix: &str, digits: usize| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            let mut bytes = rest.bytes();
            bytes.next().is_some() && bytes.len() == digits && bytes.all(|b| b.is_ascii_alphanumeric())
        })
    };
    if name.starts_with("iqn") {
        IQN.is_match(name)
    } else if name.starts_with("eui") {
        exact("eui", 16)
    } else {
        exact("naa", 32)
    }
}

/// `iscsi`; of a persistent volume when its name is given.
pub(crate) fn iscsi(faults: &mut Faults, path: &Path<'_>, source: &Value, volume: Option<&str>) {
    let known = |name: &str| ["iqn", "eui", "naa"].iter().any(|prefix| name.starts_with(prefix));
    let initiator = source.opt_text("initiatorName");
    required(faults, path, source, &["targetPortal"]);
    if let Some(volume) = volume
        && initiator.is_some()
        && volume.len() + 1 + source.text("targetPortal").len() > 64
    {
        faults.invalid_str(
            &path.child("targetportal"),
            source.text("targetPortal"),
            "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.",
        );
    }
    let iqn = source.text("iqn");
    let at = path.child("iqn");
    if iqn.is_empty() {
        faults.required(&at, "");
    } else if !known(iqn) {
        let detail =
            if volume.is_some() { "must be valid format" } else { "must be valid format starting with iqn, eui, or naa" };
        faults.invalid_str(&at, iqn, detail);
    } else if !iscsi_name_fits(iqn) {
        faults.invalid_str(&at, iqn, "must be valid format");
    }
    let lun = source.int("lun");
    if !(0..=255).contains(&lun) {
        faults.invalid_int(&path.child("lun"), lun, "must be between 0 and 255, inclusive");
    }
    if (source.flag("chapAuthDiscovery") || source.flag("chapAuthSession")) && !source.has("secretRef") {
        faults.required(&path.child("secretRef"), "");
    }
    if volume.is_some() {
        local_secret(faults, path, source);
    }
    if let Some(initiator) = initiator {
        let at = path.child("initiatorname");
        if !known(initiator) {
            let detail =
                if volume.is_some() { "must be valid format" } else { "must be valid format starting with iqn, eui, or naa" };
            faults.invalid_str(&at, initiator, detail);
        } else if !iscsi_name_fits(initiator) {
            faults.invalid_str(&at, initiator, "must be valid format");
        }
    }
}

/// `fc`
pub(crate) fn fc(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    let (names, ids) = (source.list("targetWWNs"), source.list("wwids"));
    let at = path.child("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        faults.required(&at, "must specify either targetWWNs or wwids, but not both");
    }
    if !names.is_empty() && !ids.is_empty() {
        faults.invalid(&at, &source["targetWWNs"], "targetWWNs and wwids can not be specified simultaneously");
    }
    if !names.is_empty() {
        match source.opt_int("lun") {
            None => faults.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) if !(0..=255).contains(&lun) => {
                faults.invalid_int(&path.child("lun"), lun, "must be between 0 and 255, inclusive");
            }
            Some(_) => {}
        }
    }
}

/// `flexVolume`
pub(crate) fn flex(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    required(faults, path, source, &["driver"]);
    let options = path.child("options");
    for key in source.map("options").keys() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            faults.invalid_str(&options.key(key), key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

/// `flocker`
pub(crate) fn flocker(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    let (name, id) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && id.is_empty() {
        faults.required(path, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !id.is_empty() {
        faults.invalid_str(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
    }
    if name.contains('/') {
        faults.invalid_str(&path.child("datasetName"), name, "must not contain '/'");
    }
}

/// `quobyte`
pub(crate) fn quobyte(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.text("registry");
    if registry.is_empty() {
        faults.required(&path.child("registry"), PAIRS);
    } else if source.text("tenant").len() >= 65 {
        faults.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in registry.split(',') {
            let fits = match pair.strip_prefix('[') {
                Some(rest) => rest.split_once("]:").is_some_and(|(_, port)| !port.contains([':', '[', ']'])),
                None => pair.matches(':').count() == 1 && !pair.contains(['[', ']']),
            };
            if !fits {
                faults.invalid_str(&path.child("registry"), registry, PAIRS);
            }
        }
    }
    required(faults, path, source, &["volume"]);
}

/// `azureDisk`
pub(crate) fn azure_disk(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    required(faults, path, source, &["diskName", "diskURI"]);
    check::optional_one_of(faults, path, source, "cachingMode", &["None", "ReadOnly", "ReadWrite"]);
    check::optional_one_of(faults, path, source, "kind", &["Dedicated", "Managed", "Shared"]);
    let uri = source.text("diskURI");
    let at = path.child("diskURI");
    match source.opt_text("kind") {
        Some("Managed") if !uri.starts_with("/subscriptions/") => faults.not_supported(
            &at,
            uri,
            &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"],
        ),
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            faults.not_supported(&at, uri, &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"])
        }
        _ => {}
    }
}

/// `storageos`, without its secret.
pub(crate) fn storage_os(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    let name = source.text("volumeName");
    check::required(faults, &path.child("volumeName"), name, check::dns_label);
    let namespace = source.text("volumeNamespace");
    if !namespace.is_empty() {
        check::dns_label(faults, &path.child("volumeNamespace"), namespace);
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    if name.is_empty() {
        return faults.required(path, "");
    }
    if name.len() > 63 {
        faults.too_long(path, 63);
    }
    for message in names::dns_subdomain(&name.to_lowercase()) {
        faults.invalid_str(path, name, &message);
    }
}
