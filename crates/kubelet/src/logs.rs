//! Container logs: files in CRI's format, rotated by size, read with the options of `kubectl logs`.

use std::io;
use std::path::{Path, PathBuf};

pub mod read;

/// Rotates `log` when it is larger than `max_size`: it is renamed with a time stamp, and of the older files only so many
/// are kept that there are `max_files` in all. Whether the writer has to reopen.
pub fn rotate(log: &Path, max_size: u64, max_files: u32) -> io::Result<bool> {
    match std::fs::metadata(log) {
        Ok(meta) if meta.len() >= max_size => {}
        Ok(_) => return Ok(false),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(err),
    }
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S%.6f").to_string();
    let mut target = log.as_os_str().to_owned();
    target.push(format!(".{stamp}"));
    std::fs::rename(log, PathBuf::from(target))?;
    let old = rotated(log);
    let keep = usize::try_from(max_files.saturating_sub(1)).unwrap_or(usize::MAX);
    for file in old.iter().take(old.len().saturating_sub(keep)) {
        std::fs::remove_file(file)?;
    }
    Ok(true)
}

/// The rotated files of `log`, oldest first.
pub fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else { return Vec::new() };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    // The stamp sorts by time.
    files.sort_unstable();
    files
}

/// The attempt after the last one that has a log in `directory`, so that a restart count goes on though the containers
/// are gone, as after a stop of the whole cluster.
pub fn next_attempt(directory: &Path) -> Option<u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let attempt = |name: std::ffi::OsString| name.to_str()?.split_once(".log")?.0.parse::<u32>().ok();
    entries.filter_map(|entry| attempt(entry.file_name())).max()?.checked_add(1)
}

/// Removes a log and its rotated files.
pub fn remove(log: &Path) {
    for file in rotated(log).iter().map(PathBuf::as_path).chain([log]) {
        if let Err(err) = std::fs::remove_file(file)
            && err.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(error = %err, path = %file.display(), "remove a log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_on_after_the_last_log() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(next_attempt(&dir.path().join("absent")), None);
        assert_eq!(next_attempt(dir.path()), None);
        for name in ["2.log", "10.log.20261121-060000.000000", "9.log", "other"] {
            std::fs::write(dir.path().join(name), "").expect("writable");
        }
        assert_eq!(next_attempt(dir.path()), Some(11));
    }

    #[test]
    fn logs_are_rotated_by_size_and_bounded_in_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("0.log");
        assert!(!rotate(&log, 4, 3).expect("absent is fine"));
        for round in 0..6 {
            std::fs::write(&log, format!("line {round}")).expect("writable");
            assert!(rotate(&log, 4, 3).expect("rotated"));
            assert!(!log.exists());
        }
        let kept: Vec<_> = rotated(&log).iter().map(|file| std::fs::read_to_string(file).expect("readable")).collect();
        assert_eq!(kept, ["line 4", "line 5"]);
    }
}
