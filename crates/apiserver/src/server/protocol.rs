//! What HTTP/1 asks of a request before anybody looks at what it is about, refused with the words of Go's server; and the names
//! of codes where Go's differ from those of the library.

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::ext::ReasonPhrase;

use crate::response::{self, Body, Response};

/// The answer to a request that breaks the rules; the connection ends with it.
pub(super) fn refuse<B>(request: &Request<B>) -> Option<Response> {
    if request.version() > Version::HTTP_11 {
        return None;
    }
    let (code, why) = fault(request)?;
    let text = match why {
        "" => format!("{} {}", code.as_u16(), code.canonical_reason().unwrap_or_default()),
        why => format!("{} {}: {why}", code.as_u16(), code.canonical_reason().unwrap_or_default()),
    };
    let mut response = response::empty(code);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if code == StatusCode::BAD_REQUEST {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        let phrase = text.split_once(' ').map_or("", |(_, phrase)| phrase).to_owned();
        if let Ok(phrase) = ReasonPhrase::try_from(phrase) {
            response.extensions_mut().insert(phrase);
        }
        *response.body_mut() = Body::from(text);
    }
    Some(response)
}

/// What is wrong with a request: the code, and more if there is more to say.
fn fault<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    let bad = |why| Some((StatusCode::BAD_REQUEST, why));
    let is_connect = *request.method() == Method::CONNECT;
    if !is_connect && request.uri().path().is_empty() {
        return bad(""); // neither a path nor a whole URL
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 && !is_connect => return bad("missing required Host header"),
        (Some(_), Some(_)) => return bad(""),
        (Some(host), None) if !host.as_bytes().iter().all(|byte| may_be_in_host(*byte)) => return bad("malformed Host header"),
        _ => {}
    }
    expects_more(request.headers()).then_some((StatusCode::EXPECTATION_FAILED, ""))
}

/// Whether the client waits for something that never comes.
fn expects_more(headers: &HeaderMap) -> bool {
    let expected = headers.get(header::EXPECT).map(HeaderValue::as_bytes).unwrap_or_default();
    !expected.is_empty() && !expected.eq_ignore_ascii_case(b"100-continue")
}

/// Characters of hosts, ports and the zones of addresses (RFC 3986).
fn may_be_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(&byte)
}

/// Gives an answer the name of its code that clients know.
pub(super) fn name(response: &mut Response) {
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        response.extensions_mut().insert(ReasonPhrase::from_static(b"Request Entity Too Large"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_request_has_one_host_and_expects_nothing_special() {
        check(&[("host", "a")],                              None);
        check(&[("host", "")],                               None);
        check(&[("host", "[fe80::1%25eth0]:6443")],          None);
        check(&[("host", "a"), ("expect", "100-Continue")],  None);
        check(&[],                                           Some((400, "missing required Host header")));
        check(&[("host", "a"), ("host", "b")],               Some((400, "")));
        check(&[("host", "a b")],                            Some((400, "malformed Host header")));
        check(&[("host", "a"), ("expect", "tea")],           Some((417, "")));
        #[track_caller]
        fn check(headers: &[(&str, &str)], expected: Option<(u16, &str)>) {
            let mut request = Request::builder().uri("/version");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let found = fault(&request.body(()).unwrap());
            assert_eq!(found.map(|(code, why)| (code.as_u16(), why)), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_refusal_says_what_is_missing_and_ends_the_connection() {
        let response = refuse(&Request::builder().uri("/version").body(()).unwrap()).unwrap();
        let phrase = response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(phrase.as_bytes(), b"Bad Request: missing required Host header");
        assert_eq!(response.headers()["connection"], "close");
        let newer = Request::builder().version(Version::HTTP_2).uri("/version").body(()).unwrap();
        assert!(refuse(&newer).is_none(), "HTTP/2 has the host in the request itself");
    }
}
