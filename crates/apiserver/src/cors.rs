//! Cross-origin requests: web pages of the origins that are named may use the API through a browser, and others may not.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use regex::Regex;

/// Origins whose pages may ask.
#[derive(Debug)]
pub struct Cors {
    allowed: Vec<Regex>,
}

/// What browsers are told; the origin comes on top.
const TOLD: [(HeaderName, HeaderValue); 4] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE, PATCH")),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
        ),
    ),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date")),
    (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
];

impl Cors {
    /// Origins by regular expressions, which may match anywhere in the `Origin` header.
    ///
    /// # Errors
    /// What is wrong with the first bad one: it does not parse, or it does not say where the host begins and ends, and so would
    /// let in hosts whose names merely contain the one that is meant (CVE-2022-1996).
    pub fn new(patterns: &[String]) -> Result<Option<Self>, String> {
        let allowed: Result<Vec<Regex>, String> = patterns.iter().map(|pattern| compile(pattern)).collect();
        Ok(Some(Self { allowed: allowed? }).filter(|cors| !cors.allowed.is_empty()))
    }

    /// The origin of a request, if it is one that may ask.
    pub(crate) fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok().filter(|text| !text.is_empty())?;
        self.allowed.iter().any(|allowed| allowed.is_match(text)).then(|| origin.clone())
    }
}

/// Whether a browser only asks whether it may ask.
pub(crate) fn is_preflight(method: &Method) -> bool {
    *method == Method::OPTIONS
}

/// Tells the browser that pages of this origin may read the answer.
pub(crate) fn tell(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    for (name, value) in TOLD {
        headers.insert(name, value);
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.is_empty() {
        return Err("empty value in --cors-allowed-origins".into());
    }
    let invalid = |why: &str| format!("--cors-allowed-origins has an invalid regular expression: {why}");
    let compiled = Regex::new(pattern).map_err(|err| invalid(&err.to_string()))?;
    let has = |markers: [&str; 2]| markers.iter().any(|marker| pattern.contains(marker));
    if !has(["^", "//"]) || !has(["$", ":"]) {
        return Err(invalid("regular expression does not pin to start/end of host in the origin header"));
    }
    Ok(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn origins_are_matched_by_patterns_that_pin_the_host() {
        check("//example.com$",             "https://example.com",      true);
        check("//example.com$",             "https://example.com.evil", false);
        check("//example.com$",             "https://badexample.com",   false);
        check(r"^https://.*\.corp(:|$)",    "https://a.corp:8443",      true);
        check(r"^https://.*\.corp(:|$)",    "http://a.corp",            false);
        #[track_caller]
        fn check(pattern: &str, origin: &'static str, allowed: bool) {
            let cors = Cors::new(&[pattern.to_owned()]).unwrap().unwrap();
            let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))]);
            assert_eq!(cors.origin(&headers).is_some(), allowed, "{pattern} {origin}");
        }
        let refused = |pattern: &str| Cors::new(&[pattern.to_owned()]).unwrap_err();
        assert!(refused("example.com").contains("does not pin"));
        assert!(refused("//a(").contains("invalid regular expression"));
        assert!(Cors::new(&[]).unwrap().is_none());
    }
}
