//! Where a cluster keeps its things. Everything durable is under the data directory; what does not outlive a reboot
//! (sockets, namespaces, process ids) is under `/run`, which a reboot empties too.

use std::path::{Path, PathBuf};

/// The places of one cluster on this machine.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The data directory.
    pub data: PathBuf,
    /// The volatile directory, one per data directory.
    pub run: PathBuf,
}

impl Paths {
    /// The layout for a data directory.
    pub fn new(data: &Path) -> Self {
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        // Unix socket paths are limited to 108 bytes, so the name is short whatever the data directory is called.
        let run = match data == Path::new("/var/lib/corten") {
            true => PathBuf::from("/run/corten"),
            false => PathBuf::from(format!("/run/corten-{:08x}", fnv(data.as_os_str().as_encoded_bytes()))),
        };
        Self { data, run }
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// Images, layers and containers.
    pub fn runtime(&self) -> PathBuf {
        self.data.join("runtime")
    }

    /// Pod directories and volumes.
    pub fn kubelet(&self) -> PathBuf {
        self.data.join("kubelet")
    }

    /// Logs of containers.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs/pods")
    }

    /// Address leases of the pod network.
    pub fn network(&self) -> PathBuf {
        self.data.join("network")
    }

    /// What the running cluster leaves word of.
    pub fn running(&self) -> PathBuf {
        self.run.join("cluster.json")
    }
}

/// FNV-1a: short, stable, and enough to tell data directories apart.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_do_not_share_their_volatile_directory() {
        let one = Paths::new(Path::new("/var/lib/corten"));
        let two = Paths::new(Path::new("/tmp/other"));
        assert_eq!(one.run, Path::new("/run/corten"));
        assert_ne!(two.run, one.run);
        assert_eq!(two.run, Paths::new(Path::new("/tmp/other")).run);
    }
}
