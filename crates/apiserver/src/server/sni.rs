//! Certificates by the name that a client asks for (SNI).

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certs::{self, CertsError};

/// A certificate and the names that it is shown for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCertificate {
    /// The certificate chain (PEM).
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Names, which may begin with `*.`; those in the certificate when there are none.
    pub names: Vec<String>,
}

impl FromStr for NamedCertificate {
    type Err = String;

    /// Reads `CERTIFICATE,KEY` or `CERTIFICATE,KEY:NAME,NAME`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (files, names) = text.split_once(':').map_or((text, None), |(files, names)| (files, Some(names)));
        let Some((certificate, key)) = files.split_once(',').filter(|(_, key)| !key.contains(',')) else {
            return Err("expected comma separated certificate and key file paths".into());
        };
        let (certificate, key) = (certificate.trim(), key.trim());
        if certificate.is_empty() || key.is_empty() {
            return Err("expected comma separated certificate and key file paths".into());
        }
        let names = names.map(|names| names.split(',').map(|name| name.trim().to_owned()).collect()).unwrap_or_default();
        Ok(Self { certificate: certificate.into(), key: key.into(), names })
    }
}

/// Certificates by name.
#[derive(Debug, Default)]
pub(super) struct ByName(HashMap<String, Arc<CertifiedKey>>);

impl ByName {
    /// Reads the files. Of two certificates for one name the one whose names were given counts, then the first.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub(super) fn read(named: &[NamedCertificate]) -> Result<Self, CertsError> {
        let mut implicit = HashMap::new();
        let mut explicit = HashMap::new();
        for one in named {
            let key = certs::certified(&one.certificate, &one.key)?;
            let (names, all) = match one.names.as_slice() {
                [] => (names_in(&key), &mut implicit),
                names => (names.to_vec(), &mut explicit),
            };
            for name in names {
                all.entry(normal(&name)).or_insert_with(|| key.clone());
            }
        }
        implicit.extend(explicit);
        Ok(Self(implicit))
    }

    /// The certificate for a name: its own, or that of a wildcard for more and more of its labels.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        if self.0.is_empty() {
            return None;
        }
        let name = normal(name);
        if let Some(key) = self.0.get(&name) {
            return Some(key);
        }
        let mut labels: Vec<&str> = name.split('.').collect();
        (0..labels.len()).find_map(|at| {
            labels[at] = "*";
            self.0.get(&labels.join("."))
        })
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The names in a certificate: the common name and the alternative ones.
fn names_in(key: &CertifiedKey) -> Vec<String> {
    let Some(Ok((_, cert))) = key.cert.first().map(|der| X509Certificate::from_der(der)) else { return Vec::new() };
    let mut names: Vec<String> =
        cert.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    if let Ok(Some(alternative)) = cert.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_files_and_names() {
        let read = |text: &str| text.parse::<NamedCertificate>();
        let with = read("a.crt,a.key:*.example.com,example.com").unwrap();
        assert_eq!(
            (with.certificate.to_str(), with.names),
            (Some("a.crt"), vec!["*.example.com".to_owned(), "example.com".into()])
        );
        assert!(read("a.crt,a.key").unwrap().names.is_empty());
        for bad in ["a.crt", "a.crt,", "a,b,c", ""] {
            assert_eq!(read(bad).unwrap_err(), "expected comma separated certificate and key file paths", "{bad}");
        }
    }

    #[test]
    fn given_names_come_before_those_of_certificates_and_wildcards_last() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, names: &[&str]| {
            let made = rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
            let (certificate, key) = (directory.path().join(format!("{file}.crt")), directory.path().join(format!("{file}.key")));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            NamedCertificate { certificate, key, names: Vec::new() }
        };
        let own = write("own", &["a.example.com", "b.example.com"]);
        let given = NamedCertificate { names: vec!["b.example.com".into(), "*.example.com".into()], ..write("given", &["x"]) };
        let all = ByName::read(&[own.clone(), given]).unwrap();
        let found = |name: &str| all.find(name).map(|key| names_in(key).contains(&"x".to_owned()));
        assert_eq!(found("a.example.com"), Some(false));
        assert_eq!((found("B.example.com."), found("c.example.com")), (Some(true), Some(true)));
        assert_eq!((found("example.com"), found("a.b.example.com")), (None, None));
        assert!(ByName::read(&[NamedCertificate { key: own.certificate.clone(), ..own }]).is_err());
    }
}
