//! The `type` of a hostPath volume: what must be there, or is made.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks `path` against `kind`, and makes what `DirectoryOrCreate` and `FileOrCreate` ask for.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let meta = std::fs::metadata(path);
    let failed = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    match (kind, meta) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", Err(_)) => make(path, 0o755, |path| std::fs::create_dir_all(path)),
        ("FileOrCreate", Err(_)) => make(path, 0o644, |path| std::fs::write(path, [])),
        ("Directory" | "DirectoryOrCreate", Ok(meta)) if meta.is_dir() => Ok(()),
        ("File" | "FileOrCreate", Ok(meta)) if meta.is_file() => Ok(()),
        ("Socket", Ok(meta)) if meta.file_type().is_socket() => Ok(()),
        ("CharDevice", Ok(meta)) if meta.file_type().is_char_device() => Ok(()),
        ("BlockDevice", Ok(meta)) if meta.file_type().is_block_device() => Ok(()),
        ("Directory" | "DirectoryOrCreate", _) => failed("a directory"),
        ("File" | "FileOrCreate", _) => failed("a file"),
        ("Socket", _) => failed("a socket file"),
        ("CharDevice", _) => failed("a character device"),
        ("BlockDevice", _) => failed("a block device"),
        (kind, _) => Err(format!("{kind} is an invalid volume type")),
    }
}

fn make(path: &Path, mode: u32, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), String> {
    let permissions = std::fs::Permissions::from_mode(mode);
    make(path).and_then(|()| std::fs::set_permissions(path, permissions)).map_err(|err| format!("{}: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, sub) = (dir.path().join("f"), dir.path().join("d/e"));
        assert!(check(&file, "File").expect_err("absent").ends_with("is not a file"));
        check(&file, "FileOrCreate").expect("made");
        check(&file, "File").expect("there");
        assert!(check(&file, "Directory").expect_err("a file").ends_with("is not a directory"));
        check(&sub, "DirectoryOrCreate").expect("made");
        check(&sub, "Directory").expect("there");
        check(Path::new("/dev/null"), "CharDevice").expect("there");
        check(Path::new("/nowhere"), "").expect("unchecked");
    }
}
