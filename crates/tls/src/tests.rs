use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::*;

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// What the client makes of a server that shows the certificate `of` and signs with the key `with`.
fn handshake(of: &rcgen::CertifiedKey<rcgen::KeyPair>, with: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Result<(), Error> {
    let key = with.signing_key.serialize_der().try_into().unwrap();
    let shown = CertifiedKey::new(vec![of.cert.der().clone()], any_supported_type(&key).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let client = unverified().with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), "10.0.0.1".try_into().unwrap()).unwrap();
    while client.is_handshaking() {
        let (mut sent, mut answered) = (Vec::new(), Vec::new());
        client.write_tls(&mut sent).unwrap();
        server.read_tls(&mut sent.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        server.write_tls(&mut answered).unwrap();
        client.read_tls(&mut answered.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn any_certificate_is_taken_from_whoever_has_its_key() {
    let certificate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (own, other) = (certificate("own.example"), certificate("other.example"));
    assert_eq!(handshake(&own, &own), Ok(()));
    assert!(handshake(&own, &other).is_err());
}
