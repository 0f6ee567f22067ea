//! How a webhook is called: at an address, or through a service.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write};
use crate::names;

pub(super) fn default_port(client: &mut Value) {
    if let Some(service) = client.child("service")
        && !service.has("port")
    {
        service.put("port", 443);
    }
}

/// How a webhook is called: at an address, or through a service.
pub(crate) fn client(faults: &mut Faults, path: &Path<'_>, client: &Value) {
    match (client.opt_text("url"), client.opt("service")) {
        (Some(text), None) => url(faults, &path.child("url"), text),
        (None, Some(service)) => service_reference(faults, &path.child("service"), service),
        _ => faults.required(path, "exactly one of url or service is required"),
    }
}

/// The address of a webhook: `https`, a host, and a path at most. Each fault shows the part that is wrong.
fn url(faults: &mut Faults, path: &Path<'_>, url: &str) {
    const FORM: &str = "desired format: https://host[/path]";
    if let Err(why) = parses(url) {
        let shown = corten_api::field::quoted(url);
        return faults.required(path, &format!("url must be a valid URL: parse {shown}: {why}; {FORM}"));
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !scheme.contains('/') => (scheme, rest),
        _ => ("", rest),
    };
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        faults.invalid_str(path, scheme, &format!("'https' is the only allowed URL scheme; {FORM}"));
    }
    if host.is_empty() {
        faults.invalid_str(path, host, &format!("host must be specified; {FORM}"));
    }
    if let Some(user) = user {
        faults.invalid_str(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        faults.invalid_str(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        faults.invalid_str(path, query, "query parameters are not permitted in the URL");
    }
}

/// The first `%` of a text without two hexadecimal digits behind it, with what is there of them.
fn bad_escape(text: &str) -> Option<&str> {
    text.match_indices('%').map(|(at, _)| &text[at..]).find_map(|rest| {
        let hex = rest.as_bytes().get(1..3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let end = rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end);
        (!hex).then(|| &rest[..end])
    })
}

/// Whether Go's `net/url` can make sense of a text at all.
fn parses(url: &str) -> Result<(), String> {
    if url.bytes().any(|b| b.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".into());
    }
    let url = url.split_once('#').map_or(url, |(rest, _)| rest);
    if url.starts_with(':') {
        return Err("missing protocol scheme".into());
    }
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", url));
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let escapes = |part: &str| match bad_escape(part) {
        Some(wrong) => Err(format!("invalid URL escape {}", corten_api::field::quoted(wrong))),
        None => Ok(()),
    };
    if !rest.starts_with('/') {
        let segment = rest.split('/').next().unwrap_or_default();
        if scheme.is_empty() && segment.contains(':') {
            return Err("first path segment in URL cannot contain colon".into());
        }
        // What follows a scheme without a slash is opaque.
        return if scheme.is_empty() { escapes(rest) } else { Ok(()) };
    }
    let Some((authority, path)) = rest.strip_prefix("//").map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len()))) else {
        return escapes(rest);
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(wrong) = host.chars().find(|c| " \"<>\\^`{|}".contains(*c)) {
        return Err(format!("invalid character {} in host name", corten_api::field::quoted(&wrong.to_string())));
    }
    let after = if host.starts_with('[') { host.rfind(']').map_or("", |end| &host[end + 1..]) } else { host };
    match after.rfind(':').map(|at| &after[at..]) {
        Some(port) if !port[1..].bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("invalid port {} after host", corten_api::field::quoted(port)))
        }
        _ => escapes(host).and_then(|()| escapes(path)),
    }
}

fn service_reference(faults: &mut Faults, path: &Path<'_>, service: &Value) {
    // Upstream takes one for the other, and so tells of the wrong one.
    for (key, told) in [("namespace", "name"), ("name", "namespace")] {
        if service.text(key).is_empty() {
            faults.required(&path.child(told), "");
        }
    }
    let port = service.int("port");
    if !(1..=65535).contains(&port) {
        faults.invalid_int(&path.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let at = path.child("path");
    let text = match service.text("path") {
        "" | "/" => return,
        "//" => return faults.invalid_str(&at, "//", "segment[0] may not be empty"),
        text => text,
    };
    if !text.starts_with('/') {
        faults.invalid_str(&at, text, "must start with a '/'");
    }
    // The first character counts as the slash, whatever it is.
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            faults.invalid_str(&at, text, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::dns_subdomain(segment) {
            faults.invalid_str(&at, text, &format!("segment[{i}]: {message}"));
        }
    }
}
