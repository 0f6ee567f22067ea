//! What goes back: bodies that are bytes, slices of the cache, or streams, and the one place where a [`Status`] becomes
//! an HTTP response.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use prometheus::Histogram;
use serde_json::Value;

use corten_api::status::Status;

use crate::audit::Ending;
use crate::flowcontrol::Watching;
use crate::metrics::Held;

/// What lasts as long as a connection that was taken over: its answer is sent at once, and it goes on.
#[derive(Clone, Default)]
pub(crate) struct Tunnel(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

impl Tunnel {
    /// Keeps something until the connection ends.
    pub(crate) fn keep(&self, thing: impl Any + Send) {
        self.0.lock().push(Box::new(thing));
    }
}

/// An error of a body's sender.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The body of a request, whichever transport it came by.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A response of this server.
pub type Response = http::Response<Body>;

/// The body of a response.
pub struct Body(Kind, Option<Box<Tail>>);

/// What is counted while a body is sent.
#[derive(Default)]
struct Tail {
    /// The gauge of long-running requests.
    held: Option<Held>,
    /// Where the size is counted, and the bytes so far.
    sizes: Option<Histogram>,
    bytes: u64,
    /// The end of the request's audit trail.
    ending: Option<Ending>,
    /// The watch that writes are counted to concern.
    watching: Option<Watching>,
    /// Told when the body breaks off.
    aborted: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(sizes) = &self.sizes {
            sizes.observe(self.bytes as f64);
        }
    }
}

enum Kind {
    Whole(Option<Bytes>),
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>),
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Whole(None), None)
    }

    /// Chunks as they come; the client's pace is the stream's pace.
    pub fn stream(chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self(Kind::Stream(Box::pin(chunks)), None)
    }

    /// Another body, passed on.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        use http_body_util::BodyExt;
        Self::stream(body.into_data_stream().map(|chunk| chunk.map_err(Into::into)))
    }

    /// Holds a gauge and an audit trail until the body is sent or given up, and counts its size.
    pub(crate) fn counted(&mut self, held: Option<Held>, sizes: Option<Histogram>, ending: Option<Ending>) {
        if held.is_some() || sizes.is_some() || ending.is_some() {
            let tail = self.1.get_or_insert_default();
            (tail.held, tail.sizes, tail.ending) = (held, sizes, ending);
        }
    }

    /// Counts a watch until it ends.
    pub(crate) fn watched(&mut self, watching: Option<Watching>) {
        if watching.is_some() {
            self.1.get_or_insert_default().watching = watching;
        }
    }

    /// Calls `tell` when the body breaks off before its end; what is whole never does.
    pub(crate) fn on_abort(&mut self, tell: impl FnOnce() + Send + Sync + 'static) {
        if matches!(self.0, Kind::Stream(_)) {
            self.1.get_or_insert_default().aborted = Some(Box::new(tell));
        }
    }

    /// The bytes, when they are known already.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Whole(bytes) => bytes.as_ref(),
            Kind::Stream(_) => None,
        }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        let bytes = bytes.into();
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)), None)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Kind::Stream(stream) => stream.as_mut().poll_next(cx),
        };
        if let (Poll::Ready(Some(Ok(chunk))), Some(tail)) = (&polled, &mut self.1) {
            tail.bytes += chunk.len() as u64;
        }
        if matches!(polled, Poll::Ready(Some(Err(_))))
            && let Some(tell) = self.1.as_mut().and_then(|tail| tail.aborted.take())
        {
            tell();
        }
        polled.map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Kind::Whole(bytes) => write!(f, "Body({} bytes)", bytes.as_ref().map_or(0, Bytes::len)),
            Kind::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

/// A random UUID (version 4), as objects and requests are named by. From this thread's generator, which asks the system for a
/// seed now and then: asking it for every request shows in profiles.
#[must_use]
pub fn random_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// A response without a body.
#[must_use]
pub fn empty(code: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// A response of `bytes` with a content type.
#[must_use]
pub fn bytes(code: u16, content_type: &str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// A response of a JSON document.
#[must_use]
pub fn json(code: u16, document: &Value) -> Response {
    let mut body = document.to_string();
    body.push('\n');
    bytes(code, "application/json", body)
}

/// A response of a JSON document for people to read: what upstream writes where it negotiates nothing.
#[must_use]
pub fn indented(code: u16, document: &Value) -> Response {
    bytes(code, "application/json", serde_json::to_string_pretty(document).unwrap_or_default())
}

/// A response of plain text.
#[must_use]
pub fn text(code: u16, body: impl Into<String>) -> Response {
    bytes(code, "text/plain; charset=utf-8", body.into())
}

/// 404 for a path that nobody serves, in Go's words.
#[must_use]
pub fn no_such_page() -> Response {
    plain(404, "404 page not found\n")
}

/// 400 for a request that is none, as Go's server refuses it before anybody looks at it.
#[must_use]
pub fn malformed() -> Response {
    let mut response = text(400, "400 Bad Request");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Plain text that no browser may take for anything else.
#[must_use]
pub fn plain(code: u16, body: impl Into<String>) -> Response {
    let mut response = text(code, body);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A Status as JSON, with `Retry-After` when it asks for patience. Content negotiation may re-encode it.
#[must_use]
pub fn status(status: &Status) -> Response {
    let mut response = json(status.code, &status.to_document());
    if let Some(details) = &status.details
        && details.retry_after_seconds > 0
    {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(details.retry_after_seconds));
    }
    response
}
