//! Unpacks a layer into a directory that overlayfs can stack: whiteouts become its kind of whiteout, opaque markers
//! its attribute. An archive is not trusted: every path is resolved inside the target, whatever links it contains.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

/// What a layer came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the archive without compression.
    pub diff_id: String,
    /// Bytes of files.
    pub bytes: u64,
    /// Files, directories, links and whiteouts.
    pub inodes: u64,
}

/// Marks a directory that hides what lower layers have there.
const OPAQUE: &str = ".wh..wh..opq";
/// Starts the name of a file that stands for the removal of another.
const WHITEOUT: &str = ".wh.";

/// Unpacks `archive` (plain, gzip or zstd) into `target`, which exists and is empty.
///
/// # Errors
/// When the archive is broken, or the file system refuses. What was unpacked so far is the caller's to remove.
pub fn unpack(archive: impl Read, target: &Path) -> io::Result<Unpacked> {
    let mut plain = Hashing { inner: decompress(archive)?, hash: Sha256::new() };
    let mut writer = Writer { root: File::open(target)?, parent: None, bytes: 0, inodes: 0, directories: Vec::new() };
    let mut archive = Archive::new(&mut plain);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        writer.write(&path, &mut entry).map_err(|err| io::Error::new(err.kind(), format!("{}: {err}", path.display())))?;
    }
    writer.finish()?;
    // What follows the end marker belongs to the digest.
    io::copy(&mut plain, &mut io::sink())?;
    let diff_id = format!("sha256:{}", hex::encode(plain.hash.finalize()));
    Ok(Unpacked { diff_id, bytes: writer.bytes, inodes: writer.inodes })
}

/// The content of an archive whatever its compression, which its first bytes tell.
///
/// # Errors
/// When it cannot be read.
pub fn decompress<'a>(mut archive: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = [0; 4];
    let mut filled = 0;
    while filled < magic.len() {
        match archive.read(&mut magic[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let whole = io::Cursor::new(magic[..filled].to_vec()).chain(archive);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(128 << 10, whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

struct Writer {
    root: File,
    /// The directory of the last entry: archives list a directory's files in a row.
    parent: Option<(PathBuf, OwnedFd)>,
    bytes: u64,
    inodes: u64,
    /// Times of directories are set at the end, since each new file would change them.
    directories: Vec<(PathBuf, TimeSpec)>,
}

impl Writer {
    fn write(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = clean(path)?;
        let Some(name) = path.file_name().map(ToOwned::to_owned) else {
            // The root itself: only its metadata is of use.
            return self.set_root(entry);
        };
        let parent = self.parent(path.parent().unwrap_or(Path::new("")))?;
        let parent = parent.try_clone()?;
        if name == OPAQUE {
            return corten_sys::xattr::set(&through(&parent, Path::new(".")), "trusted.overlay.opaque", b"y");
        }
        self.inodes += 1;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT.as_bytes()) {
            let hidden = Path::new(std::ffi::OsStr::from_bytes(hidden));
            if clean(hidden)?.components().count() != 1 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "whiteout of no file"));
            }
            remove(&parent, hidden)?;
            return Ok(mknodat(&parent, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?);
        }
        self.make(&parent, Path::new(&name), &path, kind, entry)
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &Path,
        path: &Path,
        kind: EntryType,
        entry: &mut Entry<'_, impl Read>,
    ) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(entry.header().mode()?);
        let owner = (Uid::from_raw(narrow(entry.header().uid()?)?), Gid::from_raw(narrow(entry.header().gid()?)?));
        let time = TimeSpec::new(i64::try_from(entry.header().mtime()?).unwrap_or(0), 0);
        match kind {
            EntryType::Directory => {
                let existing = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok();
                if existing.is_none_or(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR) {
                    remove(parent, name)?;
                    mkdirat(parent, name, mode)?;
                }
                self.directories.push((path.to_owned(), time));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                remove(parent, name)?;
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
                self.bytes += io::copy(entry, &mut file)?;
            }
            EntryType::Symlink => {
                remove(parent, name)?;
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                symlinkat(target.as_ref(), parent, name)?;
            }
            EntryType::Link => {
                let target = clean(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
                let of = target.file_name().ok_or(io::ErrorKind::InvalidData)?.to_owned();
                let directory = self.open(target.parent().unwrap_or(Path::new("")))?;
                remove(parent, name)?;
                // Owner, mode and attributes are those of the file itself.
                return Ok(linkat(&directory, Path::new(&of), parent, name, AtFlags::empty())?);
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                remove(parent, name)?;
                let (flag, device) = match kind {
                    EntryType::Fifo => (SFlag::S_IFIFO, 0),
                    kind => {
                        let major = entry.header().device_major()?.unwrap_or(0);
                        let minor = entry.header().device_minor()?.unwrap_or(0);
                        let flag = if kind == EntryType::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
                        (flag, makedev(major.into(), minor.into()))
                    }
                };
                mknodat(parent, name, flag, mode, device)?;
            }
            other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("unknown kind of entry {other:?}"))),
        }
        fchownat(parent, name, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if kind != EntryType::Symlink {
            // After the owner, whose change clears the set-user-id bits. Never a link: it was just made here.
            fchmodat(parent, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        }
        self.set_attributes(parent, name, entry)?;
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    /// Extended attributes, such as file capabilities, from the archive's extension headers.
    fn set_attributes(&self, parent: &OwnedFd, name: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
        for extension in extensions {
            let extension = extension?;
            let Some(attribute) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else { continue };
            // Attributes of overlayfs would be commands to it.
            if attribute.starts_with("trusted.overlay.") || attribute.starts_with("user.overlay.") {
                continue;
            }
            match corten_sys::xattr::set(&through(parent, name), attribute, extension.value_bytes()) {
                // A file system without the attribute's namespace still runs nearly every image.
                Err(err) if err.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn set_root(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        if entry.header().entry_type() == EntryType::Directory {
            fchmod(&self.root, Mode::from_bits_truncate(entry.header().mode()?))?;
        }
        Ok(())
    }

    /// The directory `path`, made when absent (archives may leave parents out), kept for the next entry.
    fn parent(&mut self, path: &Path) -> io::Result<&OwnedFd> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let directory = self.open(path)?;
            self.parent = Some((path.to_owned(), directory));
        }
        match &self.parent {
            Some((_, directory)) => Ok(directory),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let how =
            OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        if path.as_os_str().is_empty() {
            return Ok(openat2(&self.root, ".", how)?);
        }
        match openat2(&self.root, path, how) {
            Err(nix::Error::ENOENT) => {}
            other => return Ok(other?),
        }
        let parent = self.open(path.parent().unwrap_or(Path::new("")))?;
        if let Some(name) = path.file_name() {
            match mkdirat(&parent, Path::new(name), Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(openat2(&self.root, path, how)?)
    }

    fn finish(&mut self) -> io::Result<()> {
        for (path, time) in std::mem::take(&mut self.directories) {
            if let Ok(directory) = self.open(&path) {
                utimensat(&directory, ".", &time, &time, UtimensatFlags::NoFollowSymlink)?;
            }
        }
        Ok(())
    }
}

/// The path without `.` and a leading slash; never one that climbs.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "path leaves the layer"));
            }
        }
    }
    Ok(clean)
}

/// Removes what an earlier entry of the same layer put there.
fn remove(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
        // Removed through the parent's descriptor, and `remove_dir_all` follows no links.
        Err(nix::Error::EISDIR) => std::fs::remove_dir_all(through(parent, name)),
        Err(err) => Err(err.into()),
    }
}

/// A path to `name` in an open directory, for calls that take no descriptor.
fn through(parent: impl AsFd, name: &Path) -> PathBuf {
    Path::new("/proc/self/fd").join(parent.as_fd().as_raw_fd().to_string()).join(name)
}

fn narrow(id: u64) -> io::Result<u32> {
    u32::try_from(id).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "owner out of range"))
}

#[cfg(test)]
mod tests;
