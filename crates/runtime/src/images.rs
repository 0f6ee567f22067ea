//! Images on this node. Layers are unpacked once, under the digest of their content, and shared by all images that
//! have them; the index names the images. Everything is made beside its place and renamed into it, after a sync, so
//! that a crash leaves either nothing or the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cri::{FsUsage, Image, RuntimeError};
use crate::embedded::record;

pub mod archive;
pub mod hosts;
pub mod layer;
pub mod manifest;
pub mod reference;
pub mod registry;
pub mod users;

use manifest::ImageConfig;
use reference::{Reference, is_digest};

/// All images of a node.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    index: Mutex<Index>,
    /// Read by whoever adds an image, written by whoever removes layers.
    adding: Arc<tokio::sync::RwLock<()>>,
}

/// An image as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Digest of the configuration.
    pub id: String,
    /// References with a tag.
    pub tags: BTreeSet<String>,
    /// References with a manifest digest.
    pub digests: BTreeSet<String>,
    /// Digests of the unpacked layers, lowest first.
    pub layers: Vec<String>,
    /// What to run.
    pub config: ImageConfig,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    images: BTreeMap<String, Stored>,
    layers: BTreeMap<String, FsUsage>,
}

impl Store {
    /// Opens the store in `root`, and removes what an interrupted pull left there.
    ///
    /// # Errors
    /// When the directory cannot be made or its index is broken.
    pub fn open(root: &Path) -> io::Result<Self> {
        let store = Self { root: root.to_owned(), index: Mutex::default(), adding: Arc::default() };
        fs::create_dir_all(store.layers())?;
        match fs::remove_dir_all(store.scratch()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => fs::create_dir_all(store.scratch())?,
        }
        let path = root.join("index.json");
        if path.exists() {
            *store.index.lock() = record::load(&path)?;
        }
        store.sweep();
        Ok(store)
    }

    /// The image that a reference, an id (whole or its first digits) or a digest stands for.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Stored> {
        let index = self.index.lock();
        if let Some(image) = index.images.get(name) {
            return Some(image.clone());
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.len() >= 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let mut matching = index.images.values().filter(|image| image.id["sha256:".len()..].starts_with(hex));
            if let (Some(image), None) = (matching.next(), matching.next()) {
                return Some(image.clone());
            }
        }
        let reference = Reference::parse(name).ok()?;
        let wanted = match &reference.digest {
            Some(digest) => reference.at_digest(digest),
            None => reference.tagged()?,
        };
        index.images.values().find(|image| image.tags.contains(&wanted) || image.digests.contains(&wanted)).cloned()
    }

    /// All images.
    #[must_use]
    pub fn list(&self) -> Vec<Image> {
        let index = self.index.lock();
        index.images.values().map(|image| index.describe(image)).collect()
    }

    /// One image as the seam has it.
    #[must_use]
    pub fn describe(&self, image: &Stored) -> Image {
        self.index.lock().describe(image)
    }

    /// Directories of an image's layers, topmost first.
    #[must_use]
    pub fn layer_paths(&self, image: &Stored) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|diff_id| self.layer_path(diff_id)).collect()
    }

    /// Removes the reference `name`, or by id the whole image. An image without references goes with it, unless
    /// `in_use` says that a container needs it.
    ///
    /// # Errors
    /// [`RuntimeError::InUse`], or when the index cannot be written. Absent is fine.
    pub fn remove(&self, name: &str, in_use: impl Fn(&str) -> bool) -> Result<(), RuntimeError> {
        let Some(image) = self.find(name) else { return Ok(()) };
        let tag = Reference::parse(name).ok().filter(|_| !is_id(name)).and_then(|reference| reference.tagged());
        let mut left = image.clone();
        if let Some(tag) = tag {
            left.tags.remove(&tag);
        } else {
            left.tags.clear();
        }
        let goes = left.tags.is_empty();
        if goes && in_use(&image.id) {
            return Err(RuntimeError::InUse(name.to_owned()));
        }
        self.change(|index| {
            if goes {
                index.images.remove(&image.id);
            } else {
                index.images.insert(left.id.clone(), left);
            }
        })
        .map_err(|source| system("write the image index", source))?;
        self.sweep();
        Ok(())
    }

    /// Bytes and inodes of all layers.
    #[must_use]
    pub fn usage(&self) -> FsUsage {
        let index = self.index.lock();
        index
            .layers
            .values()
            .fold(FsUsage::default(), |sum, layer| FsUsage { bytes: sum.bytes + layer.bytes, inodes: sum.inodes + layer.inodes })
    }

    /// Whether a layer is unpacked.
    #[must_use]
    pub fn has_layer(&self, diff_id: &str) -> bool {
        self.index.lock().layers.contains_key(diff_id) && self.layer_path(diff_id).exists()
    }

    /// Unpacks a layer whose content must have the digest `diff_id`.
    ///
    /// # Errors
    /// When it is broken, of another digest, or cannot be written.
    pub fn add_layer(&self, diff_id: &str, archive: impl io::Read) -> io::Result<()> {
        if !is_digest(diff_id) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{diff_id:?} is no digest")));
        }
        let fresh = tempfile::Builder::new().prefix("layer-").tempdir_in(self.scratch())?;
        let target = fresh.path().join("fs");
        fs::create_dir(&target)?;
        let unpacked = layer::unpack(archive, &target)?;
        if unpacked.diff_id != diff_id {
            let words = format!("layer has digest {}, expected {diff_id}", unpacked.diff_id);
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        match fs::rename(&target, self.layer_path(diff_id)) {
            // Another pull was faster: the content is the same.
            Err(err) if matches!(err.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            result => result?,
        }
        let usage = FsUsage { bytes: unpacked.bytes, inodes: unpacked.inodes };
        self.index.lock().layers.insert(diff_id.to_owned(), usage);
        Ok(())
    }

    /// Records an image whose layers are all there. A tag moves here from whatever image had it.
    ///
    /// # Errors
    /// When a layer is missing or the index cannot be written.
    pub fn add(&self, image: Stored) -> io::Result<()> {
        if let Some(missing) = image.layers.iter().find(|layer| !self.has_layer(layer)) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("layer {missing} is missing")));
        }
        // Layers first, then the index that speaks of them.
        nix::unistd::syncfs(fs::File::open(&self.root)?)?;
        self.change(|index| {
            for other in index.images.values_mut().filter(|other| other.id != image.id) {
                if !other.tags.is_disjoint(&image.tags) {
                    other.tags.retain(|tag| !image.tags.contains(tag));
                }
            }
            match index.images.get_mut(&image.id) {
                Some(known) => {
                    known.tags.extend(image.tags);
                    known.digests.extend(image.digests);
                }
                None => drop(index.images.insert(image.id.clone(), image)),
            }
        })
    }

    /// Held from the first layer of an image until [`Store::add`], so that none is swept away in between.
    pub async fn adding(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        self.adding.clone().read_owned().await
    }

    /// Where downloads go before they are whole.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn layer_path(&self, diff_id: &str) -> PathBuf {
        self.layers().join(diff_id.rsplit(':').next().unwrap_or(diff_id))
    }

    fn change(&self, change: impl FnOnce(&mut Index)) -> io::Result<()> {
        let mut index = self.index.lock();
        change(&mut index);
        let fresh = self.root.join("index.json.new");
        let mut file = fs::File::create(&fresh)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(&*index)?)?;
        file.sync_all()?;
        fs::rename(&fresh, self.root.join("index.json"))?;
        fs::File::open(&self.root)?.sync_all()
    }

    /// Removes layers of no image. Not while something is being added: its layers belong to no image yet.
    fn sweep(&self) {
        let Ok(_alone) = self.adding.try_write() else { return };
        let mut index = self.index.lock();
        let used: BTreeSet<String> = index.images.values().flat_map(|image| image.layers.iter().cloned()).collect();
        index.layers.retain(|layer, _| used.contains(layer));
        let names: BTreeSet<_> = used.iter().filter_map(|layer| layer.rsplit(':').next()).collect();
        for entry in fs::read_dir(self.layers()).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_none_or(|name| !names.contains(name)) {
                // What cannot be removed now is tried again at the next start.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Index {
    fn describe(&self, image: &Stored) -> Image {
        Image {
            id: image.id.clone(),
            tags: image.tags.iter().cloned().collect(),
            digests: image.digests.iter().cloned().collect(),
            size: image.layers.iter().filter_map(|layer| self.layers.get(layer)).map(|usage| usage.bytes).sum(),
            user: image.config.config.user.clone(),
            pinned: false,
        }
    }
}

impl Stored {
    /// The reference with a digest that a container's status shows as `imageID`; the id when it was never pulled.
    #[must_use]
    pub fn reference(&self) -> String {
        self.digests.first().cloned().unwrap_or_else(|| self.id.clone())
    }
}

fn is_id(name: &str) -> bool {
    is_digest(name) || (name.len() >= 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

pub(crate) fn system(doing: &str, source: io::Error) -> RuntimeError {
    RuntimeError::System { doing: doing.to_owned(), source: Box::new(source) }
}
