//! The documents of an image, as far as a node needs them: OCI image format 1.1 and Docker's schema 2, which differ in
//! media types only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Media types of an index over several platforms.
pub const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Media types of an image's manifest.
pub const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// An index or a manifest: which of them, the fields tell.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// Set by Docker, optional in OCI.
    pub media_type: Option<String>,
    /// Of an index.
    pub manifests: Vec<Descriptor>,
    /// Of a manifest.
    pub config: Option<Descriptor>,
    /// Of a manifest, lowest first.
    pub layers: Vec<Descriptor>,
}

/// A pointer to a document or layer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// What it points to.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// In an index: what it runs on.
    pub platform: Option<Platform>,
    /// Names, among others.
    pub annotations: BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Go's name of it.
    pub architecture: String,
    /// Go's name of it.
    pub os: String,
    /// Such as `v8`.
    pub variant: String,
}

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Go's name of it.
    pub architecture: String,
    /// Go's name of it.
    pub os: String,
    /// How to run it.
    #[serde(deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// Its content.
    pub rootfs: RootFs,
}

/// How to run an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User name or id, with an optional group.
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// First words of the command.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Further words.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Signal for a stop.
    pub stop_signal: String,
}

/// An image's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Digests of the layers without compression, lowest first.
    pub diff_ids: Vec<String>,
}

impl Manifest {
    /// The entry of an index for this machine.
    #[must_use]
    pub fn for_this_machine(&self) -> Option<&Descriptor> {
        let matching = |entry: &&Descriptor| {
            entry.platform.as_ref().is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
        };
        self.manifests.iter().find(matching)
    }

    /// Whether it is an index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        self.config.is_none() && !self.manifests.is_empty()
    }
}

/// This machine's architecture in Go's words, which images use.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "x86" => "386",
        other => other,
    }
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_docker_are_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":null,"Cmd":["sh"],"Env":null},"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.entrypoint.is_empty());
        assert_eq!(config.rootfs.diff_ids, ["sha256:1"]);
    }

    #[test]
    fn the_index_entry_is_this_machines() {
        let text = format!(
            r#"{{"manifests":[{{"digest":"a","platform":{{"os":"windows","architecture":"{0}"}}}},
                {{"digest":"b","platform":{{"os":"linux","architecture":"s390x"}}}},
                {{"digest":"c","platform":{{"os":"linux","architecture":"{0}"}}}}]}}"#,
            architecture()
        );
        let index: Manifest = serde_json::from_str(&text).unwrap();
        assert!(index.is_index());
        assert_eq!(index.for_this_machine().unwrap().digest, "c");
    }
}
