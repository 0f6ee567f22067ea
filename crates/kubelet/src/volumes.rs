//! Volumes of pods: prepared before the first container starts, kept up to date while the pod runs, and taken down when
//! it is gone. What is inside comes from [`content`]; how it is put in place without a reader ever seeing half of it is
//! [`atomic`].

pub mod atomic;
pub mod content;
pub mod host_path;
pub mod mounts;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, EmptyDirVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Volume};
use kube::Api;
use nix::mount::{MntFlags, MsFlags};

use crate::fields::Node;
use crate::objects::{Objects, Wake};
use crate::pod::PodExt;
use crate::quantity;
use crate::tokens::Tokens;

/// Why a volume is not ready; the event says the same words.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Content { volume: String, source: content::ContentError },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    Setup { volume: String, why: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {path}: {source}")]
    Io { volume: String, path: PathBuf, source: io::Error },
    #[error("MountVolume.NewMounter initialization failed for volume {volume:?} : path {path:?} does not exist")]
    Absent { volume: String, path: String },
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: \
         error processing PVC {namespace}/{claim}: {why}"
    )]
    Claim { volume: String, namespace: String, claim: String, why: String },
}

/// Prepares and removes volumes.
pub struct Volumes {
    pub root: PathBuf,
    pub config_maps: Objects<ConfigMap>,
    pub secrets: Objects<Secret>,
    pub tokens: Tokens,
    pub client: Client,
    /// Whether file systems may be mounted and owners changed.
    pub manage: bool,
}

/// User and group that files get.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    pub user: Option<u32>,
    pub group: Option<u32>,
}

impl Volumes {
    /// Directory of everything that belongs to a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Where a volume of a pod is, on the node.
    pub fn path(&self, pod: &Pod, volume: &Volume) -> PathBuf {
        match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => self.pod_dir(pod.uid()).join("volumes").join(plugin(volume)).join(&volume.name),
        }
    }

    /// Prepares every volume that a container uses, or brings its content up to date. Returns when it has to be done again for
    /// a token's sake. `user` is woken when a ConfigMap or Secret changes.
    pub async fn prepare(&self, pod: &Pod, node: &Node<'_>, user: &Arc<Wake>) -> (Option<Timestamp>, Vec<VolumeError>) {
        let volumes = pod.spec().volumes.as_deref().unwrap_or_default();
        let results = volumes.iter().map(|volume| self.prepare_one(pod, volume, node, user));
        let mut again: Option<Timestamp> = None;
        let mut errors = Vec::new();
        for result in futures::future::join_all(results).await {
            match result {
                Ok(Some(at)) => again = Some(again.map_or(at, |known| known.min(at))),
                Ok(None) => {}
                Err(err) => errors.push(err),
            }
        }
        (again, errors)
    }

    async fn prepare_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        node: &Node<'_>,
        user: &Arc<Wake>,
    ) -> Result<Option<Timestamp>, VolumeError> {
        let path = self.path(pod, volume);
        let name = || volume.name.clone();
        let setup = |why: String| VolumeError::Setup { volume: name(), why };
        if let Some(source) = &volume.host_path {
            host_path::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default()).map_err(setup)?;
            return Ok(None);
        }
        if let Some(source) = &volume.empty_dir {
            self.empty_dir(pod, volume, source, &path)?;
            return Ok(None);
        }
        if let Some(source) = &volume.persistent_volume_claim {
            self.claim(pod, volume, &source.claim_name, &path).await?;
            return Ok(None);
        }
        let owner = owner(pod);
        let built = content::build(self, pod, volume, node, owner, user).await;
        let built = built.map_err(|source| VolumeError::Content { volume: name(), source })?;
        let Some((payload, again)) = built else {
            return Err(setup(format!("no volume plugin matched for volume {:?}", volume.name)));
        };
        let io = |source| VolumeError::Io { volume: name(), path: path.clone(), source };
        // Secrets are never written to a disk.
        self.make_dir(&path, volume.config_map.is_none().then_some(None)).map_err(io)?;
        let owner = if self.manage { owner } else { Owner::default() };
        atomic::write(&path, &payload, owner).map_err(io)?;
        Ok(again)
    }

    fn empty_dir(&self, pod: &Pod, volume: &Volume, source: &EmptyDirVolumeSource, path: &Path) -> Result<(), VolumeError> {
        let io = |source| VolumeError::Io { volume: volume.name.clone(), path: path.to_owned(), source };
        let in_memory = self.manage && source.medium.as_deref() == Some("Memory");
        if path.exists() && (!in_memory || is_mount_point(path)) {
            return Ok(());
        }
        let tmpfs = match source.medium.as_deref().unwrap_or_default() {
            "" => None,
            "Memory" => {
                let limit = source.size_limit.as_ref().map(quantity::value).filter(|limit| *limit > 0);
                let memory = pod.spec().containers.iter().map(|container| {
                    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
                    quantity::amount(limits, "memory")
                });
                // Without a limit of its own it may use what all containers together may.
                let memory: Option<i64> = memory.sum();
                Some([limit, memory.filter(|memory| *memory > 0)].into_iter().flatten().min())
            }
            medium => {
                let why = format!("unknown storage medium {medium:?}");
                return Err(VolumeError::Setup { volume: volume.name.clone(), why });
            }
        };
        self.make_dir(path, tmpfs).map_err(io)?;
        let mode = if owner(pod).group.is_some() { 0o2777 } else { 0o777 };
        set_mode(path, mode).map_err(io)?;
        if self.manage
            && let Some(group) = owner(pod).group
        {
            std::os::unix::fs::chown(path, None, Some(group)).map_err(io)?;
        }
        Ok(())
    }

    /// A claim bound to a volume that is a directory of this node (`hostPath` or `local`).
    async fn claim(&self, pod: &Pod, volume: &Volume, name: &str, path: &Path) -> Result<(), VolumeError> {
        let text = |err: kube::Error| crate::api_error_text(&err);
        let failed = |why: String| VolumeError::Claim {
            volume: volume.name.clone(),
            namespace: pod.namespace().to_owned(),
            claim: name.to_owned(),
            why,
        };
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), pod.namespace());
        let claim =
            claims.get(name).await.map_err(|err| failed(format!("failed to fetch PVC from API server: {}", text(err))))?;
        let protected = claim.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == "kubernetes.io/pvc-protection");
        if claim.metadata.deletion_timestamp.is_some() && !protected {
            return Err(failed("PVC is being deleted".to_owned()));
        }
        if claim.status.and_then(|status| status.phase).as_deref() != Some("Bound") {
            return Err(failed("PVC is not bound".to_owned()));
        }
        let Some(bound) = claim.spec.and_then(|spec| spec.volume_name).filter(|name| !name.is_empty()) else {
            return Err(failed("PVC has empty pvc.Spec.VolumeName".to_owned()));
        };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let found = volumes.get(&bound).await;
        let found = found.map_err(|err| failed(format!("failed to fetch PV {bound} from API server: {}", text(err))))?;
        let spec = found.spec.unwrap_or_default();
        let owner = spec.claim_ref.and_then(|claim| claim.uid);
        let own = claim.metadata.uid;
        match owner {
            None => {
                let why = "but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim";
                return Err(failed(format!("found PV object {bound} {why}")));
            }
            Some(uid) if Some(&uid) != own.as_ref() => {
                let own = own.unwrap_or_default();
                let why = format!("but its pv.Spec.ClaimRef.UID {uid} does not point to claim.UID {own}");
                return Err(failed(format!("found PV object {bound} {why}")));
            }
            Some(_) => {}
        }
        let setup = |why: String| VolumeError::Setup { volume: bound.clone(), why };
        let source = match (&spec.host_path, &spec.local) {
            (Some(source), _) => {
                host_path::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default()).map_err(setup)?;
                source.path.clone()
            }
            (_, Some(source)) if !Path::new(&source.path).exists() => {
                return Err(VolumeError::Absent { volume: bound, path: source.path.clone() });
            }
            (_, Some(source)) => source.path.clone(),
            _ => return Err(setup(format!("no volume plugin matched for PersistentVolume {bound:?}"))),
        };
        if is_mount_point(path) || path.is_symlink() {
            return Ok(());
        }
        let failed = |err: &dyn std::fmt::Display| setup(format!("{source}: {err}"));
        if !self.manage {
            std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(|err| failed(&err))?;
            return std::os::unix::fs::symlink(&source, path).map_err(|err| failed(&err));
        }
        std::fs::create_dir_all(path).map_err(|err| failed(&err))?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        nix::mount::mount(Some(source.as_str()), path, None::<&str>, flags, None::<&str>).map_err(|err| failed(&err))
    }

    /// Makes a directory, as a tmpfs of a size when `tmpfs` is given (and mounting is allowed).
    fn make_dir(&self, path: &Path, tmpfs: Option<Option<i64>>) -> io::Result<()> {
        let tmpfs = tmpfs.filter(|_| self.manage);
        // After a reboot the directory is there and the file system is not.
        if path.exists() && (tmpfs.is_none() || is_mount_point(path)) {
            return Ok(());
        }
        std::fs::create_dir_all(path)?;
        if let Some(size) = tmpfs {
            let options = size.map(|bytes| format!("size={bytes}"));
            nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())?;
        }
        Ok(())
    }

    /// Takes down every volume of a pod and removes its directory. Nothing that is still mounted is ever descended into.
    pub fn remove_pod(&self, uid: &str) -> io::Result<()> {
        let dir = self.pod_dir(uid);
        for mount in mounts_below(&dir)?.into_iter().rev() {
            nix::mount::umount2(&mount, MntFlags::MNT_DETACH)?;
        }
        if !mounts_below(&dir)?.is_empty() {
            return Err(io::Error::other(format!("{} still holds mounts", dir.display())));
        }
        match std::fs::remove_dir_all(&dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// UIDs of the pods that have a directory.
    pub fn pods_on_disk(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("pods")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// User and group of a pod's files: `fsGroup`, and the user when all containers run as the same one.
pub fn owner(pod: &Pod) -> Owner {
    let of_pod = pod.spec().security_context.as_ref();
    let group = of_pod.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
    let default = of_pod.and_then(|context| context.run_as_user);
    let containers = pod.init_containers().iter().chain(&pod.spec().containers);
    let mut users = containers.map(|c| c.security_context.as_ref().and_then(|own| own.run_as_user).or(default));
    let user = users.next().flatten().filter(|first| users.all(|user| user == Some(*first)));
    Owner { user: user.and_then(|user| u32::try_from(user).ok()), group }
}

/// The directory name upstream uses for a kind of volume.
fn plugin(volume: &Volume) -> &'static str {
    if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else {
        "kubernetes.io~local-volume"
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn is_mount_point(path: &Path) -> bool {
    mounts_below(path).is_ok_and(|mounts| mounts.iter().any(|mount| mount == path))
}

/// Mount points at or below `dir`, outermost first.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| PathBuf::from(unescape(field)));
    Ok(points.filter(|point| point.starts_with(dir)).collect())
}

/// `\040` and its like in mountinfo.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
