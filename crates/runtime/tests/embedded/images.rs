//! Images from archives and from a real registry.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use corten_runtime::*;
use corten_testkit::image::{Compression, Image, Layer};
use corten_testkit::registry::{self, Registry};

use crate::fixture::Fixture;

/// A registry on a free port.
fn serve(images: &[(&str, &str, &Image)], password: Option<&str>) -> Registry {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Registry::start(|program| Command::new(program), port, images, password).unwrap()
}

fn image() -> Image {
    let lower = Layer::new().file("data/old", 0o644, b"old\n").file("data/gone", 0o644, b"gone\n").file("hidden/a", 0o644, b"a");
    let upper = Layer::new()
        .remove("data/gone")
        .file("data/new", 0o644, b"new\n")
        .replace_directory("hidden")
        .file("hidden/b", 0o644, b"b");
    corten_testkit::busybox_image().unwrap().layer(lower).layer(upper).workdir("/data").env("FROM", "image")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_and_runs() {
    let fixture = Fixture::new("pull").await;
    let image = image();
    let registry =
        serve(&[("test/image", "1", &image), ("test/plain", "1", &image.clone().compression(Compression::None))], None);
    let reference = registry.reference("test/image:1");
    let id = fixture.runtime.pull(&reference, None).await.unwrap();
    assert_eq!(id, image.id().unwrap());
    let found = fixture.runtime.find(&reference).await.unwrap().unwrap();
    assert_eq!(found.tags, std::slice::from_ref(&reference));
    let digest = format!("{}@{}", registry.reference("test/image"), image.blobs().unwrap().1);
    assert_eq!(found.digests, std::slice::from_ref(&digest));
    assert!(found.size > 1 << 20);
    for name in [&digest, &id, &id["sha256:".len()..].to_owned(), &id["sha256:".len()..][..12].to_owned()] {
        assert_eq!(fixture.runtime.find(name).await.unwrap().unwrap().id, id, "{name}");
    }
    assert_eq!(fixture.runtime.pull(&digest, None).await.unwrap(), id);
    assert_eq!(fixture.runtime.pull(&registry.reference("test/plain:1"), None).await.unwrap(), id);
    let pod = fixture.pod(|_| {}).await;
    let (container, lines) = pod.run("ls; ls /hidden; cat old; echo $FROM", |config| config.image = reference.clone()).await;
    assert_eq!(lines, ["new", "old", "b", "old", "image"]);
    assert_eq!(container.image_ref, digest);
    let user = pod.create("busybox", &["sh"], |config| config.image = id.clone()).await;
    let err = Images::remove(&fixture.runtime, &id).await.unwrap_err();
    assert!(matches!(err, RuntimeError::InUse(_)), "{err}");
    fixture.runtime.remove_container(&user).await.unwrap();
    let before = fixture.runtime.usage().await.unwrap();
    Images::remove(&fixture.runtime, &id).await.unwrap();
    assert!(fixture.runtime.find(&reference).await.unwrap().is_none());
    let after = fixture.runtime.usage().await.unwrap();
    assert!(after.bytes < before.bytes && after.bytes > 0, "{before:?} {after:?}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_and_given() {
    let fixture = Fixture::new("credentials").await;
    let image = image();
    let registry = serve(&[("private/image", "1", &image)], Some("secret"));
    let reference = registry.reference("private/image:1");
    let auth =
        |password: &str| RegistryAuth { username: registry::USER.into(), password: password.into(), ..RegistryAuth::default() };
    for wrong in [None, Some(auth("wrong"))] {
        let err = fixture.runtime.pull(&reference, wrong.as_ref()).await.unwrap_err().to_string();
        assert!(err.contains("pull access denied, repository does not exist or may require authorization"), "{err}");
        assert!(!err.contains("wrong"), "{err}");
    }
    assert_eq!(fixture.runtime.pull(&reference, Some(&auth("secret"))).await.unwrap(), image.id().unwrap());
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_to_pull_say_why() {
    let fixture = Fixture::new("pullfail").await;
    let image = image();
    let registry = serve(&[("test/image", "1", &image)], None);
    let why = async |reference: &str| fixture.runtime.pull(reference, None).await.unwrap_err().to_string();
    let missing = why(&registry.reference("test/image:2")).await;
    assert!(missing.contains("not found"), "{missing}");
    assert!(why(&registry.reference("test/none:1")).await.contains("not found"));
    assert!(why("Upper").await.contains("repository name (library/Upper) must be lowercase"));
    assert!(why("127.0.0.1:1/x").await.contains("onnect"), "{}", why("127.0.0.1:1/x").await);
    // A layer that is not what its digest says, and that no other image has.
    let image = Image::new("x").layer(Layer::new().file("unique", 0o644, &[7; 5000])).compression(Compression::None);
    let registry = serve(&[("test/image", "1", &image)], None);
    registry.corrupt(&image).unwrap();
    let broken = why(&registry.reference("test/image:1")).await;
    assert!(broken.to_lowercase().contains("digest"), "{broken}");
    assert!(fixture.runtime.find(&registry.reference("test/image:1")).await.unwrap().is_none());
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_imported_or_refused() {
    let fixture = Fixture::new("import").await;
    let image = image().named("example.org/archive:3");
    let path = fixture.directory.path().join("image.tar");
    image.write_oci(&path).unwrap();
    assert_eq!(fixture.runtime.import(&path).await.unwrap(), ["example.org/archive:3"]);
    let first = fixture.runtime.find("example.org/archive:3").await.unwrap().unwrap();
    image.write_docker(&path).unwrap();
    assert_eq!(fixture.runtime.import(&path).await.unwrap(), ["example.org/archive:3"]);
    assert_eq!(fixture.runtime.find("example.org/archive:3").await.unwrap().unwrap(), first);
    let whole = fs::read(&path).unwrap();
    for (bytes, expected) in [
        (&b"no archive"[..], "example"),
        (&whole[..whole.len() / 2], "the archive is cut off"),
        (&tar_of("other"), "neither an OCI layout (index.json) nor a docker archive (manifest.json)"),
    ] {
        fs::write(&path, bytes).unwrap();
        let err = fixture.runtime.import(&path).await.unwrap_err();
        assert!(matches!(err, RuntimeError::BadArchive { .. }), "{err}");
        assert!(expected == "example" || err.to_string().contains(expected), "{err}");
    }
    let scratch = fixture.directory.path().join("root/images/scratch");
    assert_eq!(fs::read_dir(scratch).unwrap().count(), 0);
    fixture.finish().await;
}

fn tar_of(name: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(name), "x").unwrap();
    Command::new("tar").arg("-C").arg(directory.path()).args(["-cf", "-", name]).output().unwrap().stdout
}
