//! Volume mounts of one container: paths, read-only, propagation and subPaths.
//!
//! A subPath is a name inside a volume that the pod itself can write to, so it may have become a link that leads out of
//! it. It is resolved by the kernel within the volume and pinned by a bind mount before the runtime sees it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use corten_runtime::{Mount, Propagation};

use super::Volumes;
use crate::env::expand;
use crate::pod::PodExt;

/// The bind mounts of `container`. The error is the message of `CreateContainerConfigError`.
pub fn container_mounts(
    volumes: &Volumes,
    pod: &Pod,
    container: &Container,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = pod.spec().volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let Some(volume) = volume else {
            return Err(format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name));
        };
        let root = volumes.path(pod, volume);
        let host_path = match sub_path(mount, env)? {
            Some(sub) => pin(volumes, pod, container, index, &root, &sub).map_err(|err| {
                tracing::warn!(error = %err, pod = pod.name(), path = %sub.display(), "subPath");
                format!("failed to prepare subPath for volumeMount {:?} of container {:?}", mount.name, container.name)
            })?,
            None => {
                // As upstream: a hostPath without a type is made as a directory when it is absent.
                if volume.host_path.is_some() && !root.exists() {
                    std::fs::create_dir_all(&root).map_err(|err| format!("{}: {err}", root.display()))?;
                }
                root
            }
        };
        // Content that the kubelet writes is read-only for containers whatever the mount says.
        let managed =
            volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some();
        let readonly = managed || mount.read_only.unwrap_or(false);
        let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
        mounts.push(Mount {
            host_path,
            container_path: absolute(&mount.mount_path),
            readonly,
            recursive_readonly: readonly && recursive,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    Ok(mounts)
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<PathBuf>, String> {
    let path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(expression), _) if !expression.is_empty() => {
            let missing = std::cell::RefCell::new(None);
            let value = expand(expression, |name| {
                let value = env.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.clone());
                if value.is_none() {
                    *missing.borrow_mut() = Some(name.to_owned());
                }
                value
            });
            if let Some(name) = missing.into_inner() {
                return Err(format!("missing value for {name:?}"));
            }
            value
        }
        (_, Some(path)) if !path.is_empty() => path.clone(),
        _ => return Ok(None),
    };
    let path = PathBuf::from(path);
    if path.is_absolute() {
        return Err(format!("error SubPath `{}` must not be an absolute path", path.display()));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("unable to provision SubPath `{}`: must not contain '..'", path.display()));
    }
    Ok(Some(path))
}

/// The path the runtime is to mount for `sub` inside `root`; made as a directory when it is absent.
fn pin(volumes: &Volumes, pod: &Pod, container: &Container, index: usize, root: &Path, sub: &Path) -> io::Result<PathBuf> {
    let volume = OwnedFd::from(std::fs::File::open(root)?);
    let open = || {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&volume, sub, how)
    };
    let found = match open() {
        Err(nix::Error::ENOENT) => {
            make_dirs(&volume, sub)?;
            open()?
        }
        found => found?,
    };
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    if !volumes.manage {
        return std::fs::read_link(link);
    }
    let base = volumes.pod_dir(pod.uid()).join("volume-subpaths").join(&container.name);
    let target = base.join(index.to_string());
    std::fs::create_dir_all(&base)?;
    // A mount of an earlier run of this container is replaced: the path may have changed.
    let _ = nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH);
    if std::fs::metadata(&link)?.is_dir() {
        std::fs::create_dir_all(&target)?;
    } else if !target.exists() {
        std::fs::write(&target, [])?;
    }
    nix::mount::mount(Some(link.as_str()), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(target)
}

fn make_dirs(volume: &OwnedFd, sub: &Path) -> io::Result<()> {
    let mut so_far = PathBuf::new();
    for part in sub.components() {
        let how = || {
            OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
        };
        let parent = if so_far.as_os_str().is_empty() { volume.try_clone()? } else { openat2(volume, &so_far, how())? };
        match nix::sys::stat::mkdirat(&parent, part.as_os_str(), Mode::from_bits_truncate(0o777)) {
            Ok(()) => {
                let file = openat2(&parent, part.as_os_str(), OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC))?;
                // The umask of this process must not make it unusable for the container's user.
                nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(0o755))?;
            }
            Err(nix::Error::EEXIST) => {}
            Err(err) => return Err(err.into()),
        }
        so_far.push(part);
    }
    Ok(())
}
