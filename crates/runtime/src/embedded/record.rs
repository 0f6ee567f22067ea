//! What the runtime keeps on disk about sandboxes and containers, and where. All of it is below the state directory,
//! which is on a tmpfs: a reboot ends every container and forgets it. Only images and writable layers are on disk.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cri::{ContainerConfig, ContainerState, SandboxConfig};

/// Paths of one sandbox. Its directory holds everything that belongs to it, except the network namespace, whose path
/// other programs see.
#[derive(Clone, Debug)]
pub struct SandboxPaths {
    /// Its directory.
    pub directory: PathBuf,
}

impl SandboxPaths {
    /// Below the state directory `state`.
    #[must_use]
    pub fn new(state: &Path, id: &str) -> Self {
        Self { directory: state.join("sandboxes").join(id) }
    }

    /// Its [`SandboxRecord`].
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.directory.join("sandbox.json")
    }

    /// What the shim wrote when it was ready: [`ShimRecord`].
    #[must_use]
    pub fn shim(&self) -> PathBuf {
        self.directory.join("shim.json")
    }

    /// `/dev/shm` of the pod.
    #[must_use]
    pub fn shm(&self) -> PathBuf {
        self.directory.join("shm")
    }

    /// A file of `/etc` that the sandbox provides.
    #[must_use]
    pub fn etc(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// All containers.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.directory.join("containers")
    }

    /// One container's directory: its OCI bundle and records.
    #[must_use]
    pub fn container(&self, id: &str) -> ContainerPaths {
        ContainerPaths { directory: self.containers().join(id) }
    }
}

/// The name of the shim's socket in the sandbox's directory.
pub const SOCKET: &str = "shim.sock";

/// Paths of one container.
#[derive(Clone, Debug)]
pub struct ContainerPaths {
    /// Its directory, which is the OCI bundle.
    pub directory: PathBuf,
}

impl ContainerPaths {
    /// Its [`ContainerRecord`].
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.directory.join("container.json")
    }

    /// Its [`Status`], written by the shim.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.directory.join("status.json")
    }

    /// Its OCI specification.
    #[must_use]
    pub fn spec(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    /// Where its root file system is mounted while it is being created.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }
}

/// A sandbox as asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: String,
    /// As asked for.
    pub config: SandboxConfig,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where its network namespace is bound; `None` on the host's.
    pub netns: Option<PathBuf>,
    /// Whether the pod's cgroup was made for it, and so goes with it.
    pub made_cgroup: bool,
    /// The cgroup root of the machine.
    pub cgroup_root: PathBuf,
    /// The cgroup that the shim itself moves to; empty leaves it in its parent's.
    pub shim_cgroup: String,
}

/// What a shim says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShimRecord {
    /// Its process.
    pub pid: i32,
    /// The process that holds the pod's PID namespace, when it has one.
    pub init: Option<i32>,
    /// Clock ticks from boot to its start, which with the pid names a process for good.
    pub start_time: u64,
}

/// A container as made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// As asked for.
    pub config: ContainerConfig,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// Reference with digest, or the id.
    pub image_ref: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Unpacked layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Directory of the writable layer: `upper` and `work` below.
    pub writable: PathBuf,
    /// What runs.
    pub process: ProcessRecord,
    /// Its cgroup, from the root.
    pub cgroup: String,
    /// Its log, absolute; empty for none.
    pub log: PathBuf,
    /// Signal for a stop, such as `SIGTERM`.
    pub stop_signal: String,
    /// Its compiled seccomp profile.
    pub seccomp: Option<PathBuf>,
    /// Device nodes passed to it.
    pub devices: Vec<DeviceNode>,
    /// Whether it has a PID namespace of its own, which dies with its first process.
    pub own_pids: bool,
}

/// A device node to make in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path in the container.
    pub path: PathBuf,
    /// Block device instead of character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Of `rwm`.
    pub access: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A process to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// A container's state, as the shim knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// State.
    pub state: ContainerState,
    /// Main process on the node, 0 when not running.
    pub pid: i32,
    /// Nanoseconds since the epoch; 0 before.
    pub started_at: i64,
    /// Nanoseconds since the epoch; 0 before.
    pub finished_at: i64,
    /// Meaningful when exited.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or empty.
    pub reason: String,
    /// Why it failed to start.
    pub message: String,
    /// The signal that ended it, or 0.
    pub signal: i32,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: ContainerState::Created,
            pid: 0,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            signal: 0,
        }
    }
}

/// Reads a record.
///
/// # Errors
/// When it cannot be read or is none.
pub fn load<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {err}", path.display())))
}

/// Writes a record whole or not at all. No fsync: what must outlive the machine is not written here.
///
/// # Errors
/// When it cannot be written.
pub fn save<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).open(&fresh)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(fresh, path)
}

/// The present, in nanoseconds since the epoch.
#[must_use]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// When a process started, in clock ticks after boot; `None` when there is none (or only its corpse).
#[must_use]
pub fn process_start(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end: state is the first after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
