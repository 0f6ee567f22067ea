//! Debian's docker-registry on the loopback, with its storage filled by hand: a real registry without a network.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::enclosure::only_child;
use crate::image::Image;

/// The user that a guarded registry knows.
pub const USER: &str = "test";

/// A running registry. It ends when this is dropped.
pub struct Registry {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Registry {
    /// Serves `images`, given as repository, tag and image, on `port` of the loopback; `password` of [`USER`] guards them
    /// when given. `command` makes the command of a program, in whatever namespaces the registry is to run.
    pub fn start(
        command: impl FnOnce(&str) -> Command,
        port: u16,
        images: &[(&str, &str, &Image)],
        password: Option<&str>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut config = String::new();
        if let Some(password) = password {
            let made = Command::new("htpasswd").args(["-Bbn", USER, password]).output();
            let file = directory.path().join("htpasswd");
            fs::write(&file, made.context("htpasswd (package apache2-utils)")?.stdout)?;
            config = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        }
        Self::launch(command, port, images, directory, "", &config)
    }

    /// As [`Registry::start`], over TLS by a certificate and key (PEM files), with `auth` as that part of the configuration.
    pub fn start_secured(
        command: impl FnOnce(&str) -> Command,
        port: u16,
        images: &[(&str, &str, &Image)],
        (certificate, key): (&Path, &Path),
        auth: &str,
    ) -> Result<Self> {
        let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
        Self::launch(command, port, images, tempfile::tempdir()?, &tls, auth)
    }

    fn launch(
        command: impl FnOnce(&str) -> Command,
        port: u16,
        images: &[(&str, &str, &Image)],
        directory: tempfile::TempDir,
        tls: &str,
        more: &str,
    ) -> Result<Self> {
        let storage = directory.path().join("storage");
        for (repository, tag, image) in images {
            store(&storage, repository, tag, image)?;
        }
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:{port}'{tls}}}\n{more}",
            storage.display(),
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, config)?;
        let mut child = command("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("docker-registry (package docker-registry)")?;
        let mut log = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let listens = log.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        ensure!(listens, "docker-registry ends at once");
        // Its log goes on, and must not fill the pipe.
        std::thread::spawn(move || log.for_each(drop));
        Ok(Self { child, port, directory })
    }

    /// The reference of `rest` (`repository:tag`) in this registry.
    #[must_use]
    pub fn reference(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Changes one byte of the largest blob of `image`, so that it is not what its digest says.
    pub fn corrupt(&self, image: &Image) -> Result<()> {
        let (blobs, manifest) = image.blobs()?;
        let layers = blobs.iter().filter(|(digest, _)| **digest != manifest);
        let (digest, _) = layers.max_by_key(|(_, bytes)| bytes.len()).context("the image has blobs")?;
        let path = blob(&self.directory.path().join("storage/docker/registry/v2"), digest).join("data");
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(fs::write(&path, bytes)?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Inside other namespaces the child is the one that entered them, and the registry is its child.
        if let Ok(registry) = only_child(self.child.id()) {
            let _ = Command::new("kill").arg(registry.to_string()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes an image in the registry's own layout.
fn store(storage: &Path, repository: &str, tag: &str, image: &Image) -> Result<()> {
    let (blobs, manifest) = image.blobs()?;
    let base = storage.join("docker/registry/v2");
    let link = |path: PathBuf, digest: &str| {
        fs::create_dir_all(&path)?;
        fs::write(path.join("link"), digest)
    };
    let repository = base.join("repositories").join(repository);
    for (digest, bytes) in blobs {
        let directory = blob(&base, &digest);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("data"), bytes)?;
        link(repository.join("_layers/sha256").join(digest.trim_start_matches("sha256:")), &digest)?;
    }
    let hex = manifest.trim_start_matches("sha256:");
    link(repository.join("_manifests/revisions/sha256").join(hex), &manifest)?;
    link(repository.join("_manifests/tags").join(tag).join("current"), &manifest)?;
    link(repository.join("_manifests/tags").join(tag).join("index/sha256").join(hex), &manifest)?;
    Ok(())
}

fn blob(base: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    base.join("blobs/sha256").join(&hex[..2]).join(hex)
}
