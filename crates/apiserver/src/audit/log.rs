//! The audit log: lines are appended; a log that is too large is renamed, and the oldest renamed ones go.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::AuditError;

pub(super) struct Log {
    path: PathBuf,
    /// Bytes at which it is renamed; 0 sets no limit.
    max_size: u64,
    /// Renamed logs kept; 0 keeps all.
    max_backup: usize,
    out: Mutex<Out>,
}

enum Out {
    Stdout,
    File { file: File, size: u64 },
}

impl Log {
    /// Opens `path` (`-` is standard output) with mode 0600.
    pub(super) fn open(path: &Path, max_megabytes: u32, max_backup: u32) -> Result<Self, AuditError> {
        let out = match path.to_str() {
            Some("-") => Out::Stdout,
            _ => {
                let file = append(path).map_err(|source| AuditError::Open { path: path.to_owned(), source })?;
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                Out::File { file, size }
            }
        };
        let max_size = u64::from(max_megabytes) << 20;
        Ok(Self { path: path.to_owned(), max_size, max_backup: max_backup as usize, out: Mutex::new(out) })
    }

    /// Writes one event. What cannot be written is told to the server's log: a full disk does not stop the cluster.
    pub(super) fn write(&self, event: &Value) {
        let mut line = event.to_string();
        line.push('\n');
        let mut out = self.out.lock();
        let written = match &mut *out {
            Out::Stdout => std::io::stdout().lock().write_all(line.as_bytes()),
            Out::File { file, size } => {
                if self.max_size > 0 && *size + line.len() as u64 > self.max_size && *size > 0 {
                    match self.rotate() {
                        Ok(new) => (*file, *size) = (new, 0),
                        Err(err) => tracing::warn!(error = %err, "the audit log could not be rotated"),
                    }
                }
                *size += line.len() as u64;
                file.write_all(line.as_bytes())
            }
        };
        if let Err(err) = written {
            tracing::error!(error = %err, path = %self.path.display(), "an audit event is lost");
        }
    }

    fn rotate(&self) -> std::io::Result<File> {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let end = self.path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
        let now = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%9f");
        std::fs::rename(&self.path, self.path.with_file_name(format!("{stem}-{now}{end}")))?;
        if self.max_backup > 0 {
            let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut old: Vec<PathBuf> = std::fs::read_dir(directory)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    name.starts_with(&format!("{stem}-")) && name.ends_with(&end)
                })
                .collect();
            old.sort();
            let excess = old.len().saturating_sub(self.max_backup);
            for path in &old[..excess] {
                std::fs::remove_file(path)?;
            }
        }
        append(&self.path)
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_rotated_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(&directory.path().join("audit.log"), 1, 2).unwrap();
        let event = Value::String("x".repeat(600 << 10));
        for _ in 0..6 {
            log.write(&event);
        }
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 3, "the log and two backups");
    }
}
