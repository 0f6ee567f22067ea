//! A container runtime, image store and pod network in memory, with levers for tests: containers exit when told to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use corten_network::{Attachment, HostPort, PodNetwork};
use corten_runtime::{
    Answer, AttachRequest, Container, ContainerConfig, ContainerEvent, ContainerState, ContainerStats, Duplex, ExecOutput,
    ExecRequest, FsUsage, Image, Images, Process, RegistryAuth, Resources, Runtime, RuntimeError, RuntimeVersion, Sandbox,
    SandboxConfig,
};

use crate::clock::Clock;

/// The runtime. Clones share it.
#[derive(Clone)]
pub struct FakeRuntime {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<ContainerEvent>,
    clock: Clock,
}

#[derive(Default)]
struct Inner {
    serial: u64,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    configs: HashMap<String, ContainerConfig>,
    images: BTreeMap<String, Image>,
    /// Everything that was asked, in order.
    calls: Vec<String>,
    /// Containers that ignore their stop signal.
    stubborn: HashSet<String>,
    /// Exit codes of commands run by exec, by the first word.
    exec_codes: HashMap<String, i32>,
    /// Images that can be pulled, with the password they want.
    registry: HashMap<String, Option<String>>,
    attached: HashSet<String>,
    /// Where a sandbox's containers log.
    log_directories: HashMap<String, std::path::PathBuf>,
    pub start_failure: Option<String>,
}

impl FakeRuntime {
    pub fn new(clock: Clock) -> Self {
        let fake = Self { inner: Arc::default(), events: broadcast::channel(1024).0, clock };
        fake.add_image("image:1");
        fake
    }

    pub fn add_image(&self, tag: &str) {
        let image = Image {
            id: format!("sha256:{tag}"),
            tags: vec![tag.to_owned()],
            digests: vec![format!("{tag}@sha256:0")],
            size: 1000,
            ..Image::default()
        };
        self.inner.lock().images.insert(image.id.clone(), image);
    }

    /// Lets `tag` be pulled, with `password` if given.
    pub fn publish(&self, tag: &str, password: Option<&str>) {
        self.inner.lock().registry.insert(tag.to_owned(), password.map(str::to_owned));
    }

    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().calls.clone()
    }

    pub fn clear_calls(&self) {
        self.inner.lock().calls.clear();
    }

    pub fn fail_start(&self, why: Option<&str>) {
        self.inner.lock().start_failure = why.map(str::to_owned);
    }

    pub fn exec_code(&self, command: &str, code: i32) {
        self.inner.lock().exec_codes.insert(command.to_owned(), code);
    }

    pub fn make_stubborn(&self, name: &str) {
        self.inner.lock().stubborn.insert(name.to_owned());
    }

    /// The newest container of a name.
    pub fn container(&self, name: &str) -> Option<Container> {
        let inner = self.inner.lock();
        inner.containers.values().filter(|container| container.name == name).max_by_key(|container| container.attempt).cloned()
    }

    pub fn config(&self, name: &str) -> ContainerConfig {
        let id = self.container(name).expect("the container").id;
        self.inner.lock().configs[&id].clone()
    }

    /// As if the machine had been off: nothing is left of any sandbox.
    pub fn forget_everything(&self) {
        let mut inner = self.inner.lock();
        inner.sandboxes.clear();
        inner.containers.clear();
        inner.attached.clear();
    }

    pub fn sandboxes(&self) -> usize {
        self.inner.lock().sandboxes.len()
    }

    pub fn attachments(&self) -> usize {
        self.inner.lock().attached.len()
    }

    /// Ends the newest container of a name.
    pub fn exit(&self, name: &str, code: i32) {
        let id = self.container(name).expect("the container").id;
        self.end(&id, code, "");
    }

    fn end(&self, id: &str, code: i32, reason: &str) {
        let uid = {
            let mut inner = self.inner.lock();
            let now = self.nanos();
            let Some(container) = inner.containers.get_mut(id) else { return };
            if container.state == ContainerState::Exited {
                return;
            }
            container.state = ContainerState::Exited;
            container.exit_code = code;
            container.reason = reason.to_owned();
            container.finished_at = now;
            let sandbox = container.sandbox.clone();
            inner.sandboxes.get(&sandbox).map(|sandbox| sandbox.uid.clone()).unwrap_or_default()
        };
        self.tell(uid, id.to_owned());
    }

    fn tell(&self, pod_uid: String, container: String) {
        // Nobody may be listening.
        let _ = self.events.send(ContainerEvent::Changed { pod_uid, container });
    }

    fn nanos(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).expect("in range")
    }

    fn call(&self, text: String) {
        self.inner.lock().calls.push(text);
    }

    fn name_of(&self, id: &str) -> String {
        self.inner.lock().containers.get(id).map(|container| container.name.clone()).unwrap_or_default()
    }
}

/// Makes a container's log file.
fn open_log(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("in a directory")).expect("makes the log's directory");
    std::fs::File::options().create(true).append(true).open(path).expect("makes the log");
}

fn missing(what: &'static str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { what, id: id.to_owned() }
}

impl Runtime for FakeRuntime {
    fn version(&self) -> RuntimeVersion {
        RuntimeVersion { name: "corten".to_owned(), version: "0.0.0".to_owned() }
    }

    fn run_sandbox<'a>(&'a self, config: &'a SandboxConfig) -> Answer<'a, Sandbox> {
        Box::pin(async move {
            self.call(format!("run_sandbox {}#{}", config.name, config.attempt));
            let created_at = self.nanos();
            let mut inner = self.inner.lock();
            inner.serial += 1;
            let sandbox = Sandbox {
                id: format!("sandbox{}", inner.serial),
                name: config.name.clone(),
                namespace: config.namespace.clone(),
                uid: config.uid.clone(),
                attempt: config.attempt,
                ready: true,
                created_at,
                network_namespace: (!config.namespaces.host_network).then(|| format!("/run/netns/{}", inner.serial).into()),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            };
            inner.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
            inner.log_directories.insert(sandbox.id.clone(), config.log_directory.clone());
            Ok(sandbox)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.call("stop_sandbox".to_owned());
            let mut uid = String::new();
            let inside: Vec<String> = {
                let mut inner = self.inner.lock();
                if let Some(sandbox) = inner.sandboxes.get_mut(id) {
                    sandbox.ready = false;
                    uid.clone_from(&sandbox.uid);
                }
                inner
                    .containers
                    .values()
                    .filter(|container| container.sandbox == id)
                    .map(|container| container.id.clone())
                    .collect()
            };
            self.tell(uid, String::new());
            for container in inside {
                self.end(&container, 137, "");
            }
            Ok(())
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.call("remove_sandbox".to_owned());
            let mut inner = self.inner.lock();
            inner.sandboxes.remove(id);
            inner.containers.retain(|_, container| container.sandbox != id);
            Ok(())
        })
    }

    fn list_sandboxes(&self) -> Answer<'_, Vec<Sandbox>> {
        Box::pin(async move { Ok(self.inner.lock().sandboxes.values().cloned().collect()) })
    }

    fn create_container<'a>(&'a self, sandbox: &'a str, config: &'a ContainerConfig) -> Answer<'a, String> {
        Box::pin(async move {
            self.call(format!("create {}#{}", config.name, config.attempt));
            let created_at = self.nanos();
            let mut inner = self.inner.lock();
            inner.serial += 1;
            let id = format!("{}-{}", config.name, inner.serial);
            let container = Container {
                id: id.clone(),
                sandbox: sandbox.to_owned(),
                name: config.name.clone(),
                attempt: config.attempt,
                image: config.image.clone(),
                image_id: format!("sha256:{}", config.image),
                image_ref: format!("{}@sha256:0", config.image),
                state: ContainerState::Created,
                created_at,
                started_at: 0,
                finished_at: 0,
                exit_code: 0,
                reason: String::new(),
                message: String::new(),
                signal: 0,
                pid: 0,
                log_path: inner.log_directories[sandbox].join(&config.log_path),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                resources: config.resources.clone(),
                mounts: config.mounts.clone(),
                user: Some((0, 0, vec![0])),
                stop_signal: "SIGTERM".to_owned(),
            };
            inner.containers.insert(id.clone(), container);
            inner.configs.insert(id.clone(), config.clone());
            Ok(id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.call(format!("start {}", self.name_of(id)));
            let now = self.nanos();
            let mut inner = self.inner.lock();
            if let Some(why) = inner.start_failure.clone() {
                let container = inner.containers.get_mut(id).ok_or_else(|| missing("container", id))?;
                container.state = ContainerState::Exited;
                container.exit_code = 128;
                container.reason = "StartError".to_owned();
                container.message.clone_from(&why);
                container.finished_at = now;
                return Err(RuntimeError::Start(why));
            }
            let container = inner.containers.get_mut(id).ok_or_else(|| missing("container", id))?;
            container.state = ContainerState::Running;
            container.started_at = now;
            open_log(&container.log_path);
            Ok(())
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let name = self.name_of(id);
            self.call(format!("stop {name} {}s", grace.as_secs_f64().round()));
            if self.inner.lock().stubborn.contains(&name) {
                tokio::time::sleep(grace).await;
                self.end(id, 137, "");
            } else {
                self.end(id, 143, "");
            }
            Ok(())
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.call(format!("remove {}", self.name_of(id)));
            self.inner.lock().containers.remove(id);
            Ok(())
        })
    }

    fn list_containers(&self) -> Answer<'_, Vec<Container>> {
        Box::pin(async move { Ok(self.inner.lock().containers.values().cloned().collect()) })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> Answer<'a, Container> {
        Box::pin(async move { self.inner.lock().containers.get(id).cloned().ok_or_else(|| missing("container", id)) })
    }

    fn update_resources<'a>(&'a self, id: &'a str, resources: &'a Resources) -> Answer<'a, ()> {
        Box::pin(async move {
            self.call(format!("update {} cpu={}", self.name_of(id), resources.cpu_shares));
            let mut inner = self.inner.lock();
            inner.containers.get_mut(id).ok_or_else(|| missing("container", id))?.resources = resources.clone();
            Ok(())
        })
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.call(format!("reopen_log {}", self.name_of(id)));
            open_log(&self.inner.lock().containers[id].log_path);
            Ok(())
        })
    }

    fn container_stats<'a>(&'a self, _: &'a str) -> Answer<'a, ContainerStats> {
        Box::pin(async { Ok(ContainerStats { cpu_usage: 5, memory_working_set: 7, ..ContainerStats::default() }) })
    }

    fn exec_sync<'a>(&'a self, id: &'a str, command: &'a [String], _: Option<Duration>) -> Answer<'a, ExecOutput> {
        Box::pin(async move {
            self.call(format!("exec {} {}", self.name_of(id), command.join(" ")));
            let code = command.first().and_then(|word| self.inner.lock().exec_codes.get(word).copied()).unwrap_or(0);
            Ok(ExecOutput { stdout: b"output".to_vec(), stderr: Vec::new(), exit_code: code })
        })
    }

    fn exec<'a>(&'a self, _: &'a str, request: &'a ExecRequest) -> Answer<'a, Process> {
        Box::pin(async move {
            // `cat`: what comes in goes out, and the word `fail` sets the exit code.
            let (stdin, mut process_in) = tokio::io::duplex(1024);
            let (mut process_out, stdout) = tokio::io::duplex(1024);
            let words = request.command.join(" ");
            let (resize, mut sizes) = tokio::sync::mpsc::channel(4);
            let wants_stdin = request.stdin;
            let tty = request.tty;
            let exit = Box::pin(async move {
                use tokio::io::AsyncWriteExt;
                if tty && let Some(size) = sizes.recv().await {
                    let size: corten_runtime::TerminalSize = size;
                    process_out.write_all(format!("{}x{}\n", size.width, size.height).as_bytes()).await.expect("written");
                }
                process_out.write_all(format!("ran {words}\n").as_bytes()).await.expect("written");
                if wants_stdin {
                    tokio::io::copy(&mut process_in, &mut process_out).await.expect("copied");
                }
                drop(process_out);
                Ok(if words.contains("fail") { 3 } else { 0 })
            });
            Ok(Process {
                stdin: wants_stdin.then(|| Box::new(stdin) as _),
                stdout: Some(Box::new(stdout)),
                stderr: None,
                resize,
                exit,
            })
        })
    }

    fn attach<'a>(&'a self, id: &'a str, request: &'a AttachRequest) -> Answer<'a, Process> {
        Box::pin(async move {
            let exec = ExecRequest {
                command: vec!["attached".to_owned()],
                stdin: request.stdin,
                stdout: true,
                stderr: false,
                tty: false,
            };
            self.exec(id, &exec).await
        })
    }

    fn port_forward<'a>(&'a self, _: &'a str, port: u16) -> Answer<'a, Box<dyn Duplex>> {
        Box::pin(async move {
            if port == 1 {
                return Err(RuntimeError::Invalid("connection refused".to_owned()));
            }
            let (near, mut far) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = far.read(&mut buffer).await {
                    far.write_all(&buffer[..count].to_ascii_uppercase()).await.expect("written");
                }
            });
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

impl Images for FakeRuntime {
    fn pull<'a>(&'a self, reference: &'a str, auth: Option<&'a RegistryAuth>) -> Answer<'a, String> {
        Box::pin(async move {
            self.call(format!("pull {reference} {}", auth.map_or("anonymous", |auth| auth.username.as_str())));
            let wanted = self.inner.lock().registry.get(reference).cloned();
            let refused = |why: &str| RuntimeError::Pull { reference: reference.to_owned(), why: why.to_owned() };
            match wanted {
                None => Err(refused("not found")),
                Some(Some(password)) if auth.is_none_or(|auth| auth.password != password) => Err(refused("unauthorized")),
                Some(_) => {
                    self.add_image(reference);
                    Ok(format!("sha256:{reference}"))
                }
            }
        })
    }

    fn find<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Image>> {
        Box::pin(async move {
            let inner = self.inner.lock();
            Ok(inner
                .images
                .values()
                .find(|image| image.id == reference || image.tags.iter().any(|tag| tag == reference))
                .cloned())
        })
    }

    fn list(&self) -> Answer<'_, Vec<Image>> {
        Box::pin(async move { Ok(self.inner.lock().images.values().cloned().collect()) })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.inner.lock().images.remove(reference);
            Ok(())
        })
    }

    fn import<'a>(&'a self, _: &'a Path) -> Answer<'a, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn usage(&self) -> Answer<'_, FsUsage> {
        Box::pin(async { Ok(FsUsage::default()) })
    }
}

impl PodNetwork for FakeRuntime {
    fn attach<'a>(&'a self, sandbox: &'a str, _: &'a Path, _: &'a [HostPort]) -> corten_network::Answer<'a, Attachment> {
        Box::pin(async move {
            self.inner.lock().attached.insert(sandbox.to_owned());
            let number: u8 = sandbox.trim_start_matches("sandbox").parse().unwrap_or(1);
            Ok(Attachment { ips: vec![std::net::IpAddr::from([10, 42, 0, number])] })
        })
    }

    fn detach<'a>(&'a self, sandbox: &'a str, _: Option<&'a Path>) -> corten_network::Answer<'a, ()> {
        Box::pin(async move {
            self.inner.lock().attached.remove(sandbox);
            Ok(())
        })
    }

    fn reconcile<'a>(&'a self, live: &'a [String]) -> corten_network::Answer<'a, ()> {
        Box::pin(async move {
            self.inner.lock().attached.retain(|sandbox| live.contains(sandbox));
            Ok(())
        })
    }
}
