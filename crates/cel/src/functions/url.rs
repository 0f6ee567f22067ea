//! URLs, split as Go's `net/url` does for a request: absolute, or a path that starts with a slash.

use std::rc::Rc;

use super::Call;
use crate::value::{EvalError, Map, Value};

/// A URL in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().any(|c| c.is_ascii_control() || c == ' ') || !escapes_fit(text) {
            return None;
        }
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            let path = text.starts_with('/').then(|| text.to_owned())?;
            return Some(Self { scheme: String::new(), host: String::new(), path, query: query.to_owned() });
        };
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None if rest.starts_with('/') => ("", rest),
            None => return None,
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let port = after_host(host)?;
        if !port.is_empty() && !port[1..].bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self { scheme: scheme.to_ascii_lowercase(), host: host.to_owned(), path: path.to_owned(), query: query.to_owned() })
    }

    fn port(&self) -> &str {
        after_host(&self.host).map_or("", |port| port.trim_start_matches(':'))
    }

    fn hostname(&self) -> &str {
        let port = after_host(&self.host).unwrap_or_default();
        self.host[..self.host.len() - port.len()].trim_start_matches('[').trim_end_matches(']')
    }

    fn query<'a>(&self) -> Value<'a> {
        let mut entries: Vec<(String, Vec<Value<'a>>)> = Vec::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (unescape(key), unescape(value)) else { continue };
            match entries.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => values.push(Value::text(value)),
                None => entries.push((key, vec![Value::text(value)])),
            }
        }
        let entries = entries.into_iter().map(|(key, values)| (Value::text(key), Value::list(values)));
        Value::Map(Map::Made(Rc::new(entries.collect())))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn escapes_fit(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    (0..bytes.len()).all(|at| bytes[at] != b'%' || hex(at + 1) && hex(at + 2))
}

/// The port with its colon, if there is one; nothing when the host is malformed.
fn after_host(host: &str) -> Option<&str> {
    match host.strip_prefix('[') {
        Some(rest) => {
            let (_, port) = rest.split_once(']')?;
            (port.is_empty() || port.starts_with(':')).then_some(port)
        }
        None => {
            let at = host.find(':').unwrap_or(host.len());
            (!host[at..].get(1..).unwrap_or_default().contains(':')).then(|| &host[at..])
        }
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    Some(Ok(match (function, args) {
        ("url", [Value::String(text)]) => match Url::parse(text) {
            Some(url) => Value::Url(Rc::new(url)),
            None => return Some(Err(EvalError::failed(format!("URL parse error during conversion from string: {text}")))),
        },
        ("isURL", [Value::String(text)]) => Value::Bool(Url::parse(text).is_some()),
        ("getScheme", [Value::Url(url)]) => Value::text(url.scheme.as_str()),
        ("getHost", [Value::Url(url)]) => Value::text(url.host.as_str()),
        ("getHostname", [Value::Url(url)]) => Value::text(url.hostname()),
        ("getPort", [Value::Url(url)]) => Value::text(url.port()),
        ("getEscapedPath", [Value::Url(url)]) => Value::text(url.path.as_str()),
        ("getQuery", [Value::Url(url)]) => url.query(),
        _ => return None,
    }))
}
