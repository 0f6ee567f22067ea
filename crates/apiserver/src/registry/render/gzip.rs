//! Compression, for clients that can take it.

use bytes::Bytes;
use http::{HeaderValue, header};

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::response::{self, Body, Response};

/// Answers longer than this are compressed for clients that can take it (upstream's limit).
const COMPRESS_FROM: usize = 128 << 10;

/// A response of these bytes, compressed when that is worth it and the client can take it.
pub(crate) fn maybe_compressed(code: u16, content_type: &str, body: Bytes, call: &Call) -> Response {
    if body.len() <= COMPRESS_FROM || !accepts_gzip(call) {
        return response::bytes(code, content_type, body);
    }
    let pieces = Gzip::new(std::iter::once(Ok(body)));
    let mut response = response::bytes(code, content_type, Body::stream(futures::stream::iter(pieces)));
    mark_gzip(&mut response);
    response
}

pub(super) fn accepts_gzip(call: &Call) -> bool {
    call.header(header::ACCEPT_ENCODING).split(',').any(|coding| coding.trim() == "gzip")
}

pub(super) fn mark_gzip(response: &mut Response) {
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Compresses pieces as they come.
pub(super) struct Gzip<I> {
    pieces: I,
    encoder: Option<flate2::write::GzEncoder<Vec<u8>>>,
}

impl<I> Gzip<I> {
    pub(super) fn new(pieces: I) -> Self {
        // The fastest level: upstream found the others not worth their time.
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        Self { pieces, encoder: Some(encoder) }
    }
}

impl<I: Iterator<Item = Result<Bytes, Status>>> Iterator for Gzip<I> {
    type Item = Result<Bytes, response::BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        use std::io::Write;
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.pieces.next() {
                Some(Ok(piece)) => {
                    if let Err(err) = encoder.write_all(&piece) {
                        return Some(Err(err.into()));
                    }
                    let out = std::mem::take(encoder.get_mut());
                    if !out.is_empty() {
                        return Some(Ok(out.into()));
                    }
                }
                Some(Err(status)) => return Some(Err(status.into())),
                None => {
                    let encoder = self.encoder.take()?;
                    return Some(encoder.finish().map(Bytes::from).map_err(Into::into));
                }
            }
        }
    }
}
