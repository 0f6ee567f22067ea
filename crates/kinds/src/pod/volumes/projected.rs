//! Volumes whose files the kubelet writes: from Secrets and ConfigMaps, from the pod itself, tokens and certificates.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::required;
use crate::check;
use crate::doc::Read;
use crate::pod::Options;
use crate::{internal, names};

pub(super) fn key_paths(faults: &mut Faults, path: &Path<'_>, source: &Value) {
    for (i, item) in source.list("items").iter().enumerate() {
        key_path(faults, &path.index(i), item);
    }
}

fn key_path(faults: &mut Faults, path: &Path<'_>, item: &Value) {
    required(faults, path, item, &["key", "path"]);
    check::non_reserved_path(faults, &path.child("path"), item.text("path"));
    check::file_mode(faults, &path.child("mode"), item.opt_int("mode"));
}

pub(super) fn downward_api(faults: &mut Faults, path: &Path<'_>, source: &Value, _: &Options) {
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
        crate::pod::env::field_selector(faults, &path.child("fieldRef"), field, FIELDS);
        if file.has("resourceFieldRef") {
            faults.invalid_str(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if let Some(resource) = file.opt("resourceFieldRef") {
        crate::pod::env::resource_selector(faults, &path.child("resourceFieldRef"), resource, true);
    } else {
        faults.required(path, "one of fieldRef and resourceFieldRef is required");
    }
    check::file_mode(faults, &path.child("mode"), file.opt_int("mode"));
}

pub(super) fn projected(faults: &mut Faults, path: &Path<'_>, volume: &Value, options: &Options) {
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
