//! Answers with a document of a known version: conditional requests and ranges (RFC 9110, sections 13 and 14).
//!
//! What a request wants is decided before the document is made: most of those who ask have it already.

use std::ops::Range;
use std::time::SystemTime;

use http::{HeaderValue, Method, StatusCode, header};
use httpdate::HttpDate;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::registry;
use crate::response::{self, Response};

/// A document that is made when it is needed.
pub(crate) struct Content<'a> {
    /// What tells this content from others, without quotes. A document without it is of a type that is guessed from it.
    pub(crate) tag: Option<&'a str>,
    /// When it was as it is for the first time.
    pub(crate) made: SystemTime,
    /// The `Content-Type`.
    pub(crate) kind: &'static str,
    /// Whether it may be compressed.
    pub(crate) compressible: bool,
}

/// What is sent of a document.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Whole,
    /// As `Range` says.
    Part(&'a str),
    /// The client has it.
    Nothing,
    /// Not what the client takes it for.
    Refused,
}

impl Content<'_> {
    /// The answer to a request for the document, which `make` makes.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn answer<F>(&self, call: &Call, make: impl FnOnce() -> F) -> Result<Response, Status>
    where
        F: Future<Output = Result<Vec<u8>, Status>>,
    {
        let mut response = match self.wanted(call) {
            Wanted::Nothing => response::empty(StatusCode::NOT_MODIFIED),
            Wanted::Refused => response::empty(StatusCode::PRECONDITION_FAILED),
            Wanted::Part(range) => {
                let body = make().await?;
                match part(range, body.len()) {
                    Ok(None) => self.whole(call, body),
                    Ok(Some(part)) => partial(&part, &body),
                    Err(unsatisfiable) => return Ok(unsatisfiable.answer(body.len())),
                }
            }
            Wanted::Whole => self.whole(call, make().await?),
        };
        let code = response.status();
        let headers = response.headers_mut();
        if let Some(tag) = self.tag {
            headers.extend(HeaderValue::from_str(&format!("\"{tag}\"")).ok().map(|tag| (header::ETAG, tag)));
        }
        // Who knows the tag needs no date to know what it has.
        if code != StatusCode::NOT_MODIFIED || self.tag.is_none() {
            let date = httpdate::fmt_http_date(self.made);
            headers.extend(HeaderValue::from_str(&date).ok().map(|date| (header::LAST_MODIFIED, date)));
        }
        let has_kind = code.is_success() || code == StatusCode::PRECONDITION_FAILED && self.tag.is_some();
        if has_kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        }
        if code.is_success() {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        Ok(response)
    }

    fn whole(&self, call: &Call, body: Vec<u8>) -> Response {
        // A body that nobody reads is not worth it.
        if self.compressible && call.method != Method::HEAD {
            return registry::maybe_compressed(200, self.kind, body.into(), call);
        }
        response::bytes(200, self.kind, body)
    }

    fn wanted<'c>(&self, call: &'c Call) -> Wanted<'c> {
        let is_read = call.method == Method::GET || call.method == Method::HEAD;
        self.decide(is_read, |name| call.header(name))
    }

    /// By the headers of a request, of which `is_read` says whether it is one that changes nothing.
    fn decide<'c>(&self, is_read: bool, header: impl Fn(header::HeaderName) -> &'c str) -> Wanted<'c> {
        let known = header(header::IF_MATCH);
        if !known.is_empty() {
            if !self.is_among(known, true) {
                return Wanted::Refused;
            }
        } else if self.is_since(header(header::IF_UNMODIFIED_SINCE)) == Some(false) {
            return Wanted::Refused;
        }
        let known = header(header::IF_NONE_MATCH);
        if !known.is_empty() {
            if self.is_among(known, false) {
                return if is_read { Wanted::Nothing } else { Wanted::Refused };
            }
        } else if is_read && self.is_since(header(header::IF_MODIFIED_SINCE)) == Some(true) {
            return Wanted::Nothing;
        }
        let (range, base) = (header(header::RANGE), header(header::IF_RANGE));
        let is_of_this = base.is_empty() || !is_read || self.is_base(base);
        if range.is_empty() || !is_of_this { Wanted::Whole } else { Wanted::Part(range) }
    }

    /// Whether the document is one of those that a header lists. The strong comparison does not take weak tags for equal.
    fn is_among(&self, list: &str, strong: bool) -> bool {
        let mut rest = list.trim_start_matches([' ', '\t', ',']);
        while !rest.is_empty() {
            if rest.starts_with('*') {
                return true;
            }
            let Some((is_weak, tag, behind)) = first_tag(rest) else { return false };
            if self.tag == Some(tag) && !(strong && is_weak) {
                return true;
            }
            rest = behind.trim_start_matches([' ', '\t', ',']);
        }
        false
    }

    /// Whether the document is not younger than a date says; `None` of what is no date.
    fn is_since(&self, date: &str) -> Option<bool> {
        let date = httpdate::parse_http_date(date).ok()?;
        Some(HttpDate::from(self.made) <= HttpDate::from(date))
    }

    /// Whether a part is wanted of this document, by its strong tag or its very date.
    fn is_base(&self, base: &str) -> bool {
        if let Some((is_weak, tag, _)) = first_tag(base.trim()) {
            return !is_weak && self.tag == Some(tag);
        }
        httpdate::parse_http_date(base).is_ok_and(|date| HttpDate::from(self.made) == HttpDate::from(date))
    }
}

/// Whether the first tag of a list is weak, the tag, and what follows.
fn first_tag(list: &str) -> Option<(bool, &str, &str)> {
    let (is_weak, rest) = list.strip_prefix("W/").map_or((false, list), |rest| (true, rest));
    let (tag, behind) = rest.strip_prefix('"')?.split_once('"')?;
    let is_allowed = |byte: u8| byte == 0x21 || byte >= 0x23 && byte != 0x7f;
    tag.bytes().all(is_allowed).then_some((is_weak, tag, behind))
}

fn partial(part: &Range<usize>, body: &[u8]) -> Response {
    let mut response = response::bytes(206, "", body[part.clone()].to_vec());
    let place = format!("bytes {}-{}/{}", part.start, part.end - 1, body.len());
    response.headers_mut().extend(HeaderValue::from_str(&place).ok().map(|place| (header::CONTENT_RANGE, place)));
    response
}

/// Why no part can be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unsatisfiable {
    #[error("invalid range")]
    Malformed,
    #[error("invalid range: failed to overlap")]
    Behind,
}

impl Unsatisfiable {
    fn answer(&self, size: usize) -> Response {
        let mut response = response::text(416, format!("{self}\n"));
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if *self == Self::Behind {
            let place = format!("bytes */{size}");
            headers.extend(HeaderValue::from_str(&place).ok().map(|place| (header::CONTENT_RANGE, place)));
        }
        response
    }
}

/// The part of a document of `size` bytes that `Range` asks for. Of many parts, the whole is sent instead, which a server may do.
fn part(range: &str, size: usize) -> Result<Option<Range<usize>>, Unsatisfiable> {
    use Unsatisfiable::{Behind, Malformed};
    let list = range.strip_prefix("bytes=").ok_or(Malformed)?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|_| is_number).and_then(|number| usize::try_from(number).ok()).ok_or(Malformed)
    };
    let (mut parts, mut is_behind) = (Vec::new(), false);
    for spec in list.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        let (first, last) = spec.split_once('-').ok_or(Malformed)?;
        match (first.trim(), last.trim()) {
            ("", last) => parts.push(size - number(last)?.min(size)..size),
            (first, last) => {
                let first = number(first)?;
                if first >= size {
                    is_behind = true;
                    continue;
                }
                let last = if last.is_empty() { size - 1 } else { number(last)? };
                if last < first {
                    return Err(Malformed);
                }
                parts.push(first..last.min(size - 1) + 1);
            }
        }
    }
    match parts.as_slice() {
        [] if is_behind && size > 0 => Err(Behind),
        [only] if !only.is_empty() => Ok(Some(only.clone())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn conditions_are_judged_in_their_order() {
        let now = "Thu, 01 Jan 1970 00:01:40 GMT";
        let past = "Thu, 01 Jan 1970 00:01:39 GMT";
        check("GET",  &[],                                                           Wanted::Whole);
        check("GET",  &[("if-none-match", "\"a\"")],                                 Wanted::Nothing);
        check("HEAD", &[("if-none-match", "\"x\", W/\"a\"")],                        Wanted::Nothing);
        check("GET",  &[("if-none-match", "*")],                                     Wanted::Nothing);
        check("POST", &[("if-none-match", "\"a\"")],                                 Wanted::Refused);
        check("GET",  &[("if-none-match", "a, \"a\"")],                              Wanted::Whole); // not quoted: nothing after it is read
        check("GET",  &[("if-none-match", "\"x\""), ("if-modified-since", now)],     Wanted::Whole); // the tag goes before the date
        check("GET",  &[("if-modified-since", now)],                                 Wanted::Nothing);
        check("GET",  &[("if-modified-since", past)],                                Wanted::Whole);
        check("POST", &[("if-modified-since", now)],                                 Wanted::Whole);
        check("GET",  &[("if-match", "\"x\"")],                                      Wanted::Refused);
        check("GET",  &[("if-match", "W/\"a\"")],                                    Wanted::Refused); // weak tags are never strongly equal
        check("GET",  &[("if-match", "\"x\",\"a\""), ("if-unmodified-since", past)], Wanted::Whole);
        check("POST", &[("if-unmodified-since", past)],                              Wanted::Refused);
        check("GET",  &[("if-unmodified-since", "yesterday")],                       Wanted::Whole);
        check("GET",  &[("range", "bytes=0-1")],                                     Wanted::Part("bytes=0-1"));
        check("GET",  &[("range", "bytes=0-1"), ("if-range", "\"a\"")],              Wanted::Part("bytes=0-1"));
        check("GET",  &[("range", "bytes=0-1"), ("if-range", now)],                  Wanted::Part("bytes=0-1"));
        check("GET",  &[("range", "bytes=0-1"), ("if-range", "\"b\"")],              Wanted::Whole);
        check("GET",  &[("range", "bytes=0-1"), ("if-range", past)],                 Wanted::Whole);

        #[track_caller]
        fn check(method: &str, headers: &[(&'static str, &'static str)], expected: Wanted<'_>) {
            let made = SystemTime::UNIX_EPOCH + Duration::from_millis(100_900); // dates know no parts of a second
            let content = Content { tag: Some("a"), made, kind: "", compressible: false };
            let header = |name: header::HeaderName| headers.iter().find(|(known, _)| name == *known).map_or("", |(_, value)| value);
            assert_eq!(content.decide(matches!(method, "GET" | "HEAD"), header), expected, "{method} {headers:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_range_is_cut_to_the_document() {
        check("bytes=0-9",       Ok(Some(0..10)));
        check("bytes=90-",       Ok(Some(90..100)));
        check("bytes=90-1000",   Ok(Some(90..100)));
        check("bytes=-10",       Ok(Some(90..100)));
        check("bytes=-1000",     Ok(Some(0..100)));
        check("bytes= 1 - 2 ,",  Ok(Some(1..3)));
        check("bytes=0-1,5-6",   Ok(None));
        check("bytes=100-",      Err(Unsatisfiable::Behind));
        check("bytes=5-4",       Err(Unsatisfiable::Malformed));
        check("bytes=+1-4",      Err(Unsatisfiable::Malformed));
        check("bytes=-",         Err(Unsatisfiable::Malformed));
        check("lines=0-9",       Err(Unsatisfiable::Malformed));

        #[track_caller]
        fn check(range: &str, expected: Result<Option<Range<usize>>, Unsatisfiable>) {
            assert_eq!(part(range, 100), expected, "{range}");
        }
    }
}
