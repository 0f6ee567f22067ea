//! Imports image archives: an OCI layout in a tar file, or what `docker save` writes. Both may be compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::manifest::{Descriptor, ImageConfig, Manifest};
use super::reference::Reference;
use super::{Store, Stored, layer};

/// Names of images in an index, the more telling first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Largest document read into memory, in bytes.
const MOST_DOCUMENT: u64 = 8 << 20;

/// Imports all images of the archive and returns their references, or ids where it names none.
///
/// # Errors
/// In words, when it is no image archive, is broken, or cannot be stored.
pub fn import(store: &Store, path: &Path) -> io::Result<Vec<String>> {
    let mut archive = Contents::open(store, path)?;
    let images = if archive.has("index.json") { archive.oci_images()? } else { archive.docker_images()? };
    if images.is_empty() {
        return Err(bad("the archive holds no image for this machine"));
    }
    let mut names = Vec::new();
    for image in images {
        let config: ImageConfig = serde_json::from_slice(&image.config)?;
        if config.rootfs.diff_ids.len() != image.layers.len() {
            return Err(bad("the configuration names another number of layers than there are"));
        }
        for (diff_id, layer) in config.rootfs.diff_ids.iter().zip(&image.layers) {
            if !store.has_layer(diff_id) {
                store.add_layer(diff_id, archive.reader(layer)?)?;
            }
        }
        let id = digest(&image.config);
        let mut tags = BTreeSet::new();
        for name in &image.names {
            let reference = Reference::parse(name).map_err(|err| bad(&format!("{name:?}: {err}")))?;
            tags.extend(reference.tagged());
        }
        let digests = tags.iter().filter_map(|tag| Some(Reference::parse(tag).ok()?.at_digest(image.manifest.as_ref()?)));
        let digests = digests.collect();
        if tags.is_empty() {
            names.push(id.clone());
        }
        names.extend(tags.iter().cloned());
        store.add(Stored { id, tags, digests, layers: config.rootfs.diff_ids.clone(), config })?;
    }
    Ok(names)
}

/// What both formats come to.
struct Found {
    names: Vec<String>,
    config: Vec<u8>,
    /// Digest of the manifest, which only OCI has.
    manifest: Option<String>,
    /// Paths in the archive, lowest first.
    layers: Vec<String>,
}

/// A tar file with the places of its members.
struct Contents {
    file: File,
    members: BTreeMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Contents {
    fn open(store: &Store, path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        let filled = file.read(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        if matches!(magic[..filled], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            // Members are read in another order than they come.
            let mut plain = tempfile::tempfile_in(store.scratch())?;
            io::copy(&mut layer::decompress(file)?, &mut plain)?;
            file = plain;
        }
        file.seek(SeekFrom::Start(0))?;
        let length = file.metadata()?.len();
        let mut members = BTreeMap::new();
        let mut links = Vec::new();
        let mut archive = tar::Archive::new(BufReader::new(file.try_clone()?));
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let name = name(&entry.path()?);
            if let Some(target) = entry.link_name()? {
                // `docker save` stores a layer of several images once and links to it.
                links.push((name.clone(), Path::new(&name).parent().unwrap_or(Path::new("")).join(target)));
            } else if entry.raw_file_position() + entry.size() > length {
                return Err(bad("the archive is cut off"));
            } else {
                members.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        for (link, target) in links {
            if let Some(&place) = members.get(&self::name(&target)) {
                members.insert(link, place);
            }
        }
        Ok(Self { file, members })
    }

    fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    fn reader(&mut self, name: &str) -> io::Result<impl Read + use<>> {
        let &(start, size) = self.members.get(name).ok_or_else(|| bad(&format!("{name} is missing in the archive")))?;
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::with_capacity(128 << 10, file).take(size))
    }

    fn document(&mut self, name: &str) -> io::Result<Vec<u8>> {
        if self.members.get(name).is_some_and(|&(_, size)| size > MOST_DOCUMENT) {
            return Err(bad(&format!("{name} is too large")));
        }
        let mut bytes = Vec::new();
        self.reader(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A document of an OCI layout, which must have the digest it is filed under.
    fn blob(&mut self, digest_wanted: &str) -> io::Result<Vec<u8>> {
        let bytes = self.document(&blob_path(digest_wanted)?)?;
        let actual = digest(&bytes);
        if actual == digest_wanted { Ok(bytes) } else { Err(bad(&format!("blob has digest {actual}, expected {digest_wanted}"))) }
    }

    fn oci_images(&mut self) -> io::Result<Vec<Found>> {
        let index: Manifest = serde_json::from_slice(&self.document("index.json")?)?;
        let mut found = Vec::new();
        for entry in &index.manifests {
            found.extend(self.oci_image(entry, 0)?);
        }
        Ok(found)
    }

    fn oci_image(&mut self, entry: &Descriptor, depth: usize) -> io::Result<Option<Found>> {
        if depth > 4 {
            return Err(bad("indexes are nested too deep"));
        }
        let manifest: Manifest = serde_json::from_slice(&self.blob(&entry.digest)?)?;
        let annotated = NAME_ANNOTATIONS.iter().filter_map(|key| entry.annotations.get(*key));
        // A bare tag names no repository.
        let names: Vec<String> = annotated.filter(|name| name.contains([':', '/'])).take(1).cloned().collect();
        if manifest.is_index() {
            let Some(inner) = manifest.for_this_machine() else { return Ok(None) };
            let found = self.oci_image(inner, depth + 1)?;
            return Ok(found.map(|found| Found { names, manifest: Some(entry.digest.clone()), ..found }));
        }
        let config = manifest.config.ok_or_else(|| bad("the manifest has no configuration"))?;
        let config = self.blob(&config.digest)?;
        let layers = manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect::<io::Result<_>>()?;
        Ok(Some(Found { names, config, manifest: Some(entry.digest.clone()), layers }))
    }

    fn docker_images(&mut self) -> io::Result<Vec<Found>> {
        if !self.has("manifest.json") {
            return Err(bad("neither an OCI layout (index.json) nor a docker archive (manifest.json)"));
        }
        let images: Vec<DockerImage> = serde_json::from_slice(&self.document("manifest.json")?)?;
        let found = images.into_iter().map(|image| {
            let config = self.document(&image.config)?;
            Ok(Found { names: image.repo_tags.unwrap_or_default(), config, manifest: None, layers: image.layers })
        });
        found.collect()
    }
}

/// The digest of a document.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn blob_path(digest: &str) -> io::Result<String> {
    match digest.split_once(':') {
        Some((algorithm, hex)) if super::reference::is_digest(digest) => Ok(format!("blobs/{algorithm}/{hex}")),
        _ => Err(bad(&format!("{digest:?} is no digest"))),
    }
}

/// A member's name without `./`, and with `..` taken back.
fn name(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(part) => parts.extend(part.to_str()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

fn bad(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}
