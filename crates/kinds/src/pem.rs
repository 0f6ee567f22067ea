//! Looking into certificates and keys, for warnings only.

use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

fn blocks(bytes: &[u8]) -> Vec<Pem> {
    Pem::iter_from_buffer(bytes).filter_map(Result::ok).collect()
}

/// What `tls.X509KeyPair` would say of a certificate and a key that do not fit, or cannot be read.
pub(crate) fn key_pair_warning(certificate: &[u8], key: &[u8]) -> Option<String> {
    let certificates = blocks(certificate);
    let Some(leaf) = certificates.iter().find(|block| block.label == "CERTIFICATE") else {
        return Some(match certificates.first() {
            None => "tls: failed to find any PEM data in certificate input".into(),
            Some(block) if block.label.ends_with("PRIVATE KEY") => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been \
                 switched"
                    .into()
            }
            Some(block) => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
                block.label
            ),
        });
    };
    let keys = blocks(key);
    if !keys.iter().any(|block| block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY")) {
        return Some(match keys.first() {
            None => "tls: failed to find any PEM data in key input".into(),
            Some(block) if block.label == "CERTIFICATE" => {
                "tls: found a certificate rather than a key in the PEM for the private key".into()
            }
            Some(block) => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the \
                 following types: [{}]",
                block.label
            ),
        });
    }
    match X509Certificate::from_der(&leaf.contents) {
        Ok(_) => None,
        Err(_) => Some("x509: malformed certificate".into()),
    }
}

/// What is wrong with a certificate request in PEM.
pub(crate) fn request_fault(bytes: &[u8]) -> Option<String> {
    let first = blocks(bytes).into_iter().next();
    let Some(block) = first.filter(|block| block.label == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST".into());
    };
    match x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents) {
        Ok(_) => None,
        Err(_) => Some("asn1: structure error: the request is malformed".into()),
    }
}

/// What is wrong with certificates in PEM; none at all is fine.
pub(crate) fn certificates_fault(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    let blocks = blocks(bytes);
    if blocks.is_empty() {
        return Some("must contain at least one CERTIFICATE PEM block".into());
    }
    blocks.iter().find_map(|block| {
        if block.label != "CERTIFICATE" {
            let label = corten_api::field::quoted(&block.label);
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {label}"));
        }
        X509Certificate::from_der(&block.contents).err().map(|_| "x509: malformed certificate".into())
    })
}
