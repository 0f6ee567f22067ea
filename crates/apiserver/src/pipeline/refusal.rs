//! What is answered when something goes wrong, in the form that the client asks for.

use corten_api::status::{Details, Status};
use http::request::Parts;
use http::{HeaderValue, Uri, header};

use super::limit::is_write;
use crate::audit::Trail;
use crate::negotiate;
use crate::request::{Query, RequestInfo};
use crate::response::{self, Response};

/// In which form the client wants to hear of failures.
pub(super) struct Answers {
    accept: String,
    pretty: bool,
}

impl Answers {
    pub(super) fn of(parts: &Parts, query: &Query) -> Self {
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        Self { accept: text(header::ACCEPT).to_owned(), pretty: negotiate::wants_pretty(query, text(header::USER_AGENT)) }
    }

    pub(super) fn refuse(&self, info: &RequestInfo, status: &Status, trail: Option<&Trail>) -> Response {
        if let Some(trail) = trail {
            trail.response_status(&status.to_document());
        }
        if status.code >= 500 {
            let because = status.because.as_deref().map(chain).unwrap_or_default();
            tracing::warn!(verb = info.verb, path = info.path, code = status.code, because, "{}", status.message);
        }
        negotiate::status(status, &self.accept, self.pretty)
    }

    pub(super) fn panicked(&self, info: &RequestInfo) -> Response {
        let status = Status::internal("This request caused apiserver to panic. Look in the logs for details.");
        self.refuse(info, &status, None)
    }
}

/// Why a request does not get to its handler.
pub(super) enum Refusal {
    Status(Box<Status>),
    /// The user may not do this.
    Denied(Box<Status>),
    /// What is answered already.
    Response(Box<Response>),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Refusal {
    pub(super) fn denied(status: Status) -> Self {
        Self::Denied(Box::new(status))
    }

    /// Before anything can be negotiated.
    pub(super) fn internal_error(uri: &Uri, why: &str) -> Self {
        let uri = corten_api::field::quoted(&uri.to_string());
        let text = sanitized(&format!("Internal Server Error: {uri}: {why}\n"));
        Self::Response(Box::new(response::plain(500, text)))
    }

    pub(super) fn answer(self, answers: &Answers, info: &RequestInfo, trail: Option<&Trail>) -> Response {
        match self {
            Self::Status(status) => answers.refuse(info, &status, trail),
            Self::Denied(status) => {
                let mut response = answers.refuse(info, &status, trail);
                response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                response
            }
            Self::Response(response) => *response,
        }
    }
}

/// Without what a browser could take for markup.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn chain(err: &(dyn std::error::Error + Send + Sync)) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text.push_str(": ");
        text.push_str(&err.to_string());
        source = err.source();
    }
    text
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

pub(super) fn timed_out(info: &RequestInfo) -> Refusal {
    if is_write(info) {
        let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        let mut status = Status::failure(504, "Timeout", why);
        status.details = Some(Details::default());
        return status.into();
    }
    // Whoever gives up on a read does not ask in which form the client wants to hear of it, nor says what kind of document it is.
    let text = "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete within the allotted timeout\",\
                \"reason\":\"Timeout\",\"details\":{},\"code\":504}\n";
    Refusal::Response(Box::new(response::text(504, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_takes_too_long_is_given_up_in_text_and_a_write_in_a_status() {
        let of = |verb: &str| timed_out(&RequestInfo { is_resource: true, verb: verb.into(), ..RequestInfo::default() });
        let Refusal::Response(read) = of("list") else { panic!("not in the client's form") };
        assert_eq!(
            (read.status().as_u16(), &read.headers()["content-type"]),
            (504, &HeaderValue::from_static("text/plain; charset=utf-8"))
        );
        let Refusal::Status(write) = of("update") else { panic!("in the client's form") };
        assert!(write.message.ends_with("context deadline exceeded"));
    }
}
