//! Builds container images in memory and writes them as an OCI layout or as a docker archive.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How layers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// gzip, the usual.
    #[default]
    Gzip,
    /// zstd, the newer.
    Zstd,
}

/// An image to be. Layers and settings are added; [`Image::write_oci`] and the like write it.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    layers: Vec<Vec<u8>>,
    config: Value,
    compression: Compression,
}

impl Image {
    /// An empty image called `name`, such as `corten.test/hello:1`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), layers: Vec::new(), config: json!({}), compression: Compression::Gzip }
    }

    /// An image whose only file is the static program at `path`, which it runs.
    ///
    /// # Errors
    /// When the program cannot be read.
    pub fn from_binary(name: &str, path: &Path) -> Result<Self> {
        let file = path.file_name().and_then(|file| file.to_str()).context("the program has no name")?;
        let program = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let layer = Layer::new().file(file, 0o755, &program);
        Ok(Self::new(name).layer(layer).entrypoint(&[&format!("/{file}")]))
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// Another name for the same image.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// First words of the command.
    #[must_use]
    pub fn entrypoint(self, words: &[&str]) -> Self {
        self.set("Entrypoint", json!(words))
    }

    /// Further words of the command.
    #[must_use]
    pub fn cmd(self, words: &[&str]) -> Self {
        self.set("Cmd", json!(words))
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let mut env = self.config["Env"].as_array().cloned().unwrap_or_default();
        env.push(json!(format!("{name}={value}")));
        self.config["Env"] = json!(env);
        self
    }

    /// User name or id, with an optional group.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.set("User", json!(user))
    }

    /// Working directory.
    #[must_use]
    pub fn workdir(self, path: &str) -> Self {
        self.set("WorkingDir", json!(path))
    }

    /// A port such as `8080/tcp`.
    #[must_use]
    pub fn expose(mut self, port: &str) -> Self {
        let mut ports = self.config["ExposedPorts"].as_object().cloned().unwrap_or_default();
        ports.insert(port.to_owned(), json!({}));
        self.config["ExposedPorts"] = json!(ports);
        self
    }

    /// Signal for a stop.
    #[must_use]
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set("StopSignal", json!(signal))
    }

    /// How layers are stored.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The image's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image's id: the digest of its configuration.
    ///
    /// # Errors
    /// When the configuration cannot be encoded.
    pub fn id(&self) -> Result<String> {
        Ok(digest(&self.configuration()?))
    }

    /// Every document and layer by digest, and the digest of the manifest: what a registry holds.
    ///
    /// # Errors
    /// When something cannot be encoded.
    pub fn blobs(&self) -> Result<(BTreeMap<String, Vec<u8>>, String)> {
        let mut blobs = BTreeMap::new();
        let mut keep = |bytes: Vec<u8>| {
            let digest = digest(&bytes);
            let pointer = json!({"digest": digest, "size": bytes.len()});
            blobs.insert(digest, bytes);
            pointer
        };
        let mut config = keep(self.configuration()?);
        config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        let mut layers = Vec::new();
        for layer in &self.layers {
            let (kind, bytes) = match self.compression {
                Compression::None => ("tar", layer.clone()),
                Compression::Gzip => ("tar+gzip", gzip(layer)?),
                Compression::Zstd => ("tar+zstd", zstd::encode_all(&layer[..], 0)?),
            };
            let mut pointer = keep(bytes);
            pointer["mediaType"] = json!(format!("application/vnd.oci.image.layer.v1.{kind}"));
            layers.push(pointer);
        }
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let pointer = keep(serde_json::to_vec(&manifest)?);
        let manifest = pointer["digest"].as_str().context("a digest is text")?.to_owned();
        Ok((blobs, manifest))
    }

    /// Writes an OCI layout in a tar file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_oci(&self, path: &Path) -> Result<()> {
        let (blobs, manifest) = self.blobs()?;
        let size = blobs.get(&manifest).map_or(0, Vec::len);
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest,
            "size": size,
            "annotations": {"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": self.name},
        }]});
        let mut archive = Layer::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive = archive.file("index.json", 0o644, &serde_json::to_vec(&index)?);
        for (digest, bytes) in &blobs {
            archive = archive.file(&format!("blobs/{}", digest.replace(':', "/")), 0o644, bytes);
        }
        fs::write(path, archive.finish()).with_context(|| format!("write {}", path.display()))
    }

    /// Writes what `docker save` would.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_docker(&self, path: &Path) -> Result<()> {
        let config = self.configuration()?;
        let config_name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let layers: Vec<String> = (0..self.layers.len()).map(|at| format!("{at}/layer.tar")).collect();
        let manifest = json!([{"Config": config_name, "RepoTags": [self.name], "Layers": layers}]);
        let mut archive = Layer::new().file(&config_name, 0o644, &config);
        archive = archive.file("manifest.json", 0o644, &serde_json::to_vec(&manifest)?);
        for (name, layer) in layers.iter().zip(&self.layers) {
            archive = archive.file(name, 0o644, layer);
        }
        fs::write(path, archive.finish()).with_context(|| format!("write {}", path.display()))
    }

    fn configuration(&self) -> Result<Vec<u8>> {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Ok(serde_json::to_vec(&config)?)
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }
}

/// Files of a layer, in memory.
pub struct Layer {
    builder: tar::Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { builder: tar::Builder::new(Vec::new()) }
    }

    /// Adds a file owned by root.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.owned_file(path, mode, (0, 0), content)
    }

    /// Adds a file of another owner.
    #[must_use]
    pub fn owned_file(self, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Self {
        self.entry(path, mode, owner, tar::EntryType::Regular, None, content)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, mode, (0, 0), tar::EntryType::Directory, None, &[])
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, 0o777, (0, 0), tar::EntryType::Symlink, Some(target), &[])
    }

    /// Hides a file of a lower layer.
    #[must_use]
    pub fn remove(self, path: &str) -> Self {
        let (directory, name) = path.rsplit_once('/').map_or((String::new(), path), |(at, name)| (format!("{at}/"), name));
        self.file(&format!("{directory}.wh.{name}"), 0o644, &[])
    }

    /// Hides everything that lower layers have in a directory.
    #[must_use]
    pub fn replace_directory(self, path: &str) -> Self {
        self.directory(path, 0o755).file(&format!("{path}/.wh..wh..opq"), 0o644, &[])
    }

    fn entry(
        mut self,
        path: &str,
        mode: u32,
        owner: (u64, u64),
        kind: tar::EntryType,
        target: Option<&str>,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        let added = match target {
            Some(target) => self.builder.append_link(&mut header, path, target),
            None => self.builder.append_data(&mut header, path, content),
        };
        added.expect("writing to memory fails for paths only that no test uses");
        self
    }

    fn finish(self) -> Vec<u8> {
        self.builder.into_inner().expect("writing to memory does not fail")
    }
}

/// The test workload as an image: `corten.test/hello:latest`, which serves on port 8080.
///
/// # Errors
/// When it cannot be built.
pub fn hello_image() -> Result<Image> {
    let image = Image::from_binary("corten.test/hello:latest", &hello_binary()?)?;
    let etc = Layer::new()
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/:/hello\nhello:x:1000:1000::/:/hello\n")
        .file("etc/group", 0o644, b"root:x:0:\nhello:x:1000:\n")
        .directory("tmp", 0o1777);
    Ok(image.layer(etc).expose("8080/tcp"))
}

/// A small Linux from Debian's static busybox: `corten.test/busybox:latest`, which runs a shell.
///
/// # Errors
/// When `/bin/busybox` is missing or not static.
pub fn busybox_image() -> Result<Image> {
    let program = fs::read("/bin/busybox").context("/bin/busybox is missing: install Debian's package busybox-static")?;
    let listed = Command::new("/bin/busybox").arg("--list").output().context("run /bin/busybox --list")?;
    let mut layer = Layer::new().directory("bin", 0o755).file("bin/busybox", 0o755, &program);
    let names = String::from_utf8(listed.stdout).context("busybox lists its commands")?;
    for name in names.lines().filter(|name| *name != "busybox") {
        layer = layer.link(&format!("bin/{name}"), "/bin/busybox");
    }
    let etc = Layer::new()
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\nusers:x:100:nobody\n")
        .directory("root", 0o700)
        .directory("home", 0o755)
        .directory("var", 0o755)
        .directory("tmp", 0o1777);
    Ok(Image::new("corten.test/busybox:latest").layer(layer).layer(etc).cmd(&["sh"]).env("PATH", "/bin:/usr/bin:/sbin"))
}

/// Builds the test workload, once a process, as a static program.
///
/// # Errors
/// When cargo fails.
pub fn hello_binary() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build_hello().map_err(|err| format!("{err:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build_hello() -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let musl = format!("{arch}-unknown-linux-musl");
    let installed = Command::new("rustc").args(["--print", "target-libdir", "--target", &musl]).output().context("run rustc")?;
    let has_musl = installed.status.success() && Path::new(String::from_utf8_lossy(&installed.stdout).trim()).exists();
    let target = if has_musl { musl } else { format!("{arch}-unknown-linux-gnu") };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hello/Cargo.toml");
    // A directory of its own: another build may hold the lock of the usual one.
    let directory = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    };
    let directory = directory.join("testkit");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--quiet", "--package", "hello", "--target", &target]).arg("--manifest-path").arg(manifest);
    build.arg("--target-dir").arg(&directory);
    if !has_musl {
        build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    let status = build.status().context("run cargo to build the test workload")?;
    if !status.success() {
        bail!("cargo could not build the test workload: {status}");
    }
    Ok(directory.join(target).join("release/hello"))
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_each_time() {
        let image = || Image::new("x:1").layer(Layer::new().file("a", 0o644, b"data")).entrypoint(&["/a"]).env("A", "b");
        assert_eq!(image().id().unwrap(), image().id().unwrap());
        assert_eq!(image().blobs().unwrap(), image().blobs().unwrap());
        assert_ne!(image().id().unwrap(), image().user("1").id().unwrap());
    }

    #[test]
    fn archives_hold_what_their_index_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        Image::new("x:1").layer(Layer::new().link("a", "b")).write_oci(&path).unwrap();
        let mut archive = tar::Archive::new(fs::File::open(&path).unwrap());
        let names: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        assert_eq!(&names[..2], ["oci-layout", "index.json"]);
    }
}
