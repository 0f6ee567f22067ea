//! Files of certificates and keys: read with their path in the error, written whole or not at all.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::CertsError;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CertsError {
    let path = path.to_owned();
    move |source| CertsError::File { path, source }
}

pub(super) fn make_directory(path: &Path) -> Result<(), CertsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

pub(super) fn read(path: &Path) -> Result<String, CertsError> {
    std::fs::read_to_string(path).map_err(failed(path))
}

/// Writes a file that only its owner may read. It appears whole: a reader sees the old file or the new one.
pub(super) fn write_private(path: &Path, content: &str) -> Result<(), CertsError> {
    write(path, content, 0o600)
}

/// Writes a file that everybody may read.
pub(super) fn write_public(path: &Path, content: &str) -> Result<(), CertsError> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &str, mode: u32) -> Result<(), CertsError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = std::fs::remove_file(&new); // left by a crash, perhaps with another mode
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).map_err(failed(&new))?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(&new))?;
    std::fs::rename(&new, path).map_err(failed(path))
}
