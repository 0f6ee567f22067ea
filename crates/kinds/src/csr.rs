//! CertificateSigningRequests.

use corten_api::field::{Faults, Path};

use crate::names;

/// The name of a signer: a domain of at least two labels, and a path.
pub(crate) fn signer_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    const FORM: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    if name.is_empty() {
        return faults.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/') else { return faults.invalid_str(path, name, FORM) };
    if rest.contains('/') {
        return faults.invalid_str(path, name, FORM);
    }
    if !domain.contains('.') {
        return faults.invalid_str(path, name, FORM);
    }
    for message in names::dns_subdomain(domain) {
        faults.invalid_str(path, domain, &format!("validating label {domain:?}: {message}"));
    }
    for message in names::dns_subdomain(rest) {
        faults.invalid_str(path, rest, &format!("validating label {rest:?}: {message}"));
    }
}
