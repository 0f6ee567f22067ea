//! Container logs in the CRI format: `<time> <stdout|stderr> <F|P> <line>`, where `P` marks what no line feed followed: a part
//! of a line longer than 16 KiB, or an end in the middle of a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest content of one log line, in bytes.
const MOST: usize = 16 * 1024;

/// Cuts one stream into log lines.
#[derive(Debug)]
pub struct Framer {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Framer {
    /// For `stdout` or `stderr`.
    pub fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Takes output and appends the lines it completes to `lines`.
    pub fn push(&mut self, mut data: &[u8], time: &str, lines: &mut Vec<u8>) {
        while let Some(end) = data.iter().position(|&byte| byte == b'\n') {
            self.fill(&data[..end], time, lines);
            // As containerd does: a carriage return before the line feed is the terminal's, not the program's.
            if self.pending.last() == Some(&b'\r') {
                self.pending.pop();
            }
            self.emit(b'F', time, lines);
            data = &data[end + 1..];
        }
        self.fill(data, time, lines);
    }

    /// The stream has ended: what is left is a line without its end, which readers show as it was written.
    pub fn finish(&mut self, time: &str, lines: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.emit(b'P', time, lines);
        }
        self.pending = Vec::new();
    }

    fn fill(&mut self, mut data: &[u8], time: &str, lines: &mut Vec<u8>) {
        while self.pending.len() + data.len() > MOST {
            let (now, later) = data.split_at(MOST - self.pending.len());
            self.pending.extend_from_slice(now);
            self.emit(b'P', time, lines);
            data = later;
        }
        self.pending.extend_from_slice(data);
    }

    fn emit(&mut self, tag: u8, time: &str, lines: &mut Vec<u8>) {
        for part in [time.as_bytes(), b" ", self.stream.as_bytes(), b" ", &[tag], b" ", &self.pending, b"\n"] {
            lines.extend_from_slice(part);
        }
        self.pending.clear();
    }
}

/// A log file, appended to and replaced on rotation.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    /// Opens (or makes) the file; an empty path keeps no log.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut log = Self { path: path.to_owned(), file: None };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the path anew: the old file has been moved away.
    pub fn reopen(&mut self) -> io::Result<()> {
        if !self.path.as_os_str().is_empty() {
            self.file = Some(OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?);
        }
        Ok(())
    }

    /// Appends lines. A full disk loses them: blocking the container would be worse.
    pub fn append(&mut self, lines: &[u8]) {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(lines);
        }
    }
}

/// The present, as log lines have it.
pub fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&[u8]], expected: &str) {
        let (mut framer, mut lines) = (Framer::new("stdout"), Vec::new());
        for chunk in chunks {
            framer.push(chunk, "T", &mut lines);
        }
        framer.finish("E", &mut lines);
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }

    #[test]
    fn lines_are_framed() {
        check(&[b"one\ntwo\n"], "T stdout F one\nT stdout F two\n");
        check(&[b"on", b"e\r\n"], "T stdout F one\n");
        check(&[b"\n\n"], "T stdout F \nT stdout F \n");
        check(&[b"rest"], "E stdout P rest\n");
        check(&[], "");
    }

    #[test]
    fn long_lines_are_parted() {
        let long = "x".repeat(MOST);
        check(&[long.as_bytes(), b"\n"], &format!("T stdout F {long}\n"));
        check(&[long.as_bytes(), b"yz\n"], &format!("T stdout P {long}\nT stdout F yz\n"));
        check(&[long.as_bytes(), long.as_bytes()], &format!("T stdout P {long}\nE stdout P {long}\n"));
    }

    #[test]
    fn time_has_nine_digits() {
        let text = timestamp();
        assert_eq!(text.len(), "2024-01-01T00:00:00.000000000Z".len(), "{text}");
        assert!(text.ends_with('Z'));
    }
}
