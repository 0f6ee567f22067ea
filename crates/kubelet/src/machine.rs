//! Facts about the machine this node is: CPUs, memory, disks, identity.

use std::path::Path;

use crate::config::Host;

/// What does not change while the kubelet runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    /// Go's name of the architecture.
    pub arch: &'static str,
    /// Bytes of swap.
    pub swap: i64,
    /// Huge pages by size in bytes: how many.
    pub hugepages: Vec<(i64, i64)>,
}

impl Machine {
    /// Reads `/proc`, `/etc` and `/sys`. What is missing is empty: a node without a machine id is still a node.
    pub fn read(host: &Host) -> Self {
        let line = |path: &Path| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let meminfo = line(&host.proc.join("meminfo"));
        let kib = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<i64>().ok());
            value.unwrap_or(0) * 1024
        };
        let release = line(&host.etc.join("os-release"));
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        let machine_id = line(&host.etc.join("machine-id"));
        let uuid = line(Path::new("/sys/class/dmi/id/product_uuid"));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1)),
            memory: kib("MemTotal"),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line(&host.proc.join("sys/kernel/random/boot_id")),
            kernel: line(&host.proc.join("sys/kernel/osrelease")),
            os_image: pretty.trim_matches('"').to_owned(),
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                "powerpc64" => "ppc64le",
                other => other,
            },
            swap: kib("SwapTotal"),
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
        }
    }
}

fn hugepages(dir: &Path) -> Vec<(i64, i64)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut sizes: Vec<(i64, i64)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some((size * 1024, count.trim().parse().ok()?))
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

/// Use of the file system that holds a path, bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub capacity: u64,
    pub available: u64,
    pub used: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Disk {
    /// Asks the kernel; zeros when the path is not there.
    pub fn of(path: &Path) -> Self {
        let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return Self::default() };
        let unit = stat.fragment_size();
        Self {
            capacity: stat.blocks() * unit,
            available: stat.blocks_available() * unit,
            used: (stat.blocks() - stat.blocks_free()) * unit,
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        }
    }
}
