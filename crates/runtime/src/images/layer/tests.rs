//! Layers are unpacked as root, as they are in life: whiteouts are device nodes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;

enum Item {
    File(&'static str, &'static str),
    Directory(&'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
}
use Item::*;

fn archive(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o4755);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000);
        let (path, data) = match item {
            File(path, data) => (path, *data),
            Directory(path) => {
                header.set_entry_type(EntryType::Directory);
                (path, "")
            }
            Link(path, to) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name(to).unwrap();
                (path, "")
            }
            Hard(path, to) => {
                header.set_entry_type(EntryType::Link);
                header.as_gnu_mut().unwrap().linkname[..to.len()].copy_from_slice(to.as_bytes());
                (path, "")
            }
        };
        header.set_size(data.len() as u64);
        // Written raw: the builder itself refuses paths that climb.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpacked(items: &[Item]) -> (tempfile::TempDir, io::Result<Unpacked>) {
    let target = tempfile::tempdir().unwrap();
    let result = unpack(archive(items).as_slice(), target.path());
    (target, result)
}

#[test]
fn files_keep_owner_mode_and_time() {
    let (target, result) =
        unpacked(&[Directory("bin/"), File("bin/sh", "shell"), Hard("bin/ash", "bin/sh"), Link("sh", "bin/sh")]);
    let layer = result.unwrap();
    assert_eq!((layer.bytes, layer.inodes), (5, 4));
    let meta = fs::metadata(target.path().join("bin/ash")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (1000, 1001, 1_000_000));
    assert_eq!(meta.permissions().mode() & 0o7777, 0o4755);
    assert_eq!(meta.nlink(), 2);
    assert_eq!(fs::read_link(target.path().join("sh")).unwrap(), Path::new("bin/sh"));
    assert_eq!(fs::metadata(target.path().join("bin")).unwrap().mtime(), 1_000_000);
}

#[test]
fn whiteouts_take_overlayfs_form() {
    let (target, result) = unpacked(&[File("etc/.wh.passwd", ""), File("var/.wh..wh..opq", "")]);
    result.unwrap();
    let meta = fs::symlink_metadata(target.path().join("etc/passwd")).unwrap();
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0);
    let opaque = corten_sys::xattr::get(&target.path().join("var"), "trusted.overlay.opaque").unwrap();
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
    assert!(!target.path().join("var/.wh..wh..opq").exists());
}

#[test]
fn nothing_leaves_the_target() {
    let (_target, result) = unpacked(&[File("../escape", "x")]);
    assert!(result.unwrap_err().to_string().contains("path leaves the layer"));
    let outside = tempfile::tempdir().unwrap();
    let link: &'static str = Box::leak(outside.path().display().to_string().into_boxed_str());
    let (_target, result) = unpacked(&[Link("out", link), File("out/file", "x")]);
    // Inside the target the link leads nowhere.
    assert!(result.is_err());
    let (target, result) = unpacked(&[Directory("real"), Link("out", "/real"), File("out/file", "x"), File("/absolute", "y")]);
    result.unwrap();
    assert!(target.path().join("real/file").exists() && target.path().join("absolute").exists());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let (_target, result) = unpacked(&[Hard("passwd", "../../../../etc/passwd")]);
    assert!(result.is_err());
    let (target, result) = unpacked(&[Link("f", "/etc/hostname"), File("f", "mine")]);
    result.unwrap();
    assert_eq!(fs::read_to_string(target.path().join("f")).unwrap(), "mine");
}

#[test]
fn compression_is_recognized_and_the_digest_is_of_the_content() {
    let plain = archive(&[File("a", "data")]);
    let expected = format!("sha256:{}", hex::encode(Sha256::digest(&plain)));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &plain).unwrap();
    for bytes in [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
        let target = tempfile::tempdir().unwrap();
        assert_eq!(unpack(bytes.as_slice(), target.path()).unwrap().diff_id, expected);
        assert_eq!(fs::read_to_string(target.path().join("a")).unwrap(), "data");
    }
}

#[test]
fn broken_archives_are_refused() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &archive(&[File("a", "data")])).unwrap();
    let mut bytes = gzip.finish().unwrap();
    bytes.truncate(bytes.len() - 12);
    let target = tempfile::tempdir().unwrap();
    assert!(unpack(bytes.as_slice(), target.path()).is_err());
    let target = tempfile::tempdir().unwrap();
    assert!(unpack(&b"this is no archive at all, but long enough to look like one ......"[..], target.path()).is_err());
}
