//! The built-in OCI runtime. libcontainer makes containers; a shim per pod ([`shim`]) owns them; this side keeps what
//! is known of them in memory, writes records that a later process adopts, and speaks the seam's verbs.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_task::Tasks;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::cri::*;
use crate::images::users::Users;
use crate::images::{self, hosts::Registries};

mod adopt;
pub mod cgroup;
mod client;
mod container;
mod filter;
mod link;
pub mod protocol;
pub mod record;
mod sandbox;
pub mod shim;
mod spec;
mod streams;

use cgroup::Cgroups;
use protocol::{ReadyShim, Reply, Request, Stream};
use record::{ContainerRecord, SandboxPaths, SandboxRecord, Status};

/// Events kept for a subscriber that lags; beyond that it lists again.
const EVENTS: usize = 1024;

/// Where the runtime keeps things and how it starts shims.
#[derive(Clone, Debug)]
pub struct Config {
    /// Images and writable layers: on disk.
    pub root: PathBuf,
    /// Records, sockets and namespaces: on a tmpfs, such as `/run/corten`.
    pub state: PathBuf,
    /// The command that runs [`shim::main`]; the sandbox's directory is appended.
    pub shim: Vec<OsString>,
    /// Where control groups are mounted.
    pub cgroup_root: PathBuf,
    /// The cgroup of all shims; empty leaves each in this process's.
    pub shim_cgroup: String,
    /// Registries spoken to over plain HTTP, besides those on the loopback.
    pub insecure_registries: Vec<String>,
    /// Directory of `registries.yaml` and `certs.d`.
    pub registries: Option<PathBuf>,
}

impl Config {
    /// With defaults for all but the places and the shim.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>, shim: Vec<OsString>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
            shim,
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            shim_cgroup: "/corten/shims".to_owned(),
            insecure_registries: Vec::new(),
            registries: None,
        }
    }
}

/// The built-in runtime. Clones share one.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    cgroups: Cgroups,
    registries: Registries,
    images: Arc<images::Store>,
    /// Users of images, by the image's id.
    users: Mutex<HashMap<String, Arc<Users>>>,
    sandboxes: Mutex<BTreeMap<String, Arc<SandboxEntry>>>,
    containers: Mutex<BTreeMap<String, Arc<ContainerEntry>>>,
    events: broadcast::Sender<ContainerEvent>,
    tasks: Tasks,
    /// This program on a read-only mount, for shims.
    program: Option<OwnedFd>,
}

/// A sandbox as known here.
struct SandboxEntry {
    record: SandboxRecord,
    paths: SandboxPaths,
    shim: ReadyShim,
    /// Whether its shim lives.
    ready: watch::Sender<bool>,
}

/// A container as known here.
struct ContainerEntry {
    record: Mutex<ContainerRecord>,
    status: watch::Sender<Status>,
    /// Use of the writable layer and when it was measured.
    writable: Mutex<Option<(Instant, FsUsage)>>,
}

impl Embedded {
    /// Opens the runtime, adopts the sandboxes and containers of an earlier process, and clears away what is half made
    /// or dead. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the directories, the image index or the control groups cannot be used.
    pub fn open(config: Config, tasks: &Tasks) -> Result<Self, RuntimeError> {
        let at = |path: &Path| {
            let doing = format!("open {}", path.display());
            move |source: io::Error| images::system(&doing, source)
        };
        for directory in [config.state.join("sandboxes"), config.state.join("netns"), config.root.join("containers")] {
            std::fs::create_dir_all(&directory).map_err(at(&directory))?;
        }
        // Others on the machine have no business with images' set-user-id programs or with shims' sockets.
        for directory in [&config.state.join("sandboxes"), &config.root] {
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            std::fs::set_permissions(directory, private).map_err(at(directory))?;
        }
        let images = images::Store::open(&config.root.join("images")).map_err(at(&config.root.join("images")))?;
        let cgroups = Cgroups::detect(&config.cgroup_root).map_err(at(&config.cgroup_root))?;
        let program = config.shim.first().and_then(|program| corten_sys::mount::readonly_clone(Path::new(program)).ok());
        let inner = Inner {
            registries: Registries { insecure: config.insecure_registries.clone(), directory: config.registries.clone() },
            images: Arc::new(images),
            users: Mutex::default(),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            tasks: tasks.child("runtime"),
            cgroups,
            program,
            config,
        };
        let runtime = Self { inner: Arc::new(inner) };
        adopt::adopt(&runtime.inner).map_err(|source| images::system("adopt the containers of an earlier process", source))?;
        Ok(runtime)
    }
}

impl Inner {
    fn sandbox(&self, id: &str) -> Result<Arc<SandboxEntry>, RuntimeError> {
        let found = self.sandboxes.lock().get(id).cloned();
        found.ok_or_else(|| RuntimeError::NotFound { what: "sandbox", id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<Arc<ContainerEntry>, RuntimeError> {
        let found = self.containers.lock().get(id).cloned();
        found.ok_or_else(|| RuntimeError::NotFound { what: "container", id: id.to_owned() })
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<ContainerEntry>> {
        let containers = self.containers.lock();
        containers.values().filter(|entry| entry.record.lock().sandbox == sandbox).cloned().collect()
    }

    fn announce(&self, pod_uid: &str, container: &str) {
        let event = ContainerEvent::Changed { pod_uid: pod_uid.to_owned(), container: container.to_owned() };
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// A container's sandbox directory and the entry, for requests to its shim.
    fn shim_of(&self, container: &str) -> Result<(Arc<ContainerEntry>, PathBuf), RuntimeError> {
        let entry = self.container(container)?;
        let sandbox = entry.record.lock().sandbox.clone();
        let directory = self.sandbox(&sandbox)?.paths.directory.clone();
        Ok((entry, directory))
    }
}

impl ContainerEntry {
    fn new(record: ContainerRecord, status: Status) -> Self {
        Self { record: Mutex::new(record), status: watch::Sender::new(status), writable: Mutex::default() }
    }

    /// Takes news of the container. An end is final: news that come late are old.
    fn learn(&self, news: Status) -> bool {
        self.status.send_if_modified(|known| {
            let changes = known.state != ContainerState::Exited && *known != news;
            if changes {
                *known = news;
            }
            changes
        })
    }
}

/// `PATH` for containers whose image sets none.
fn shim_default_path() -> &'static str {
    shim::DEFAULT_PATH
}

/// Runs file system work off the reactor's threads.
async fn blocking<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RuntimeError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(io::Error::other).and_then(|result| result).map_err(|source| images::system(doing, source))
}

impl Runtime for Embedded {
    fn version(&self) -> RuntimeVersion {
        RuntimeVersion { name: "corten".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    fn run_sandbox<'a>(&'a self, config: &'a SandboxConfig) -> Answer<'a, Sandbox> {
        Box::pin(sandbox::run(&self.inner, config))
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(sandbox::stop(&self.inner, id))
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(sandbox::remove(&self.inner, id))
    }

    fn list_sandboxes(&self) -> Answer<'_, Vec<Sandbox>> {
        let all = self.inner.sandboxes.lock().values().map(|entry| sandbox::describe(entry)).collect();
        Box::pin(async move { Ok(all) })
    }

    fn create_container<'a>(&'a self, sandbox: &'a str, config: &'a ContainerConfig) -> Answer<'a, String> {
        Box::pin(container::create(&self.inner, sandbox, config))
    }

    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(container::start(&self.inner, id))
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()> {
        Box::pin(container::stop(&self.inner, id, grace))
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(container::remove(&self.inner, id))
    }

    fn list_containers(&self) -> Answer<'_, Vec<Container>> {
        let all = self.inner.containers.lock().values().map(|entry| container::describe(entry)).collect();
        Box::pin(async move { Ok(all) })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> Answer<'a, Container> {
        Box::pin(async move { Ok(container::describe(&*self.inner.container(id)?)) })
    }

    fn update_resources<'a>(&'a self, id: &'a str, resources: &'a Resources) -> Answer<'a, ()> {
        Box::pin(container::update(&self.inner, id, resources))
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let (_, directory) = self.inner.shim_of(id)?;
            client::ask(&directory, &Request::ReopenLog { container: id.to_owned() }).await.map(drop)
        })
    }

    fn container_stats<'a>(&'a self, id: &'a str) -> Answer<'a, ContainerStats> {
        Box::pin(container::stats(&self.inner, id))
    }

    fn exec_sync<'a>(&'a self, id: &'a str, command: &'a [String], timeout: Option<Duration>) -> Answer<'a, ExecOutput> {
        Box::pin(async move {
            let request = ExecRequest { command: command.to_vec(), stdout: true, stderr: true, ..ExecRequest::default() };
            let process = container::exec(&self.inner, id, &request).await?;
            streams::collect(process, timeout).await
        })
    }

    fn exec<'a>(&'a self, id: &'a str, request: &'a ExecRequest) -> Answer<'a, Process> {
        Box::pin(container::exec(&self.inner, id, request))
    }

    fn attach<'a>(&'a self, id: &'a str, request: &'a AttachRequest) -> Answer<'a, Process> {
        Box::pin(container::attach(&self.inner, id, request))
    }

    fn port_forward<'a>(&'a self, sandbox: &'a str, port: u16) -> Answer<'a, Box<dyn Duplex>> {
        Box::pin(sandbox::port_forward(&self.inner, sandbox, port))
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }
}

impl Images for Embedded {
    fn pull<'a>(&'a self, reference: &'a str, auth: Option<&'a RegistryAuth>) -> Answer<'a, String> {
        Box::pin(images::registry::pull(&self.inner.images, &self.inner.registries, reference, auth))
    }

    fn find<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Image>> {
        let found = self.inner.images.find(reference).map(|image| self.inner.images.describe(&image));
        Box::pin(async move { Ok(found) })
    }

    fn list(&self) -> Answer<'_, Vec<Image>> {
        let all = self.inner.images.list();
        Box::pin(async move { Ok(all) })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let (inner, reference) = (self.inner.clone(), reference.to_owned());
            let removed = tokio::task::spawn_blocking(move || {
                let used = |id: &str| inner.containers.lock().values().any(|entry| entry.record.lock().image_id == id);
                inner.images.remove(&reference, used)
            });
            removed.await.map_err(|err| images::system("remove the image", io::Error::other(err)))?
        })
    }

    fn import<'a>(&'a self, tar: &'a Path) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let _adding = self.inner.images.adding().await;
            let (store, path) = (self.inner.images.clone(), tar.to_owned());
            let imported = tokio::task::spawn_blocking(move || images::archive::import(&store, &path)).await;
            let why = |why: String| RuntimeError::BadArchive { path: tar.to_owned(), why };
            imported.map_err(|err| why(err.to_string()))?.map_err(|err| why(err.to_string()))
        })
    }

    fn usage(&self) -> Answer<'_, FsUsage> {
        let usage = self.inner.images.usage();
        Box::pin(async move { Ok(usage) })
    }
}
