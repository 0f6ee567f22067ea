//! Validation of a pod's volumes and of the sources that persistent volumes share with them.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::check;
use crate::doc::Read;
use crate::pod::Options;
use crate::{internal, names};

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
        if name.is_empty() {
            faults.required(&name_at, "");
        } else {
            check::dns_label(faults, &name_at, name);
        }
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
    if name.is_empty() {
        faults.required(&path.child("volumeName"), "");
    } else {
        check::dns_label(faults, &path.child("volumeName"), name);
    }
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

fn key_paths(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    for (i, item) in source.list("items").iter().enumerate() {
        key_path(faults, &path.index(i), item);
    }
}

fn key_path(faults: &mut Faults, path: &Path<'_>, item: &Value) {
    required(faults, path, item, &["key", "path"]);
    check::non_reserved_path(faults, &path.child("path"), item.text("path"));
    check::file_mode(faults, &path.child("mode"), item.opt_int("mode"));
}

fn downward_api(faults: &mut Faults, path: &Path<'_>, source: &Value, _: &Options) {
    check::file_mode(faults, &path.child("defaultMode"), source.opt_int("defaultMode"));
    for item in source.list("items") {
        downward_file(faults, path, item);
    }
}

fn downward_file(faults: &mut Faults, path: &Path<'_>, file: &Value) {
    const FIELDS: &[&str] = &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    required(faults, path, file, &["path"]);
    check::non_reserved_path(faults, &path.child("path"), file.text("path"));
    if let Some(field) = file.opt("fieldRef") {
        super::env::field_selector(faults, &path.child("fieldRef"), field, FIELDS);
        if file.has("resourceFieldRef") {
            faults.invalid_str(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if let Some(resource) = file.opt("resourceFieldRef") {
        super::env::resource_selector(faults, &path.child("resourceFieldRef"), resource, true);
    } else {
        faults.required(path, "one of fieldRef and resourceFieldRef is required");
    }
    check::file_mode(faults, &path.child("mode"), file.opt_int("mode"));
}

fn projected(faults: &mut Faults, path: &Path<'_>, volume: &Value, options: &Options) {
    check::file_mode(faults, &path.child("defaultMode"), volume.opt_int("defaultMode"));
    let mut paths: HashSet<&str> = HashSet::new();
    let sources = path.child("sources");
    for (i, source) in volume.list("sources").iter().enumerate() {
        let at = sources.index(i);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(found) = source.opt(kind) else { continue };
            count += 1;
            let here = at.child(kind);
            required(faults, &here, found, &["name"]);
            let items = here.child("items");
            for (j, item) in found.list("items").iter().enumerate() {
                key_path(faults, &items.index(j), item);
                let target = item.text("path");
                if !target.is_empty() && !paths.insert(target) {
                    faults.invalid_str(path, found.text("name"), "conflicting duplicate paths");
                }
            }
        }
        if let Some(found) = source.opt("downwardAPI") {
            count += 1;
            for file in found.list("items") {
                downward_file(faults, &at.child("downwardAPI"), file);
                let target = file.text("path");
                if !target.is_empty() && !paths.insert(target) {
                    faults.invalid_str(path, target, "conflicting duplicate paths");
                }
            }
        }
        if let Some(token) = source.opt("serviceAccountToken") {
            count += 1;
            service_account_token(faults, path, &at.child("serviceAccountToken"), token, options);
        }
        if let Some(bundle) = source.opt("clusterTrustBundle") {
            count += 1;
            trust_bundle(faults, &at.child("clusterTrustBundle"), bundle);
            let target = bundle.text("path");
            if !paths.insert(target) {
                faults.invalid_str(path, target, "conflicting duplicate paths");
            }
        }
        if let Some(certificate) = source.opt("podCertificate") {
            count += 1;
            pod_certificate(faults, &at.child("podCertificate"), certificate);
            for key in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let target = certificate.text(key);
                if !target.is_empty() && !paths.insert(target) {
                    faults.invalid_str(path, target, "conflicting duplicate paths");
                }
            }
        }
        if count > 1 {
            faults.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

fn service_account_token(faults: &mut Faults, volume: &Path<'_>, path: &Path<'_>, token: &Value, options: &Options) {
    let seconds = token.int("expirationSeconds");
    let at = path.child("expirationSeconds");
    if seconds < 600 {
        faults.invalid_int(&at, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        faults.invalid_int(&at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    // The path's faults are reported at the volume, as ever.
    let at = volume.child("path");
    if token.text("path").is_empty() {
        faults.required(&at, "");
    } else if !options.lax_token_path {
        check::non_reserved_path(faults, &at, token.text("path"));
    }
}

fn trust_bundle(faults: &mut Faults, path: &Path<'_>, bundle: &Value) {
    match (bundle.opt_text("name"), bundle.opt_text("signerName")) {
        (Some(_), Some(_)) => check::invalid_shown(
            faults,
            path,
            &internal::shown("ClusterTrustBundleProjection", bundle),
            "only one of name and signerName may be used",
        ),
        (Some(name), None) => {
            let at = path.child("name");
            if name.is_empty() {
                faults.required(&at, "must be a valid object name");
            }
            // A bundle of a signer is named after it: `domain:path:name`.
            let parts: Vec<&str> = name.split(':').collect();
            if parts.len() != 3 && parts.len() > 1 {
                let message = "ClusterTrustBundle without signer name must not have \":\" in its name";
                faults.invalid_str(&at, name, &format!("not a valid clustertrustbundlename: {message}"));
            } else {
                for message in names::dns_subdomain(parts.last().unwrap_or(&"")) {
                    faults.invalid_str(&at, name, &format!("not a valid clustertrustbundlename: {message}"));
                }
            }
            if let Some(selector) = bundle.opt("labelSelector") {
                faults.invalid(&path.child("labelSelector"), selector, "labelSelector must be unset if name is specified");
            }
        }
        (None, Some(signer)) => {
            let at = path.child("signerName");
            if signer.is_empty() {
                faults.required(&at, "must be a valid signer name");
            }
            crate::csr::signer_name(faults, &at, signer);
            check::label_selector(faults, &path.child("labelSelector"), &bundle["labelSelector"], false);
        }
        (None, None) => faults.required(path, "either name or signerName must be specified"),
    }
    required(faults, path, bundle, &["path"]);
    check::non_reserved_path(faults, &path.child("path"), bundle.text("path"));
}

fn pod_certificate(faults: &mut Faults, path: &Path<'_>, certificate: &Value) {
    crate::csr::signer_name(faults, &path.child("signerName"), certificate.text("signerName"));
    const KEYS: &[&str] = &["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
    check::one_of(faults, &path.child("keyType"), certificate.text("keyType"), KEYS);
    if let Some(seconds) = certificate.opt_int("maxExpirationSeconds") {
        let at = path.child("maxExpirationSeconds");
        let domain = certificate.text("signerName").split('/').next().unwrap_or_default();
        let (most, detail) = if domain == "kubernetes.io" {
            (86_400, "if using a kubernetes.io signer, must be <= 86400")
        } else {
            (91 * 86_400, "must be <= 7862400")
        };
        if seconds < 3600 {
            faults.invalid_int(&at, seconds, "must be >= 3600");
        } else if seconds > most {
            faults.invalid_int(&at, seconds, detail);
        }
    }
    let keys = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    if keys.iter().all(|key| certificate.text(key).is_empty()) {
        faults.required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
    for key in keys {
        if !certificate.text(key).is_empty() {
            check::non_reserved_path(faults, &path.child(key), certificate.text(key));
        }
    }
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
