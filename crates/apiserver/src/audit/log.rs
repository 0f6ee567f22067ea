//! The audit log: lines are appended; a log that is too large is renamed, and the oldest renamed ones go.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use corten_task::Tasks;

use super::AuditError;
use crate::config::AuditFormat;

pub(super) struct Log {
    path: PathBuf,
    limits: Limits,
    format: AuditFormat,
    /// Owner of the work of compressing renamed logs, if that is to be done.
    compressing: Option<Tasks>,
    out: Mutex<Out>,
}

/// How large a log grows, and how much is kept of what was; 0 sets no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// At which it is renamed.
    pub(super) megabytes: u32,
    /// Renamed logs that are kept.
    pub(super) backups: u32,
    /// Age of a renamed log at which it goes.
    pub(super) days: u32,
}

/// What the names of compressed logs end with.
const COMPRESSED: &str = ".gz";

enum Out {
    Stdout,
    File { file: File, size: u64 },
}

impl Log {
    /// Opens `path` (`-` is standard output) with mode 0600.
    pub(super) fn open(path: &Path, limits: Limits, format: AuditFormat, compressing: Option<Tasks>) -> Result<Self, AuditError> {
        let out = match path.to_str() {
            Some("-") => Out::Stdout,
            _ => {
                let file = append(path).map_err(|source| AuditError::Open { path: path.to_owned(), source })?;
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                Out::File { file, size }
            }
        };
        Ok(Self { path: path.to_owned(), limits, format, compressing, out: Mutex::new(out) })
    }

    /// Whether lines are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.format == AuditFormat::Json
    }

    /// Writes lines. What cannot be written is told to the server's log: a full disk does not stop the cluster.
    pub(super) fn write(&self, lines: &str) -> bool {
        let mut out = self.out.lock();
        let written = match &mut *out {
            Out::Stdout => std::io::stdout().lock().write_all(lines.as_bytes()),
            Out::File { file, size } => {
                let most = u64::from(self.limits.megabytes) << 20;
                if most > 0 && *size + lines.len() as u64 > most && *size > 0 {
                    match self.rotate() {
                        Ok(new) => (*file, *size) = (new, 0),
                        Err(err) => tracing::warn!(error = %err, "the audit log could not be rotated"),
                    }
                }
                *size += lines.len() as u64;
                file.write_all(lines.as_bytes())
            }
        };
        if let Err(err) = &written {
            tracing::error!(error = %err, path = %self.path.display(), "audit events are lost");
        }
        written.is_ok()
    }

    fn rotate(&self) -> std::io::Result<File> {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let end = self.path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
        let now = Timestamp::now();
        let name = |at: Timestamp| format!("{stem}-{}{end}", at.strftime("%Y-%m-%dT%H-%M-%S.%9f"));
        let renamed = self.path.with_file_name(name(now));
        std::fs::rename(&self.path, &renamed)?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<String> = std::fs::read_dir(directory)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&format!("{stem}-")) && name.strip_suffix(COMPRESSED).unwrap_or(name).ends_with(&end))
            .collect();
        old.sort_unstable();
        let oldest = match self.limits.days {
            0 => String::new(),
            days => name(now - SignedDuration::from_hours(24 * i64::from(days))),
        };
        for name in outdated(&old, self.limits.backups as usize, &oldest) {
            std::fs::remove_file(directory.join(name))?;
        }
        if let Some(tasks) = &self.compressing
            && renamed.exists()
        {
            // The log goes on meanwhile: nobody waits for this.
            tasks.spawn_graceful("compress an audit log", async move {
                let done = tokio::task::spawn_blocking(move || compress(&renamed)).await;
                if let Ok(Err(err)) = done {
                    tracing::warn!(error = %err, "a renamed audit log could not be compressed");
                }
            });
        }
        append(&self.path)
    }
}

/// Puts a compressed file in the place of a renamed log. It gets its name when it is whole.
fn compress(path: &Path) -> std::io::Result<()> {
    let named = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    let (unfinished, whole) = (named(".tmp"), named(COMPRESSED));
    let mut encoder = flate2::write::GzEncoder::new(append(&unfinished)?, flate2::Compression::default());
    std::io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::rename(unfinished, whole)?;
    std::fs::remove_file(path)
}

/// Of renamed logs, in the order of their names and so of their age, those that go: all but the newest `kept` (0 keeps all),
/// and those with a name before `oldest`.
fn outdated<'n>(names: &'n [String], kept: usize, oldest: &str) -> &'n [String] {
    let excess = if kept == 0 { 0 } else { names.len().saturating_sub(kept) };
    let aged = names.partition_point(|name| name.as_str() < oldest);
    &names[..excess.max(aged)]
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
        let limits = Limits { megabytes: 1, backups: 2, days: 7 };
        let log = Log::open(&directory.path().join("audit.log"), limits, AuditFormat::Json, None).unwrap();
        let line = "x".repeat(600 << 10);
        for _ in 0..6 {
            assert!(log.write(&line));
        }
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 3, "the log and two backups");
    }

    #[tokio::test]
    async fn renamed_logs_are_compressed_and_go_with_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { megabytes: 1, backups: 2, days: 0 };
        for _ in 0..5 {
            let tasks = Tasks::root("test");
            let log =
                Log::open(&directory.path().join("audit.log"), limits, AuditFormat::Json, Some(tasks.child("log"))).unwrap();
            assert!(log.write(&"x".repeat(600 << 10)));
            tasks.stop().await;
        }
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let (packed, plain): (Vec<_>, Vec<_>) = files.partition(|path| path.extension().is_some_and(|end| end == "gz"));
        assert_eq!((packed.len(), plain.len()), (2, 1), "{packed:?} {plain:?}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(File::open(&packed[0]).unwrap()), &mut text).unwrap();
        assert_eq!(text.len(), 600 << 10);
    }

    #[test]
    fn number_and_age_decide_what_goes() {
        let names = ["a-1", "a-2", "a-3", "a-4"].map(str::to_owned);
        assert_eq!(outdated(&names, 0, "").len(), 0);
        assert_eq!(outdated(&names, 3, ""), ["a-1"]);
        assert_eq!(outdated(&names, 3, "a-3"), ["a-1", "a-2"]);
        assert_eq!(outdated(&names, 1, "a-2"), ["a-1", "a-2", "a-3"]);
    }
}
