//! Warnings about files of one volume that are at the same path, or one below the other: one of them would be lost, or the
//! volume could not be made.

use corten_api::field::quoted;
use serde_json::Value;

use crate::doc::Read;

/// A file, and where it comes from; empty where that is clear.
#[derive(Clone, PartialEq)]
struct File {
    path: String,
    source: String,
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&quoted(&self.path))?;
        if self.source.is_empty() { Ok(()) } else { write!(f, " ({})", self.source) }
    }
}

/// Warnings about all volumes of a pod.
pub(super) fn warnings(warnings: &mut Vec<String>, volumes: &[Value]) {
    for volume in volumes {
        let name = quoted(volume.text("name"));
        for (key, what, of) in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")] {
            if let Some(source) = volume.opt(key) {
                let what = format!("{what} {}", quoted(source.text(of)));
                report(warnings, &name, &what, files(source, ""));
            }
        }
        if let Some(source) = volume.opt("downwardAPI") {
            report(warnings, &name, "DownwardAPI", files(source, ""));
        }
        if let Some(projected) = volume.opt("projected") {
            let mut all = Vec::new();
            for source in projected.list("sources") {
                if source.as_object().is_none_or(|source| source.values().all(Value::is_null)) {
                    warnings.push(format!("volume {name} (Projected) has no sources provided"));
                    continue;
                }
                for file in projection(source) {
                    add(warnings, &name, "Projected", &mut all, file);
                }
            }
        }
    }
}

fn report(warnings: &mut Vec<String>, volume: &str, what: &str, files: Vec<File>) {
    let mut all = Vec::new();
    for file in files {
        add(warnings, volume, what, &mut all, file);
    }
}

fn add(warnings: &mut Vec<String>, volume: &str, what: &str, all: &mut Vec<File>, mut file: File) {
    file.path.truncate(file.path.trim_end_matches('/').len());
    let below = |inner: &str, outer: &str| format!("{inner}/").starts_with(&format!("{outer}/"));
    for other in all.iter().filter(|other| !file.path.is_empty() && !other.path.is_empty()) {
        if below(&other.path, &file.path) || below(&file.path, &other.path) {
            warnings.push(format!("volume {volume} ({what}): overlapping paths: {file} with {other}"));
        }
    }
    all.push(file);
}

fn files(source: &Value, from: &str) -> Vec<File> {
    source.list("items").iter().map(|item| File { path: item.text("path").into(), source: from.into() }).collect()
}

/// The files of one source; of two kinds in one source the first counts.
fn projection(source: &Value) -> Vec<File> {
    for (key, what) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        if !source[key].list("items").is_empty() {
            return files(&source[key], &format!("{what} {}", quoted(source[key].text("name"))));
        }
    }
    if !source["downwardAPI"].list("items").is_empty() {
        return files(&source["downwardAPI"], "DownwardAPI");
    }
    if let Some(token) = source.opt("serviceAccountToken") {
        return vec![File { path: token.text("path").into(), source: "ServiceAccountToken".into() }];
    }
    if let Some(bundle) = source.opt("clusterTrustBundle") {
        let name = bundle.opt_text("name").unwrap_or_else(|| bundle.text("signerName"));
        return vec![File { path: bundle.text("path").into(), source: format!("ClusterTrustBundle {}", quoted(name)) }];
    }
    let certificate = &source["podCertificate"];
    let paths = [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ];
    let set = paths.into_iter().filter(|(key, _)| !certificate.text(key).is_empty());
    set.map(|(key, what)| File { path: certificate.text(key).into(), source: what.into() }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_at_or_below_one_path_overlap() {
        let items = |paths: &[&str]| json!(paths.iter().map(|path| json!({ "key": "k", "path": path })).collect::<Vec<_>>());
        let told = |volume: Value| {
            let mut found = Vec::new();
            warnings(&mut found, &[volume]);
            found
        };
        let map = |paths: &[&str]| told(json!({ "name": "v", "configMap": { "name": "c", "items": items(paths) } }));
        assert_eq!(map(&["a", "ab", "b/c"]), Vec::<String>::new());
        assert_eq!(map(&["a", "a/"]), ["volume \"v\" (ConfigMap \"c\"): overlapping paths: \"a\" with \"a\""]);
        assert_eq!(map(&["a/b", "a"]), ["volume \"v\" (ConfigMap \"c\"): overlapping paths: \"a\" with \"a/b\""]);
        let sources =
            json!([{ "secret": { "name": "s", "items": items(&["x"]) } }, { "serviceAccountToken": { "path": "x/y" } }, {}]);
        assert_eq!(
            told(json!({ "name": "v", "projected": { "sources": sources } })),
            [
                "volume \"v\" (Projected): overlapping paths: \"x/y\" (ServiceAccountToken) with \"x\" (Secret \"s\")",
                "volume \"v\" (Projected) has no sources provided",
            ]
        );
    }
}
