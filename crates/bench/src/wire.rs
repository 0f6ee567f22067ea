//! The load client's connection: HTTP/1.1 over TLS with as little work as a client can do, since it shares the cores with the
//! server that is measured. Records are decrypted where they were received, and bodies are looked at and forgotten. All connections
//! of a thread receive into the same memory, which so stays in the processor's cache; each keeps only the part of a record that
//! has come.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Bytes received by one read at most.
const RECEIVE: usize = 256 << 10;
/// What a request may be longer by once it is encrypted: a header and a tag for each record of 16 KiB.
const RECORD_OVERHEAD: usize = 64;

thread_local! {
    /// Where this thread receives.
    static ARENA: RefCell<Vec<u8>> = RefCell::new(vec![0; RECEIVE]);
}

/// An open connection; one request at a time.
pub struct Wire {
    stream: TcpStream,
    tls: UnbufferedClientConnection,
    /// What was received and not processed yet: less than a record.
    rest: Vec<u8>,
    outgoing: Vec<u8>,
    plain: Vec<u8>,
    /// What every request's head ends with.
    fixed: String,
}

impl Wire {
    /// Connects to a server and shakes hands.
    pub async fn connect(host: &str, port: u16, token: &str, config: Arc<rustls::ClientConfig>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let tls = UnbufferedClientConnection::new(config, ServerName::try_from(host.to_owned())?)?;
        let fixed = format!("host: {host}:{port}\r\naccept: application/json\r\nauthorization: Bearer {token}\r\n");
        let mut wire = Self { stream, tls, rest: Vec::new(), outgoing: Vec::new(), plain: Vec::new(), fixed };
        wire.shake_hands().await?;
        Ok(wire)
    }

    async fn shake_hands(&mut self) -> anyhow::Result<()> {
        loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut self.rest);
            let mut receive = false;
            let mut send = false;
            match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    let used = self.outgoing.len();
                    self.outgoing.resize(used + (32 << 10), 0);
                    let written = data.encode(&mut self.outgoing[used..])?;
                    self.outgoing.truncate(used + written);
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    send = true;
                }
                ConnectionState::BlockedHandshake => receive = true,
                ConnectionState::WriteTraffic(_) => return Ok(()),
                state => bail!("unexpected in a handshake: {state:?}"),
            }
            self.rest.drain(..discard);
            if send {
                self.stream.write_all(&self.outgoing).await?;
                self.outgoing.clear();
            }
            if receive {
                self.rest = self.receive(|_, received| Ok((received.len(), received.to_vec()))).await?;
            }
        }
    }

    /// Waits for more bytes and shows them to `process`, behind those it has left. It returns how many it is done with.
    async fn receive<T>(
        &mut self,
        mut process: impl FnMut(&mut UnbufferedClientConnection, &mut [u8]) -> anyhow::Result<(usize, T)>,
    ) -> anyhow::Result<T> {
        loop {
            self.stream.readable().await?;
            let processed = ARENA.with_borrow_mut(|arena| {
                let known = self.rest.len();
                arena[..known].copy_from_slice(&self.rest);
                let received = match self.stream.try_read(&mut arena[known..]) {
                    Ok(received) => received,
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(err) => return Err(err.into()),
                };
                ensure!(received > 0, "the server closed the connection");
                let all = &mut arena[..known + received];
                let (done, outcome) = process(&mut self.tls, all)?;
                self.rest.clear();
                self.rest.extend_from_slice(&all[done..]);
                Ok(Some(outcome))
            });
            if let Some(outcome) = processed? {
                return Ok(outcome);
            }
        }
    }

    /// Sends a request, shows every piece of the answer's body to `see` as it comes, and returns the status.
    pub async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<(&str, Bytes)>,
        see: impl FnMut(&[u8]),
    ) -> anyhow::Result<u16> {
        self.send(method, path, body).await?;
        self.answer(see).await
    }

    /// Sends a request that must succeed, and returns the length of the answer's body.
    pub async fn succeed(&mut self, method: &str, path: &str, body: Option<(&str, Bytes)>) -> anyhow::Result<usize> {
        let (mut length, mut start) = (0, Vec::new());
        let see = |piece: &[u8]| {
            if length < 300 {
                start.extend_from_slice(&piece[..piece.len().min(300)]);
            }
            length += piece.len();
        };
        let status = self.call(method, path, body, see).await?;
        ensure!((200..300).contains(&status), "{method} {path}: {status}: {}", String::from_utf8_lossy(&start));
        Ok(length)
    }

    /// Sends a request and leaves the answer for [`Self::answer`].
    pub async fn send(&mut self, method: &str, path: &str, body: Option<(&str, Bytes)>) -> anyhow::Result<()> {
        use std::io::Write;
        self.plain.clear();
        write!(self.plain, "{method} {path} HTTP/1.1\r\n{}", self.fixed)?;
        if let Some((kind, body)) = &body {
            write!(self.plain, "content-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len())?;
            self.plain.extend_from_slice(body);
        } else {
            self.plain.extend_from_slice(b"\r\n");
        }
        let room = self.plain.len() + RECORD_OVERHEAD * (1 + self.plain.len() / (16 << 10));
        self.outgoing.resize(room, 0);
        let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut self.rest);
        let ConnectionState::WriteTraffic(mut traffic) = state? else {
            bail!("the server sent something before it was asked");
        };
        let written = traffic.encrypt(&self.plain, &mut self.outgoing)?;
        self.rest.drain(..discard);
        self.stream.write_all(&self.outgoing[..written]).await?;
        Ok(())
    }

    /// Reads an answer to its end.
    pub async fn answer(&mut self, mut see: impl FnMut(&[u8])) -> anyhow::Result<u16> {
        let mut reading = Reading::default();
        loop {
            self.receive(|tls, received| Ok((decrypt(tls, received, |data| reading.take(data, &mut see))?, ()))).await?;
            if let Phase::Done = reading.phase {
                return Ok(reading.status);
            }
        }
    }
}

/// Decrypts all whole records in `received`, and returns their length.
fn decrypt(
    tls: &mut UnbufferedClientConnection,
    received: &mut [u8],
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let mut start = 0;
    loop {
        let UnbufferedStatus { discard, state, .. } = tls.process_tls_records(&mut received[start..]);
        let mut done = discard;
        let mut is_end = false;
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    done += record.discard;
                    take(record.payload)?;
                }
            }
            // The end of what was received, or of the whole records in it.
            ConnectionState::WriteTraffic(_) => is_end = true,
            state => bail!("unexpected in an answer: {state:?}"),
        }
        start += done;
        if is_end {
            return Ok(start);
        }
    }
}

/// An answer that is being read.
#[derive(Default)]
struct Reading {
    phase: Phase,
    status: u16,
    /// The head, or the line of a chunk's size, as far as it has come.
    line: Vec<u8>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Head,
    /// Bytes left of a body of known length.
    Body(usize),
    ChunkSize,
    /// Bytes left of a chunk, and the line end behind it.
    Chunk(usize),
    ChunkEnd(usize),
    /// After the last chunk.
    Last(usize),
    Done,
}

impl Reading {
    fn take(&mut self, mut data: &[u8], see: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        while !data.is_empty() {
            match &mut self.phase {
                Phase::Head => {
                    let known = self.line.len();
                    self.line.extend_from_slice(data);
                    let Some(end) = self.line.windows(4).position(|four| four == b"\r\n\r\n") else {
                        return Ok(());
                    };
                    data = &data[end + 4 - known..];
                    self.line.truncate(end);
                    (self.status, self.phase) = head(&self.line)?;
                    self.line.clear();
                }
                Phase::Body(left) | Phase::Chunk(left) => {
                    let piece = data.len().min(*left);
                    see(&data[..piece]);
                    data = &data[piece..];
                    *left -= piece;
                    if *left == 0 {
                        self.phase = if matches!(self.phase, Phase::Body(_)) { Phase::Done } else { Phase::ChunkEnd(2) };
                    }
                }
                Phase::ChunkSize => {
                    let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
                        self.line.extend_from_slice(data);
                        return Ok(());
                    };
                    self.line.extend_from_slice(&data[..end]);
                    data = &data[end + 1..];
                    let size =
                        usize::from_str_radix(std::str::from_utf8(&self.line)?.trim(), 16).context("the size of a chunk")?;
                    self.line.clear();
                    self.phase = if size == 0 { Phase::Last(2) } else { Phase::Chunk(size) };
                }
                Phase::ChunkEnd(left) | Phase::Last(left) => {
                    let skipped = data.len().min(*left);
                    data = &data[skipped..];
                    *left -= skipped;
                    if *left == 0 {
                        self.phase = if matches!(self.phase, Phase::Last(_)) { Phase::Done } else { Phase::ChunkSize };
                    }
                }
                Phase::Done => bail!("more than one answer"),
            }
        }
        Ok(())
    }
}

/// The status of an answer, and how its body comes.
fn head(head: &[u8]) -> anyhow::Result<(u16, Phase)> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?.parse()?;
    let mut phase = Phase::Done;
    for line in lines {
        let (name, value) = line.split_once(':').context("a header")?;
        if name.eq_ignore_ascii_case("content-length") {
            phase = match value.trim().parse()? {
                0 => Phase::Done,
                length => Phase::Body(length),
            };
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            phase = Phase::ChunkSize;
        }
    }
    Ok((status, phase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_however_they_are_cut() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello".as_slice();
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n".as_slice();
        for (bytes, expected) in [(whole, 201), (chunked, 200)] {
            for size in [1, 2, 3, 7, bytes.len()] {
                let (mut reading, mut body) = (Reading::default(), Vec::new());
                for piece in bytes.chunks(size) {
                    assert!(!matches!(reading.phase, Phase::Done));
                    reading.take(piece, &mut |piece| body.extend_from_slice(piece)).unwrap();
                }
                assert!(matches!(reading.phase, Phase::Done));
                assert_eq!((reading.status, body.as_slice()), (expected, b"hello".as_slice()));
            }
        }
    }
}
