//! TLS: which certificate is shown, and what is asked of clients'.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme, SupportedProtocolVersion};

use super::sni::ByName;
use crate::certs::Certificates;
use crate::config::{Config, TlsVersion};

/// The cipher suites, those with the shorter key first as Go's servers have it: they are a quarter faster, and lists are mostly
/// encryption.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 2,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 3,
        _ => 4, // the sort is stable: the others keep their order
    });
    provider
}

/// TLS 1.2 and 1.3 with ALPN for HTTP/2 and HTTP/1.1. Client certificates are asked for and never required.
///
/// # Errors
/// For cipher suites that there are not.
pub(super) fn config(certs: &Arc<Certificates>, named: ByName, config: &Config) -> Result<Arc<ServerConfig>, Error> {
    let mut provider = provider();
    limit_suites(&mut provider, &config.tls_cipher_suites)?;
    let provider = Arc::new(provider);
    let versions: &[&SupportedProtocolVersion] = match config.tls_min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let verifier = Arc::new(AnyCertificate { provider: provider.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Serving { usual: certs.clone(), named }));
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Leaves only these suites of TLS 1.2, if any are named; those of 1.3 are all safe, and nobody chooses among them.
fn limit_suites(provider: &mut CryptoProvider, names: &[String]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let named = |name: &str| {
        // Go knows these under a shorter name too.
        let full = name.strip_suffix("_CHACHA20_POLY1305").map(|start| format!("{start}_CHACHA20_POLY1305_SHA256"));
        full.unwrap_or_else(|| name.to_owned())
    };
    let names: Vec<String> = names.iter().map(|name| named(name)).collect();
    let known = |name: &String| provider.cipher_suites.iter().any(|suite| format!("{:?}", suite.suite()) == *name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(Error::General(format!("Cipher suite {unknown} not supported or doesn't exist")));
    }
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || names.contains(&format!("{:?}", suite.suite())));
    Ok(())
}

/// Shows the certificate of the name that is asked for, or else the one that is valid now, so that a renewed one is used from the
/// next connection on.
struct Serving {
    usual: Arc<Certificates>,
    named: ByName,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving")
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named.find(name)).cloned();
        Some(named.unwrap_or_else(|| self.usual.serving()))
    }
}

/// Takes any client certificate whose key the client has. Whom it stands for, and whether a CA of ours says so, is
/// authentication's to decide: a wrong certificate gets a 401, as upstream's, and not a broken connection.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suites_that_are_named_are_left_of_tls_1_2() {
        let mut provider = provider();
        let all = provider.cipher_suites.len();
        assert!(limit_suites(&mut provider, &[]).is_ok() && provider.cipher_suites.len() == all);
        let err = limit_suites(&mut provider, &["TLS_RSA_WITH_RC4_128_SHA".into()]).unwrap_err();
        assert!(err.to_string().ends_with("Cipher suite TLS_RSA_WITH_RC4_128_SHA not supported or doesn't exist"));
        limit_suites(&mut provider, &["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305".into()]).unwrap();
        assert_eq!(provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count(), 1);
    }
}
