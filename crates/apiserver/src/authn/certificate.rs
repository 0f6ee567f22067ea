//! Client certificates: the common name is the user, the organizations are the groups.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, Oid};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AuthnError, Extra};
use crate::user::User;

/// Checks certificates against CAs, at the time of the request: a connection outlives no certificate.
pub(super) struct Verifier {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    pub(super) fn new(roots: &Arc<RootCertStore>) -> Result<Self, AuthnError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self { verifier: WebPkiClientVerifier::builder_with_provider(roots.clone(), provider).build()? })
    }

    /// Whether the chain leads to one of the CAs and is valid now.
    pub(super) fn accepts(&self, chain: &[CertificateDer<'static>]) -> bool {
        let Some((own, intermediates)) = chain.split_first() else { return false };
        self.verifier.verify_client_cert(own, intermediates, UnixTime::now()).is_ok()
    }

    /// The user a valid chain stands for.
    pub(super) fn user(&self, chain: &[CertificateDer<'static>]) -> Option<User> {
        if !self.accepts(chain) {
            return None;
        }
        user(chain.first()?)
    }
}

static COMMON_NAME: Oid<'static> = OID_X509_COMMON_NAME;
static ORGANIZATION: Oid<'static> = OID_X509_ORGANIZATION_NAME;

/// The common name of a certificate.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let mut names = cert.subject().iter_by_oid(&COMMON_NAME).filter_map(|name| name.as_str().ok());
    names.next().map(str::to_owned)
}

fn user(der: &[u8]) -> Option<User> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let names = |oid: &'static Oid<'static>| {
        cert.subject().iter_by_oid(oid).filter_map(|name| name.as_str().ok()).map(str::to_owned).collect::<Vec<_>>()
    };
    let name = names(&COMMON_NAME).into_iter().next().filter(|name| !name.is_empty())?;
    let print: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    let extra = Extra::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={print}")])]);
    Some(User { name, uid: String::new(), groups: names(&ORGANIZATION), extra })
}
