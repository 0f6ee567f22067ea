//! Reads a container's log as `kubectl logs` asks for it. Following waits for inotify and for the container's end; it
//! never looks at the file by the clock.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use nix::sys::inotify::AddWatchFlags;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use crate::inotify::Watch;

/// What to show of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail: Option<u64>,
    /// Stop after so many bytes.
    pub limit: Option<u64>,
    /// Only lines at or after this moment.
    pub since: Option<Timestamp>,
    /// `stdout` or `stderr` alone.
    pub stream: Option<&'static str>,
}

/// One line of a log file in CRI's format: `time stream tag content`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    content: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tags) = (fields.next()?, fields.next()?, fields.next()?);
        let content = fields.next()?;
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        Some(Self { time, stream, partial, content: content.strip_suffix(b"\n").unwrap_or(content) })
    }
}

/// Sends what `options` ask for of `log` to `out`, until its end, or while following until `ended` resolves and everything
/// has been sent, or the receiver is gone.
pub async fn send(log: &Path, options: &Options, out: &mpsc::Sender<Bytes>, ended: impl Future<Output = ()>) -> io::Result<()> {
    // Watched before it is read: what is written in between is announced.
    let changes = if options.follow { Some(watch(log)?) } else { None };
    let mut reader = Reader::open(log, options.tail).await?;
    let mut left = options.limit;
    // A line that came in parts has its time in front of the first only.
    let mut inside = false;
    tokio::pin!(ended);
    let mut over = false;
    loop {
        let mut chunk = BytesMut::new();
        let mut at_end = false;
        while chunk.len() < 32 << 10 {
            let Some(line) = reader.line().await? else {
                at_end = true;
                break;
            };
            let Some(line) = Line::parse(&line) else { continue };
            if !wanted(&line, options) {
                continue;
            }
            if options.timestamps && !inside {
                chunk.put_slice(line.time);
                chunk.put_u8(b' ');
            }
            chunk.put_slice(line.content);
            if !line.partial {
                chunk.put_u8(b'\n');
            }
            inside = line.partial;
        }
        if let Some(left) = &mut left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            chunk.truncate(most);
            *left -= chunk.len() as u64;
        }
        if !chunk.is_empty() && out.send(chunk.freeze()).await.is_err() {
            return Ok(());
        }
        if left == Some(0) {
            return Ok(());
        }
        if !at_end {
            continue;
        }
        if reader.was_rotated(log) {
            reader = Reader::open(log, None).await?;
            continue;
        }
        let Some(changes) = changes.as_ref().filter(|_| !over) else { return Ok(()) };
        tokio::select! {
            // The end of the container comes after its last line: the file is read once more.
            () = &mut ended => over = true,
            () = out.closed() => return Ok(()),
            // What changed is seen by reading on; the events are only the bell.
            rung = changes.changed() => drop(rung?),
        }
    }
}

fn wanted(line: &Line<'_>, options: &Options) -> bool {
    if options.stream.is_some_and(|stream| line.stream != stream.as_bytes()) {
        return false;
    }
    let Some(since) = options.since else { return true };
    let time = std::str::from_utf8(line.time).ok().and_then(|text| text.parse::<Timestamp>().ok());
    time.is_none_or(|time| time >= since)
}

fn watch(log: &Path) -> io::Result<Watch> {
    // The directory, because a rotation makes a new file.
    let dir = log.parent().unwrap_or(log);
    Watch::on(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
}

struct Reader {
    file: BufReader<File>,
    inode: u64,
    /// A line whose end has not been written yet.
    pending: Vec<u8>,
}

impl Reader {
    async fn open(log: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut file = File::open(log).await?;
        let inode = file.metadata().await?.ino();
        if let Some(lines) = tail {
            let start = tail_start(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        Ok(Self { file: BufReader::with_capacity(32 << 10, file), inode, pending: Vec::new() })
    }

    /// The next whole line.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.file.read_until(b'\n', &mut self.pending).await?;
        if self.pending.last() == Some(&b'\n') {
            return Ok(Some(std::mem::take(&mut self.pending)));
        }
        Ok(None)
    }

    /// Whether another file now has the log's name.
    fn was_rotated(&self, log: &Path) -> bool {
        std::fs::metadata(log).is_ok_and(|meta| meta.ino() != self.inode)
    }
}

/// Where the last `lines` lines begin.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 16 << 10;
    let end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let mut found = 0;
    let mut at = end;
    let mut block = Vec::new();
    while at > 0 {
        let start = at.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start)).await?;
        block.resize(usize::try_from(at - start).unwrap_or(0), 0);
        file.read_exact(&mut block).await?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = start + index as u64;
            // The newline that ends the file ends the last line and begins none.
            if *byte == b'\n' && position + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(position + 1);
                }
            }
        }
        at = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n2026-01-01T00:00:02Z stdout P thr\n\
                       2026-01-01T00:00:02Z stdout F ee\n";

    async fn shown(options: Options) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("0.log");
        std::fs::write(&log, LOG).expect("writable");
        let (out, mut lines) = mpsc::channel(16);
        send(&log, &options, &out, std::future::pending()).await.expect("read");
        drop(out);
        let mut all = Vec::new();
        while let Some(bytes) = lines.recv().await {
            all.extend(bytes);
        }
        String::from_utf8(all).expect("text")
    }

    #[tokio::test]
    async fn options_choose_lines() {
        let none = Options::default;
        assert_eq!(shown(none()).await, "one\ntwo\nthree\n");
        assert_eq!(shown(Options { tail: Some(2), ..none() }).await, "three\n");
        assert_eq!(shown(Options { tail: Some(3), ..none() }).await, "two\nthree\n");
        assert_eq!(shown(Options { tail: Some(0), ..none() }).await, "");
        assert_eq!(shown(Options { tail: Some(99), ..none() }).await, "one\ntwo\nthree\n");
        assert_eq!(shown(Options { limit: Some(5), ..none() }).await, "one\nt");
        assert_eq!(shown(Options { stream: Some("stderr"), ..none() }).await, "two\n");
        assert_eq!(shown(Options { timestamps: true, tail: Some(2), ..none() }).await, "2026-01-01T00:00:02Z three\n");
        let since = "2026-01-01T00:00:01Z".parse().ok();
        assert_eq!(shown(Options { since, ..none() }).await, "two\nthree\n");
    }

    #[tokio::test]
    async fn following_sees_new_lines_rotation_and_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("0.log");
        std::fs::write(&log, "t stdout F one\n").expect("writable");
        let (out, mut lines) = mpsc::channel(16);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let following = tokio::spawn({
            let log = log.clone();
            async move {
                let options = Options { follow: true, ..Options::default() };
                send(&log, &options, &out, async { ended.await.unwrap_or(()) }).await
            }
        });
        assert_eq!(lines.recv().await.as_deref(), Some(b"one\n".as_slice()));
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).expect("writable");
        file.write_all(b"t stdout F two\n").expect("written");
        assert_eq!(lines.recv().await.as_deref(), Some(b"two\n".as_slice()));
        std::fs::rename(&log, dir.path().join("0.log.1")).expect("renamed");
        std::fs::write(&log, "t stdout F three\n").expect("writable");
        assert_eq!(lines.recv().await.as_deref(), Some(b"three\n".as_slice()));
        end.send(()).expect("following");
        following.await.expect("no panic").expect("read");
        assert_eq!(lines.recv().await, None);
    }
}
