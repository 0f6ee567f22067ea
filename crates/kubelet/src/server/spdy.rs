//! SPDY/3.1 framing, as far as Kubernetes' streams need it: streams opened by the client, data in both directions, ping,
//! reset, go-away. kubectl's port-forward and the exec of older clients speak it, inside a WebSocket or on an upgraded
//! connection. There is no flow control, because no Kubernetes client does any.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const MAX_FRAME: usize = 1 << 20;
/// Data messages waiting for a slow reader of one stream.
const WAITING: usize = 64;

/// The protocol's dictionary for header blocks (SPDY/3.1, section 2.6.10.1).
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow \
        authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 \
        content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
        if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after \
        server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status";
    const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative \
        Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server \
        Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, \
        Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut out = Vec::new();
    let mut word = |word: &str| {
        out.extend(u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
        out.extend(word.as_bytes());
    };
    WORDS.split_whitespace().for_each(&mut word);
    for text in ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"] {
        word(text);
    }
    out.extend(TAIL.as_bytes());
    out
}

/// A stream that the client opened.
pub struct Stream {
    pub id: u32,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// Ends when the client has finished sending.
    pub data: mpsc::Receiver<Bytes>,
}

/// What goes to the client.
pub enum Out {
    Data {
        id: u32,
        bytes: Bytes,
        fin: bool,
    },
    Reply {
        id: u32,
    },
    Pong {
        id: u32,
    },
    /// The end: everything before it is sent, then the connection is closed.
    Close,
}

/// Reads frames until the connection ends. Streams go to `opened`, answers to `out`.
pub async fn read<R: AsyncRead + Unpin>(mut from: R, opened: mpsc::Sender<Stream>, out: mpsc::Sender<Out>) -> io::Result<()> {
    let mut headers = HeaderReader::new();
    let mut streams: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    loop {
        let mut head = [0; 8];
        match from.read_exact(&mut head).await {
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(err) => return Err(err),
        }
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if length > MAX_FRAME {
            return Err(invalid("a frame is too long"));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        if word & 0x8000_0000 == 0 {
            if let Some(stream) = streams.get(&word)
                && !body.is_empty()
                && stream.send(body.into()).await.is_err()
            {
                // Nobody reads it any more.
                streams.remove(&word);
            }
            if flags & FIN != 0 {
                streams.remove(&word);
            }
            continue;
        }
        let mut body = Bytes::from(body);
        let kind = word & 0xffff;
        let id = |body: &mut Bytes| {
            if body.len() >= 4 { Ok(body.get_u32() & 0x7fff_ffff) } else { Err(invalid("a frame is too short")) }
        };
        match kind {
            // SYN_STREAM
            1 => {
                let stream = id(&mut body)?;
                if body.len() < 6 {
                    return Err(invalid("SYN_STREAM is too short"));
                }
                body.advance(6);
                let found = headers.read(&body)?;
                let (send, data) = mpsc::channel(WAITING);
                if flags & FIN == 0 {
                    streams.insert(stream, send);
                }
                let gone = out.send(Out::Reply { id: stream }).await.is_err();
                if gone || opened.send(Stream { id: stream, headers: found, data }).await.is_err() {
                    return Ok(());
                }
            }
            // RST_STREAM
            3 => {
                streams.remove(&id(&mut body)?);
            }
            // PING
            6 => {
                let ping = id(&mut body)?;
                if out.send(Out::Pong { id: ping }).await.is_err() {
                    return Ok(());
                }
            }
            // GOAWAY
            7 => return Ok(()),
            // HEADERS: the compression's state must follow, the content does not matter.
            8 => {
                id(&mut body)?;
                headers.read(&body)?;
            }
            _ => {}
        }
    }
}

/// Writes frames until [`Out::Close`] or until all senders are gone.
pub async fn write<W: AsyncWrite + Unpin>(mut to: W, mut out: mpsc::Receiver<Out>) -> io::Result<()> {
    let mut headers = HeaderWriter::new();
    while let Some(message) = out.recv().await {
        let mut frame = BytesMut::new();
        match message {
            Out::Data { id, bytes, fin } => {
                frame.put_u32(id);
                put_length(&mut frame, if fin { FIN } else { 0 }, bytes.len());
                frame.put(bytes);
            }
            Out::Reply { id } => {
                let block = headers.write(&[])?;
                control(&mut frame, 2, 4 + block.len());
                frame.put_u32(id);
                frame.put_slice(&block);
            }
            Out::Pong { id } => {
                control(&mut frame, 6, 4);
                frame.put_u32(id);
            }
            Out::Close => break,
        }
        to.write_all(&frame).await?;
        // Nothing more at the moment: what waits in a buffer is for the client.
        if out.is_empty() {
            to.flush().await?;
        }
    }
    to.flush().await?;
    to.shutdown().await
}

fn control(frame: &mut BytesMut, kind: u16, length: usize) {
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    put_length(frame, 0, length);
}

fn put_length(frame: &mut BytesMut, flags: u8, length: usize) {
    frame.put_u32(u32::from(flags) << 24 | u32::try_from(length).unwrap_or(0) & 0x00ff_ffff);
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Inflates header blocks. The dictionary goes in as a stored block before the client's first byte, which a raw inflater
/// takes without knowing of dictionaries.
struct HeaderReader {
    inflate: Decompress,
    begun: bool,
}

impl HeaderReader {
    fn new() -> Self {
        Self { inflate: Decompress::new(false), begun: false }
    }

    fn read(&mut self, mut block: &[u8]) -> io::Result<HashMap<String, String>> {
        if !self.begun && !block.is_empty() {
            // zlib's header: two bytes, and the dictionary's checksum when the flag for it is set.
            let skip = if block.get(1).is_some_and(|flags| flags & 0x20 != 0) { 6 } else { 2 };
            let dictionary = dictionary();
            let length = u16::try_from(dictionary.len()).map_err(|_| invalid("dictionary"))?;
            let mut stored = vec![0];
            stored.extend(length.to_le_bytes());
            stored.extend((!length).to_le_bytes());
            stored.extend(dictionary);
            self.inflate(&stored)?;
            block = block.get(skip..).ok_or_else(|| invalid("a header block is too short"))?;
            self.begun = true;
        }
        parse_headers(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(4096);
        loop {
            let before = (self.inflate.total_in(), self.inflate.total_out());
            self.inflate
                .decompress_vec(input, &mut out, FlushDecompress::Sync)
                .map_err(|_| invalid("a header block is broken"))?;
            let used = usize::try_from(self.inflate.total_in() - before.0).unwrap_or(0);
            input = &input[used..];
            let progressed = used > 0 || self.inflate.total_out() > before.1;
            if out.len() > MAX_FRAME {
                return Err(invalid("a header block is too long"));
            }
            if out.len() == out.capacity() {
                out.reserve(4096);
            } else if input.is_empty() || !progressed {
                return Ok(out);
            }
        }
    }
}

fn parse_headers(mut block: &[u8]) -> io::Result<HashMap<String, String>> {
    fn text<'a>(block: &mut &'a [u8]) -> io::Result<&'a [u8]> {
        if block.len() < 4 {
            return Err(invalid("a header block is cut"));
        }
        let length = block.get_u32() as usize;
        if block.len() < length {
            return Err(invalid("a header block is cut"));
        }
        let (text, rest) = block.split_at(length);
        *block = rest;
        Ok(text)
    }
    if block.len() < 4 {
        return Err(invalid("a header block is cut"));
    }
    let count = block.get_u32();
    let mut headers = HashMap::new();
    for _ in 0..count {
        let name = String::from_utf8_lossy(text(&mut block)?).to_lowercase();
        let value = String::from_utf8_lossy(text(&mut block)?).into_owned();
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Deflates header blocks, without the dictionary: a reader takes that too.
struct HeaderWriter {
    deflate: Compress,
}

impl HeaderWriter {
    fn new() -> Self {
        Self { deflate: Compress::new(Compression::fast(), true) }
    }

    fn write(&mut self, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let mut plain = BytesMut::new();
        plain.put_u32(u32::try_from(headers.len()).unwrap_or(0));
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(u32::try_from(text.len()).unwrap_or(0));
                plain.put_slice(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        self.deflate.compress_vec(&plain, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(out)
    }
}

/// A client for tests.
#[cfg(test)]
pub mod client {
    use super::*;

    /// Builds the client's frames.
    pub struct Frames {
        headers: HeaderWriter,
    }

    impl Frames {
        pub fn new() -> Self {
            Self { headers: HeaderWriter::new() }
        }

        pub fn open(&mut self, id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
            let block = self.headers.write(headers).expect("written");
            let mut frame = BytesMut::new();
            control(&mut frame, 1, 10 + block.len());
            frame.put_u32(id);
            frame.put_u32(0);
            frame.put_u16(0);
            frame.put_slice(&block);
            frame.to_vec()
        }

        pub fn data(&self, id: u32, text: &str, fin: bool) -> Vec<u8> {
            let mut frame = BytesMut::new();
            frame.put_u32(id);
            put_length(&mut frame, u8::from(fin), text.len());
            frame.put_slice(text.as_bytes());
            frame.to_vec()
        }
    }

    /// Reads data frames of `id` until it is finished.
    pub async fn read_stream<R: AsyncRead + Unpin>(from: &mut R, id: u32) -> String {
        let mut text = Vec::new();
        loop {
            let mut head = [0; 8];
            from.read_exact(&mut head).await.expect("a frame");
            let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let mut body = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
            from.read_exact(&mut body).await.expect("a body");
            if word == id {
                text.extend(body);
                if head[4] & FIN != 0 {
                    return String::from_utf8(text).expect("text");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        // Adler-32, which every SPDY/3 connection begins with.
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((b << 16 | a, dictionary().len()), (0xe3c6_a7c2, 1423));
    }

    #[tokio::test]
    async fn streams_are_opened_and_carry_data() {
        let (client, server) = tokio::io::duplex(4096);
        let (from, to) = tokio::io::split(server);
        let (opened, mut streams) = mpsc::channel(4);
        let (out, outgoing) = mpsc::channel(4);
        tokio::spawn(read(from, opened, out.clone()));
        tokio::spawn(write(to, outgoing));
        let (mut answers, mut client) = tokio::io::split(client);
        let mut frames = client::Frames::new();
        for (id, name) in [(1, "error"), (3, "data")] {
            let frame = frames.open(id, &[("streamType", name), ("port", "80")]);
            client.write_all(&frame).await.expect("sent");
            let stream = streams.recv().await.expect("opened");
            assert_eq!((stream.id, stream.headers["streamtype"].as_str()), (id, name));
            if id == 3 {
                client.write_all(&frames.data(3, "ping", true)).await.expect("sent");
                let mut data = stream.data;
                assert_eq!(data.recv().await.as_deref(), Some(b"ping".as_slice()));
                assert_eq!(data.recv().await, None);
            }
        }
        let bytes = Bytes::from_static(b"pong");
        out.send(Out::Data { id: 3, bytes, fin: true }).await.unwrap_or_else(|_| panic!("closed"));
        assert_eq!(client::read_stream(&mut answers, 3).await, "pong");
    }

    #[tokio::test]
    async fn broken_frames_end_the_connection() {
        for bytes in [
            &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0][..],
            &[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 255, 255],
            &[0, 0, 0, 1, 0, 255, 255, 255],
        ] {
            let (opened, _streams) = mpsc::channel(4);
            let (out, _outgoing) = mpsc::channel(4);
            assert!(read(bytes, opened, out).await.is_err(), "{bytes:?}");
        }
    }
}
