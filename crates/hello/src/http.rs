//! As much of HTTP/1.1 as a test workload needs: one thread a connection, keep-alive, Content-Length bodies.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

/// Largest body taken, in bytes.
const MAX_BODY: usize = 16 << 20;

/// A request as read.
pub struct Request {
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query as written, without `?`.
    pub query: String,
    /// Header lines in order, names as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Address of the peer.
    pub client: String,
}

/// An answer to send.
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    pub fn ok(text: impl Into<String>) -> Self {
        Self::new(200, text)
    }

    pub fn new(status: u16, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Self { status, body: text.into_bytes() }
    }
}

impl Request {
    /// The value of `name` in the query, percent-decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameters(&self.query).remove(name)
    }
}

/// Answers the requests of one connection until the peer closes it.
pub fn converse(stream: TcpStream, answer: impl Fn(&Request) -> Response) {
    let client = stream.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Ok(Some(request)) = read(&mut input, &client) {
        let response = answer(&request);
        println!("{} {} {} {}", request.client, request.method, request.path, response.status);
        let close = header(&request.headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if write(&mut out, &request.method, &response).is_err() || close {
            return;
        }
    }
}

/// The value of a header, whatever the case of its name.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Query parameters, percent-decoded; the last of a name wins.
pub fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

fn read(input: &mut impl BufRead, client: &str) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: decode(path),
        query: query.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        client: client.to_owned(),
    };
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = header(&request.headers, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    request.body = vec![0; usize::min(length, MAX_BODY)];
    input.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn write(out: &mut impl Write, method: &str, response: &Response) -> io::Result<()> {
    let reason = match response.status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    };
    let length = response.body.len();
    let head = format!("HTTP/1.1 {} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n", response.status);
    let mut message = head.into_bytes();
    if method != "HEAD" {
        message.extend_from_slice(&response.body);
    }
    out.write_all(&message)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_read_with_query_headers_and_body() {
        let text = "POST /a%20b?x=1&y=%2F HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\n\r\nabc";
        let request = read(&mut text.as_bytes(), "peer").unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/a b"));
        assert_eq!(request.parameter("y").as_deref(), Some("/"));
        assert_eq!(header(&request.headers, "HOST"), Some("h"));
        assert_eq!(request.body, b"abc");
    }
}
