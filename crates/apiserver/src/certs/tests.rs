use std::os::unix::fs::PermissionsExt;

use super::*;

fn open(directory: &Path) -> Arc<Certificates> {
    let mut config = Config::new(directory);
    config.advertise_address = Some([192, 0, 2, 7].into());
    config.tls_sans = vec!["api.example.org".into()];
    Certificates::open(&config, &Tasks::root("test")).unwrap()
}

#[tokio::test]
async fn first_start_makes_everything_and_the_second_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    for entry in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let private = entry.path().extension().is_some_and(|end| end == "key");
        assert_eq!(mode, if private { 0o600 } else { 0o644 }, "{:?}", entry.path());
    }
    let again = open(directory.path());
    assert_eq!(first.ca(), again.ca());
    assert_eq!(first.serving().cert, again.serving().cert);
    assert_eq!(first.service_account_key(), again.service_account_key());
}

#[tokio::test]
async fn the_serving_certificate_is_made_again_for_new_names() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let mut config = Config::new(directory.path());
    config.advertise_address = Some([192, 0, 2, 8].into());
    let second = Certificates::open(&config, &Tasks::root("test")).unwrap();
    assert_ne!(first.serving().cert, second.serving().cert);
    assert_eq!(first.ca(), second.ca());
}

#[tokio::test]
async fn renewal_replaces_what_is_gone_and_keeps_what_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let certs = open(directory.path());
    let before = certs.serving();
    let next = certs.renew_due(SystemTime::now()).unwrap();
    assert_eq!(before.cert, certs.serving().cert);
    assert!(next > SystemTime::now() + Duration::from_secs(24 * 3600));
    std::fs::remove_file(directory.path().join("apiserver.crt")).unwrap();
    certs.renew_due(SystemTime::now()).unwrap();
    assert_ne!(before.cert, certs.serving().cert, "shown from the next connection on, without a restart");
}

#[tokio::test]
async fn serving_certificates_of_others_are_kept_and_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let certs = open(directory.path());
    let names = || vec!["node-1".to_owned(), "192.0.2.7".to_owned()];
    let keep = || certs.keep_server("kubelet", "system:node:node-1", "system:nodes", names()).unwrap();
    let (certificate, key) = keep();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let first = std::fs::read(&certificate).unwrap();
    keep();
    certs.renew_due(SystemTime::now()).unwrap();
    assert_eq!(std::fs::read(&certificate).unwrap(), first, "kept while it is good");
    std::fs::remove_file(&certificate).unwrap();
    certs.renew_due(SystemTime::now()).unwrap();
    assert_ne!(std::fs::read(&certificate).unwrap(), first);
}

#[tokio::test]
async fn kubeconfigs_are_private_and_kept_when_good() {
    let directory = tempfile::tempdir().unwrap();
    let certs = open(directory.path());
    let path = directory.path().join("admin.kubeconfig");
    certs.keep_kubeconfig(&path, "https://127.0.0.1:6443", "admin", MASTERS).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let first = std::fs::read_to_string(&path).unwrap();
    certs.keep_kubeconfig(&path, "https://127.0.0.1:6443", "admin", MASTERS).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    certs.keep_kubeconfig(&path, "https://127.0.0.1:6444", "admin", MASTERS).unwrap();
    assert_ne!(std::fs::read_to_string(&path).unwrap(), first);
}
