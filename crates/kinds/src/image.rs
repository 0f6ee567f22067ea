//! References to images as the reference grammar of the distribution project reads them: `[domain/]path[:tag][@digest]`.

/// The longest path of a repository.
const MAX_PATH: usize = 255;

/// The longest tag.
const MAX_TAG: usize = 128;

/// The tag of a reference: `latest` when neither tag nor digest is written, none when there is only a digest, or when the text
/// is no reference.
pub(crate) fn tag(reference: &str) -> Option<&str> {
    if reference.len() == 64 && reference.bytes().all(is_lower_hex) {
        // It would be taken for an image's id.
        return None;
    }
    let (domain, rest, official) = split_domain(reference);
    let (name, digest) = match rest.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match name.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (name, None),
    };
    let length = path.len() + if official { "library/".len() } else { 0 };
    let fits = domain.is_none_or(is_domain)
        && path.split('/').all(is_component)
        && length <= MAX_PATH
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    match (tag, digest) {
        _ if !fits => None,
        (None, None) => Some("latest"),
        (tag, _) => tag,
    }
}

/// The domain, what follows it, and whether that is short for a path below `library/`. A first part is a domain only when it
/// looks like one: with a dot, a port or a capital letter, or `localhost`.
fn split_domain(reference: &str) -> (Option<&str>, &str, bool) {
    match reference.split_once('/') {
        None => (None, reference, true),
        Some((first, rest)) => {
            let domain = first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first;
            let hub = matches!(first, "docker.io" | "index.docker.io");
            if domain { (Some(first), rest, hub && !rest.contains('/')) } else { (None, reference, false) }
        }
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((inner, after)) => {
            if inner.is_empty() || !inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            (None, after.strip_prefix(':').or((!after.is_empty()).then_some("")))
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Runs of lower case letters and digits with a separator between each two: a dot, one or two underscores, or any dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return false;
    }
    component
        .split(alphanumeric)
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    (1..=MAX_TAG).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, sum)) = digest.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    sum.len() == length && sum.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_by_the_grammar() {
        let sum = "a".repeat(64);
        let digest = format!("i@sha256:{sum}");
        let both = format!("i:latest@sha256:{sum}");
        let short = "i@sha256:aa";
        let long = "a".repeat(248);
        let official = "a".repeat(247);
        #[rustfmt::skip]
        let table: &[(&str, Option<&str>)] = &[
            ("i", Some("latest")),
            ("i:1", Some("1")),
            ("a/b/c:x", Some("x")),
            ("localhost:5000/i", Some("latest")),
            ("example.com:80/a/i:v1.2_3-4", Some("v1.2_3-4")),
            ("[::1]:5000/i:a", Some("a")),
            ("Example.com/i", Some("latest")),
            ("A/i", Some("latest")),            // a capital letter makes it a domain
            ("A", None),                        // but not without a path
            ("a--b/c__d.e", Some("latest")),
            ("a___b", None),
            ("a..b", None),
            ("-a", None),
            ("a/", None),
            ("", None),
            ("i:", None),
            ("i:-a", None),
            ("2001:db8::/32", None),            // the part before the slash is no host and port
            (&sum, None),                       // an id, not a name
            (&digest, None),
            (&both, Some("latest")),
            (short, None),
            (&long, None),                      // too long behind the implied `library/`
            (&official, Some("latest")),
        ];
        for (reference, expected) in table {
            assert_eq!(tag(reference), *expected, "{reference}");
        }
    }
}
