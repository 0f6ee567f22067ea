//! Image references, read as docker reads them: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;

/// Where an image is: registry, repository, and a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host with port, such as `docker.io` or `localhost:5000`.
    pub registry: String,
    /// Path, such as `library/busybox`.
    pub repository: String,
    /// Tag; `latest` when neither it nor a digest is given.
    pub tag: Option<String>,
    /// Digest of the manifest, such as `sha256:…`.
    pub digest: Option<String>,
}

/// Why a text is no reference, in the words users know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing that could be one.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hex digits could be an id as well.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Id(String),
    /// A digest with other than lower case hex digits.
    #[error("invalid checksum digest format")]
    Digest,
    /// A digest of a wrong length.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// A digest of an unknown algorithm.
    #[error("unsupported digest algorithm")]
    Algorithm,
    /// The repository has too many characters.
    #[error("repository name must not be more than 255 characters")]
    Long,
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_hex(text, 64) {
            return Err(ReferenceError::Id(text.to_owned()));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; before it, a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" || host.chars().any(char::is_uppercase) => {
                (host, rest.to_owned())
            }
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let official = registry == "docker.io" && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository };
        if repository.to_lowercase() != repository {
            return Err(ReferenceError::Uppercase(repository));
        }
        let sound = !repository.is_empty() && repository.split('/').all(is_component);
        if name.is_empty() || !sound || !is_host(registry) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        if repository.len() > 255 {
            return Err(ReferenceError::Long);
        }
        let digest = digest.map(checked_digest).transpose()?;
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Registry and repository.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// With the tag alone.
    #[must_use]
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }

    /// With this digest alone.
    #[must_use]
    pub fn at_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether `text` is `sha256:` and 64 hex digits (or the same for sha512).
#[must_use]
pub fn is_digest(text: &str) -> bool {
    match text.split_once(':') {
        Some(("sha256", hex)) => is_hex(hex, 64),
        Some(("sha512", hex)) => is_hex(hex, 128),
        _ => false,
    }
}

/// A digest as a reference has it; what is none at all makes the whole no reference.
fn checked_digest(text: &str) -> Result<String, ReferenceError> {
    let (algorithm, hex) = text.split_once(':').ok_or(ReferenceError::Format)?;
    let word =
        |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(|c| c.is_ascii_alphanumeric());
    if hex.len() < 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) || !algorithm.split(['-', '_', '+', '.']).all(word) {
        return Err(ReferenceError::Format);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ReferenceError::Algorithm),
    };
    match () {
        () if hex.len() != length => Err(ReferenceError::DigestLength),
        () if hex.bytes().any(|byte| byte.is_ascii_uppercase()) => Err(ReferenceError::Digest),
        () => Ok(text.to_owned()),
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&text.len()) && text.starts_with(word) && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separated = text
        .split(plain)
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, "." | "_" | "__") || run.chars().all(|c| c == '-'));
    text.starts_with(plain) && text.ends_with(plain) && separated
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let named = |host: &str| {
        let label = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        host.split('.').all(label)
    };
    let good = bracketed.map_or_else(|| named(host), |address| address.parse::<std::net::Ipv6Addr>().is_ok());
    good && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    #[rustfmt::skip]
    fn references_are_read_as_docker_reads_them() {
        check("busybox",                     "docker.io/library/busybox:latest");
        check("busybox:1.35",                "docker.io/library/busybox:1.35");
        check("corten/hello",                "docker.io/corten/hello:latest");
        check("docker.io/busybox",           "docker.io/library/busybox:latest");
        check("index.docker.io/a/b",         "docker.io/a/b:latest");
        check("localhost/x",                 "localhost/x:latest");
        check("localhost:5000/x/y:z",        "localhost:5000/x/y:z");
        check("registry.k8s.io/pause:3.10",  "registry.k8s.io/pause:3.10");
        check("[::1]:5000/x",                "[::1]:5000/x:latest");
        check("127.0.0.1:5000/a-b/c__d.e:T", "127.0.0.1:5000/a-b/c__d.e:T");
        check(&format!("x@{DIGEST}"),        &format!("docker.io/library/x@{DIGEST}"));
        check(&format!("q.io/x:1@{DIGEST}"), &format!("q.io/x:1@{DIGEST}"));
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(Reference::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_no_reference_is_refused() {
        check("",                       ReferenceError::Format);
        check("a b",                    ReferenceError::Format);
        check("a/",                     ReferenceError::Format);
        check("x:",                     ReferenceError::Format);
        check("x:-t",                   ReferenceError::Format);
        check("..",                     ReferenceError::Format);
        check("a..b",                   ReferenceError::Format);
        check("InvalidImageName",       ReferenceError::Uppercase("library/InvalidImageName".to_owned()));
        check("a/B",                    ReferenceError::Uppercase("a/B".to_owned()));
        check("x@sha256:12",            ReferenceError::Format);
        check(&format!("x@sha256:{}", "0".repeat(32)), ReferenceError::DigestLength);
        check(&format!("x@sha256:{}", "A".repeat(64)), ReferenceError::Digest);
        check(&format!("x@md5:{}", "0".repeat(32)),    ReferenceError::Algorithm);
        check(&DIGEST["sha256:".len()..], ReferenceError::Id(DIGEST["sha256:".len()..].to_owned()));
        #[track_caller]
        fn check(text: &str, expected: ReferenceError) {
            assert_eq!(Reference::parse(text).unwrap_err(), expected);
        }
    }
}
