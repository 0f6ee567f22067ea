//! Replaces the files of a volume as one: they are written to a new directory, then the link `..data` is moved to it.
//! A reader sees all of the old or all of the new; the layout is upstream's, on which programs rely.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Owner;

/// Path in the volume to file.
pub type Payload = BTreeMap<String, File>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner of this file alone.
    pub user: Option<u32>,
}

const DATA: &str = "..data";

/// Makes `dir` show `payload`; whether anything changed.
pub fn write(dir: &Path, payload: &Payload, owner: Owner) -> io::Result<bool> {
    for path in payload.keys() {
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.starts_with("..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")));
        }
    }
    let data = dir.join(DATA);
    let old = std::fs::read_link(&data).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload)
    {
        links(dir, payload)?;
        return Ok(false);
    }
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let now = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let version = format!("{now}.{}", SERIAL.fetch_add(1, Ordering::Relaxed) + std::process::id());
    let fresh = dir.join(&version);
    std::fs::create_dir_all(&fresh)?;
    own(&fresh, 0o755, owner, None)?;
    for (path, file) in payload {
        let target = fresh.join(path);
        let mut parent = fresh.clone();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !parent.exists() {
                std::fs::create_dir(&parent)?;
                own(&parent, 0o755, owner, None)?;
            }
        }
        std::fs::write(&target, &file.data)?;
        let mode = if owner.group.is_some() { file.mode | (file.mode & 0o700) >> 3 | 0o040 } else { file.mode };
        own(&target, mode, owner, file.user)?;
    }
    let staged = dir.join("..data_tmp");
    let _ = std::fs::remove_file(&staged);
    symlink(&version, &staged)?;
    std::fs::rename(&staged, &data)?;
    links(dir, payload)?;
    if let Some(old) = old {
        std::fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// Keeps one link for each name at the top, and none for names that are gone.
fn links(dir: &Path, payload: &Payload) -> io::Result<()> {
    let names: std::collections::BTreeSet<&str> = payload.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    for name in &names {
        let link = dir.join(name);
        if !link.is_symlink() {
            symlink(PathBuf::from(DATA).join(name), link)?;
        }
    }
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !names.contains(name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&at) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).ok().and_then(Path::to_str);
            let Some(file) = name.and_then(|name| payload.get(name)) else { return false };
            if !std::fs::read(&path).is_ok_and(|data| data == file.data) {
                return false;
            }
            found += 1;
        }
    }
    found == payload.len()
}

fn own(path: &Path, mode: u32, owner: Owner, user: Option<u32>) -> io::Result<()> {
    if owner.group.is_some() || user.is_some() {
        chown(path, user, owner.group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.as_bytes().to_vec(), mode: 0o644, user: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    #[test]
    fn content_is_replaced_as_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        assert!(write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), Owner::default()).expect("written"));
        assert_eq!(std::fs::read_to_string(dir.join("sub/b")).expect("readable"), "2");
        assert_eq!(std::fs::read_link(dir.join("a")).expect("a link"), Path::new("..data/a"));
        let first = std::fs::read_link(dir.join(DATA)).expect("a link");
        assert!(!write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), Owner::default()).expect("written"));
        assert_eq!(std::fs::read_link(dir.join(DATA)).expect("a link"), first);
        assert!(write(dir, &payload(&[("a", "3")]), Owner::default()).expect("written"));
        assert_eq!(std::fs::read_to_string(dir.join("a")).expect("readable"), "3");
        assert!(!dir.join("sub").is_symlink() && !dir.join(first).exists());
    }

    #[test]
    fn paths_may_not_leave_the_volume() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["../a", "/a", "..a", "a/../../b"] {
            assert!(write(dir.path(), &payload(&[(path, "")]), Owner::default()).is_err(), "{path}");
        }
    }
}
