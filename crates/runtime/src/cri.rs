//! The seam between the kubelet and whatever runs containers: CRI's verbs and messages as plain Rust types.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// A future a trait object can return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, RuntimeError>> + Send + 'a>>;

/// Pod sandboxes and their containers.
pub trait Runtime: Send + Sync + 'static {
    /// Name and version, for the node's status (`corten://0.1.0`).
    fn version(&self) -> RuntimeVersion;

    /// Creates and starts a sandbox: namespaces, cgroup, shim; the network is attached by the caller afterwards through
    /// [`Sandbox::network_namespace`].
    fn run_sandbox<'a>(&'a self, config: &'a SandboxConfig) -> Answer<'a, Sandbox>;
    /// Stops all containers of the sandbox by force and lets its namespaces go. Idempotent.
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Stops and removes the sandbox, its containers and everything they held. Idempotent.
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// All sandboxes, also those of an earlier process.
    fn list_sandboxes(&self) -> Answer<'_, Vec<Sandbox>>;

    /// Prepares a container: root file system, specification, log file. The image must be present.
    fn create_container<'a>(&'a self, sandbox: &'a str, config: &'a ContainerConfig) -> Answer<'a, String>;
    /// Starts a created container.
    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Sends the stop signal, waits up to `grace`, then kills. Returns when the container has exited. Idempotent.
    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()>;
    /// Removes a container that is not running (or kills it first). Logs stay until the sandbox's log directory goes. Idempotent.
    fn remove_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// All containers, also those of an earlier process and those that have exited.
    fn list_containers(&self) -> Answer<'_, Vec<Container>>;
    /// One container.
    fn container_status<'a>(&'a self, id: &'a str) -> Answer<'a, Container>;
    /// Changes cgroup limits of a running container (in-place resize).
    fn update_resources<'a>(&'a self, id: &'a str, resources: &'a Resources) -> Answer<'a, ()>;
    /// Closes and reopens the log file at its path, after a rotation.
    fn reopen_log<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Usage from the cgroup, of one container.
    fn container_stats<'a>(&'a self, id: &'a str) -> Answer<'a, ContainerStats>;

    /// Runs a command in a container to its end, with its output kept (probes, hooks). Killed at `timeout`.
    fn exec_sync<'a>(&'a self, id: &'a str, command: &'a [String], timeout: Option<Duration>) -> Answer<'a, ExecOutput>;
    /// Runs a command in a container with streams attached.
    fn exec<'a>(&'a self, id: &'a str, request: &'a ExecRequest) -> Answer<'a, Process>;
    /// Attaches to the container's main process.
    fn attach<'a>(&'a self, id: &'a str, request: &'a AttachRequest) -> Answer<'a, Process>;
    /// Opens a TCP connection to a port on the sandbox's loopback address.
    fn port_forward<'a>(&'a self, sandbox: &'a str, port: u16) -> Answer<'a, Box<dyn Duplex>>;

    /// State changes of containers as they happen. A subscriber that lags (`RecvError::Lagged`) lists again.
    fn events(&self) -> tokio::sync::broadcast::Receiver<ContainerEvent>;
}

/// Images on this node.
pub trait Images: Send + Sync + 'static {
    /// Pulls an image and returns its id. `progress` of layers goes to the log.
    fn pull<'a>(&'a self, reference: &'a str, auth: Option<&'a RegistryAuth>) -> Answer<'a, String>;
    /// The image a reference, an id or a digest stands for, if present.
    fn find<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Image>>;
    /// All images.
    fn list(&self) -> Answer<'_, Vec<Image>>;
    /// Removes an image by reference (a tag) or by id (all of it). Fails with [`RuntimeError::InUse`] when a container needs it.
    fn remove<'a>(&'a self, reference: &'a str) -> Answer<'a, ()>;
    /// Imports an OCI layout or docker-archive tar file and returns the references it held.
    fn import<'a>(&'a self, tar: &'a std::path::Path) -> Answer<'a, Vec<String>>;
    /// Bytes and inodes used by images on disk.
    fn usage(&self) -> Answer<'_, FsUsage>;
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Who runs the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// Such as `corten` or `containerd`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a sandbox is to be. One pod attempt is one sandbox.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxConfig {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
    /// How often the sandbox of this pod was made before.
    pub attempt: u32,
    /// Host name inside (at most 63 characters).
    pub hostname: String,
    /// Directory that the log paths of containers are relative to.
    pub log_directory: PathBuf,
    /// Resolver configuration; `None` takes the node's file.
    pub dns: Option<DnsConfig>,
    /// cgroup of the pod below the root, such as `/kubepods/burstable/pod<uid>`; it is made when absent.
    pub cgroup_parent: String,
    /// Labels and annotations, kept for listing.
    pub labels: BTreeMap<String, String>,
    /// See `labels`.
    pub annotations: BTreeMap<String, String>,
    /// Which namespaces are shared.
    pub namespaces: NamespaceOptions,
    /// Kernel parameters to set in the sandbox's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// Sharing of namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NamespaceOptions {
    /// The node's network namespace instead of an own one.
    pub host_network: bool,
    /// The node's IPC namespace.
    pub host_ipc: bool,
    /// The node's PID namespace.
    pub host_pid: bool,
    /// One PID namespace for all containers of the pod.
    pub share_process_namespace: bool,
}

/// The content of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// A sandbox as it is.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its id (64 hex digits).
    pub id: String,
    /// As configured.
    pub name: String,
    /// As configured.
    pub namespace: String,
    /// As configured.
    pub uid: String,
    /// As configured.
    pub attempt: u32,
    /// Whether its namespaces and shim are alive.
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Bind-mounted network namespace; `None` on the host network.
    pub network_namespace: Option<PathBuf>,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
}

/// What a container is to be.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// Name in the pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// Image id or reference; present on the node.
    pub image: String,
    /// Overrides the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Overrides the image's arguments when not empty.
    pub args: Vec<String>,
    /// Overrides the image's working directory when not empty.
    pub working_dir: String,
    /// Environment in order; the image's own comes first and yields.
    pub env: Vec<(String, String)>,
    /// Bind mounts.
    pub mounts: Vec<Mount>,
    /// Devices of the host to pass.
    pub devices: Vec<Device>,
    /// Log file, relative to the sandbox's log directory.
    pub log_path: PathBuf,
    /// Keep stdin open.
    pub stdin: bool,
    /// Close stdin after the first attached client is gone.
    pub stdin_once: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// cgroup limits.
    pub resources: Resources,
    /// Security settings.
    pub security: SecurityContext,
    /// Kept for listing.
    pub labels: BTreeMap<String, String>,
    /// Kept for listing.
    pub annotations: BTreeMap<String, String>,
    /// Signal for a stop, such as `SIGTERM`; the image's when `None`.
    pub stop_signal: Option<String>,
}

/// A bind mount from the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// Path on the node.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Mounted read-only.
    pub readonly: bool,
    /// Read-only also below (`recursiveReadOnly`).
    pub recursive_readonly: bool,
    /// Propagation of mounts.
    pub propagation: Propagation,
}

/// Mount propagation, as in the pod API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Propagation {
    /// `None`: private.
    #[default]
    Private,
    /// `HostToContainer`: rslave.
    HostToContainer,
    /// `Bidirectional`: rshared.
    Bidirectional,
}

/// A device node to pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// Path on the node.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Of `rwm`.
    pub permissions: String,
}

/// cgroup limits, in CRI's units. Zero means unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds per period.
    pub cpu_quota: i64,
    /// Relative weight (cgroup v1 scale, 2 to 262144).
    pub cpu_shares: i64,
    /// Bytes.
    pub memory_limit: i64,
    /// -1000 to 1000.
    pub oom_score_adj: i64,
    /// cpuset.
    pub cpuset_cpus: String,
    /// cpuset.
    pub cpuset_mems: String,
    /// cgroup v2 files to set verbatim.
    pub unified: BTreeMap<String, String>,
    /// Huge page limits: page size (`2MB`) to bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// Process limit of the container; 0 is none.
    pub pids_limit: i64,
}

/// Security settings of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SecurityContext {
    /// All capabilities and devices, no seccomp, no masked paths.
    pub privileged: bool,
    /// Capabilities (without `CAP_`) added to the default set; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken from the default set; `ALL` for all.
    pub drop_capabilities: Vec<String>,
    /// User id; the image's when `None`.
    pub run_as_user: Option<i64>,
    /// Group id; needs `run_as_user` or the image's user.
    pub run_as_group: Option<i64>,
    /// User name, from the image's passwd.
    pub run_as_username: String,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether groups of the image's `/etc/group` count too (`Merge`) or not (`Strict`).
    pub supplemental_groups_strict: bool,
    /// Root file system read-only.
    pub readonly_rootfs: bool,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// seccomp profile.
    pub seccomp: SeccompProfile,
    /// `Unmasked` procMount.
    pub unmasked_proc: bool,
    /// Sharing of namespaces, as in the sandbox, or the container whose PID namespace is joined.
    pub namespaces: NamespaceOptions,
    /// Join the PID namespace of this container (ephemeral containers with a target).
    pub target_container: Option<String>,
}

/// seccomp, as in the pod API. The kubelet makes `RuntimeDefault` of an unset profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SeccompProfile {
    /// The runtime's default profile.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A profile file on the node.
    Localhost(PathBuf),
}

/// A container as it is.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its id (64 hex digits).
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// As configured.
    pub name: String,
    /// As configured.
    pub attempt: u32,
    /// Image as configured.
    pub image: String,
    /// Image id (digest of the image's configuration), such as `sha256:…`.
    pub image_id: String,
    /// A reference with digest for the status's `imageID`, when pulled; else the id.
    pub image_ref: String,
    /// State.
    pub state: ContainerState,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Nanoseconds since the epoch; 0 before.
    pub started_at: i64,
    /// Nanoseconds since the epoch; 0 before.
    pub finished_at: i64,
    /// Exit code, 128 + signal for a signal; meaningful when exited.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or empty.
    pub reason: String,
    /// Why it failed to start.
    pub message: String,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// Main process on the node, 0 when not running.
    pub pid: u32,
    /// Log file, absolute.
    pub log_path: PathBuf,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
    /// Limits in force.
    pub resources: Resources,
    /// Bind mounts in force.
    pub mounts: Vec<Mount>,
    /// User the process runs as (uid, gid, further groups), once known.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// Stop signal in force, such as `SIGTERM`.
    pub stop_signal: String,
}

/// A container's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended, or never started.
    Exited,
    /// Its shim is gone and nothing is known.
    Unknown,
}

/// A change of a container or sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// Created, started, exited or removed: look at the container (or the pod) again.
    Changed {
        /// UID of the pod.
        pod_uid: String,
        /// The container, empty when the sandbox itself changed.
        container: String,
    },
}

/// cgroup readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Nanoseconds since the epoch.
    pub timestamp: i64,
    /// CPU time, nanoseconds.
    pub cpu_usage: u64,
    /// Memory in use, bytes.
    pub memory_usage: u64,
    /// Memory in use without inactive file pages, bytes.
    pub memory_working_set: u64,
    /// Resident, bytes.
    pub memory_rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Major page faults.
    pub major_page_faults: u64,
    /// Writable layer.
    pub writable: FsUsage,
}

/// Use of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FsUsage {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A command to run with streams.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// The command.
    pub command: Vec<String>,
    /// Wants stdin.
    pub stdin: bool,
    /// Wants stdout.
    pub stdout: bool,
    /// Wants stderr (not with a terminal).
    pub stderr: bool,
    /// Wants a terminal.
    pub tty: bool,
}

/// Streams wanted from the main process.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachRequest {
    /// Wants stdin.
    pub stdin: bool,
    /// Wants stdout.
    pub stdout: bool,
    /// Wants stderr (not with a terminal).
    pub stderr: bool,
    /// The container has a terminal.
    pub tty: bool,
}

/// A process with its streams. Dropping `stdin` closes it.
pub struct Process {
    /// To the process.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// From the process (terminal output too).
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// From the process.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes; dropped or ignored without a terminal.
    pub resize: tokio::sync::mpsc::Sender<TerminalSize>,
    /// Resolves with the exit code (for attach: of the container) when all output has been sent.
    pub exit: Pin<Box<dyn Future<Output = Result<i32, RuntimeError>> + Send>>,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The result of a command run to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Bounded to 16 MiB, as in CRI.
    pub stdout: Vec<u8>,
    /// Bounded to 16 MiB.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

/// An image on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Digest of the configuration, `sha256:…`.
    pub id: String,
    /// References with a tag.
    pub tags: Vec<String>,
    /// References with a manifest digest.
    pub digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// User from the image's configuration (`uid[:gid]` or a name).
    pub user: String,
    /// Kept from garbage collection.
    pub pinned: bool,
}

/// Credentials for a registry. Never logged: `Debug` hides the secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A bearer token instead.
    pub registry_token: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why the runtime could not do it. The messages reach users through events and container statuses.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such sandbox, container or image.
    #[error("{what} {id:?}: not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        what: &'static str,
        /// The id asked for.
        id: String,
    },
    /// The command does not exist in the image or cannot be run: the container or the exec fails, the node is fine.
    #[error("{0}")]
    Start(String),
    /// The image could not be pulled, with the reason for the event: reference, registry, authorization, digest.
    #[error("failed to pull image {reference:?}: {why}")]
    Pull {
        /// The reference.
        reference: String,
        /// The cause in words.
        why: String,
    },
    /// The archive is no image.
    #[error("{path}: {why}")]
    BadArchive {
        /// The file.
        path: PathBuf,
        /// The cause in words.
        why: String,
    },
    /// A container uses the image.
    #[error("image {0:?} is in use by a container")]
    InUse(String),
    /// The command did not end in time.
    #[error("command timed out after {0:?}")]
    Timeout(Duration),
    /// Not possible in the present state.
    #[error("{0}")]
    Invalid(String),
    /// The system refused: what was done, to what, and why.
    #[error("{doing}")]
    System {
        /// `mount overlay at /…`
        doing: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync + 'static>,
    },
}
