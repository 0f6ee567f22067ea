//! Starts one container: image, configuration, creation, start, postStart hook.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use corten_client::EventType;
use corten_runtime::{ContainerConfig, ContainerState, Image, Mount, Sandbox};

use crate::context::Context;
use crate::env::{self, Sources};
use crate::fields::Node;
use crate::handlers;
use crate::objects::Wake;
use crate::plan::{CONTAINER_HASH, CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID, hash};
use crate::pod::PodExt;
use crate::volumes::mounts::container_mounts;
use crate::{cgroups, names, security};

/// Annotations that let a later process, or another tool, know what the container was made from.
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Why a container does not run: reason and message of its status.
pub struct StartError {
    pub reason: &'static str,
    pub message: String,
    /// When a new try makes sense; the default of the worker when `None`.
    pub retry: Option<Timestamp>,
}

/// One container to start.
pub struct Order {
    pub ctx: Arc<Context>,
    pub pod: Arc<Pod>,
    pub sandbox: Sandbox,
    pub spec: Container,
    pub attempt: u32,
    pub pod_ips: Vec<IpAddr>,
    /// Container whose processes an ephemeral container sees.
    pub target: Option<String>,
    /// A container of this attempt that was made and never started.
    pub stale: Option<String>,
    pub wake: Arc<Wake>,
    pub cancelled: CancellationToken,
    /// Resolves when the container before this one was tried.
    pub before: Option<oneshot::Receiver<()>>,
}

impl Order {
    pub async fn run(mut self) -> Result<(), StartError> {
        let cancelled = self.cancelled.clone();
        let stopped = || StartError { reason: "ContainerCreating", message: String::new(), retry: None };
        // A pull may be given up at any moment; a container that is being made may not.
        let image = tokio::select! {
            () = cancelled.cancelled() => return Err(stopped()),
            image = self.image() => image?,
        };
        if let Some(before) = self.before.take() {
            tokio::select! {
                () = cancelled.cancelled() => return Err(stopped()),
                _ = before => {}
            }
        }
        let config = tokio::select! {
            () = cancelled.cancelled() => return Err(stopped()),
            config = self.config(&image) => config?,
        };
        if cancelled.is_cancelled() {
            return Err(stopped());
        }
        let id = self.create(&config).await?;
        self.collect().await;
        self.hook(&id, &cancelled).await
    }

    fn event(&self, kind: EventType, reason: &str, message: &str) {
        self.ctx.events.container(&self.pod, &self.spec.name, kind, reason, message);
    }

    /// Fails the start with an event `Failed`, as upstream words it.
    fn failed(&self, reason: &'static str, message: String, event: &str) -> StartError {
        self.event(EventType::Warning, "Failed", event);
        StartError { reason, message, retry: None }
    }

    async fn image(&self) -> Result<Image, StartError> {
        let mut secrets: Vec<Arc<Secret>> = Vec::new();
        let mut missing: Vec<&str> = Vec::new();
        for reference in self.pod.spec().image_pull_secrets.iter().flatten() {
            match self.ctx.volumes.secrets.get(self.pod.namespace(), &reference.name, &self.wake).await {
                Ok(secret) => secrets.push(secret),
                Err(err) => {
                    tracing::debug!(error = %err, "image pull secret");
                    missing.push(&reference.name);
                }
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.ctx.events.pod(&self.pod, EventType::Warning, "FailedToRetrieveImagePullSecret", &message);
        }
        self.ctx.images.ensure(&self.pod, &self.spec, &secrets, &self.ctx.events).await.map_err(|failure| {
            self.event(EventType::Warning, "Failed", &format!("Error: {}", failure.reason));
            StartError { reason: failure.reason, message: failure.message, retry: failure.retry }
        })
    }

    async fn config(&self, image: &Image) -> Result<ContainerConfig, StartError> {
        const REASON: &str = "CreateContainerConfigError";
        let refused = |message: String| {
            let event = format!("Error: {message}");
            self.failed(REASON, message, &event)
        };
        let (ctx, pod, spec) = (&self.ctx, &self.pod, &self.spec);
        security::check_non_root(pod, spec, &image.user).map_err(|err| refused(err.to_string()))?;
        let env = self.environment().await.map_err(|err| refused(err.to_string()))?;
        let mut mounts = container_mounts(&ctx.volumes, pod, spec, &env).map_err(refused)?;
        let io = |path: &Path, err: std::io::Error| refused(format!("{}: {err}", path.display()));
        self.hosts(&mut mounts).map_err(|(path, err)| io(&path, err))?;
        self.termination_log(&mut mounts).map_err(|(path, err)| io(&path, err))?;
        let labels =
            [(POD_NAME, pod.name()), (POD_NAMESPACE, pod.namespace()), (POD_UID, pod.uid()), (CONTAINER_NAME, &spec.name)];
        let grace = pod.spec().termination_grace_period_seconds.unwrap_or(30);
        let annotations = [
            (CONTAINER_HASH, hash(spec)),
            (RESTART_COUNT, self.attempt.to_string()),
            (TERMINATION_PATH, spec.termination_message_path.clone().unwrap_or_default()),
            (TERMINATION_POLICY, spec.termination_message_policy.clone().unwrap_or_default()),
            (GRACE_PERIOD, grace.to_string()),
        ];
        Ok(ContainerConfig {
            name: spec.name.clone(),
            attempt: self.attempt,
            image: spec
                .image
                .clone()
                .filter(|_| image.tags.iter().chain(&image.digests).any(|known| Some(known) == spec.image.as_ref()))
                .unwrap_or_else(|| image.id.clone()),
            command: env::expand_all(spec.command.as_ref(), &env),
            args: env::expand_all(spec.args.as_ref(), &env),
            working_dir: spec.working_dir.clone().unwrap_or_default(),
            env,
            mounts,
            devices: Vec::new(),
            log_path: PathBuf::from(&spec.name).join(format!("{}.log", self.attempt)),
            stdin: spec.stdin.unwrap_or(false),
            stdin_once: spec.stdin_once.unwrap_or(false),
            tty: spec.tty.unwrap_or(false),
            resources: cgroups::container(pod, spec, ctx.cgroup_node()),
            security: security::context(
                pod,
                spec,
                &ctx.config.root.join("seccomp"),
                ctx.config.seccomp_default,
                self.target.clone(),
            ),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            annotations: annotations.map(|(name, value)| (name.to_owned(), value)).into(),
            stop_signal: spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        })
    }

    async fn environment(&self) -> Result<Vec<(String, String)>, env::EnvError> {
        let (ctx, namespace) = (&self.ctx, self.pod.namespace());
        let (config_maps, secrets) = env::references(&self.spec);
        let mut found_maps = HashMap::new();
        for name in config_maps {
            let found = ctx.volumes.config_maps.get(namespace, &name, &self.wake).await;
            found_maps.insert(name, found);
        }
        let mut found_secrets = HashMap::new();
        for name in secrets {
            let found = ctx.volumes.secrets.get(namespace, &name, &self.wake).await;
            found_secrets.insert(name, found);
        }
        ctx.services.synced().await;
        let services = ctx.service_vars(namespace);
        let node = Node { host_ips: ctx.host_ips(), pod_ips: &self.pod_ips, allocatable: Some(&ctx.allocatable) };
        let sources = Sources { config_maps: &found_maps, secrets: &found_secrets, services: &services, node: &node };
        env::environment(&self.pod, &self.spec, &sources)
    }

    /// Writes the pod's hosts file and mounts it, unless the container brings its own.
    fn hosts(&self, mounts: &mut Vec<Mount>) -> Result<(), (PathBuf, std::io::Error)> {
        let target = Path::new("/etc/hosts");
        if mounts.iter().any(|mount| mount.container_path == target) {
            return Ok(());
        }
        let path = self.ctx.volumes.pod_dir(self.pod.uid()).join("etc-hosts");
        let host = if self.pod.host_network() {
            std::fs::read_to_string(self.ctx.config.host.etc.join("hosts")).unwrap_or_default()
        } else {
            String::new()
        };
        let text = names::hosts(&self.pod, &self.ctx.config.cluster_domain, &self.pod_ips, &host);
        let dir = self.ctx.volumes.pod_dir(self.pod.uid());
        std::fs::create_dir_all(&dir).map_err(|err| (dir, err))?;
        // Mounted into other containers already: the same text is not written again, and never by renaming.
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            std::fs::write(&path, text).map_err(|err| (path.clone(), err))?;
        }
        mounts.push(Mount { host_path: path, container_path: target.to_owned(), ..Mount::default() });
        Ok(())
    }

    /// A file of its own for the termination message of each run.
    fn termination_log(&self, mounts: &mut Vec<Mount>) -> Result<(), (PathBuf, std::io::Error)> {
        use std::os::unix::fs::PermissionsExt;
        let Some(target) = self.spec.termination_message_path.as_ref().filter(|path| !path.is_empty()) else { return Ok(()) };
        let dir = self.ctx.container_dir(self.pod.uid(), &self.spec.name);
        std::fs::create_dir_all(&dir).map_err(|err| (dir.clone(), err))?;
        let path = dir.join(format!("{:08x}", rand::random::<u32>()));
        std::fs::write(&path, []).map_err(|err| (path.clone(), err))?;
        // Whatever user the container runs as may write to it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).map_err(|err| (path.clone(), err))?;
        mounts.push(Mount { host_path: path, container_path: Path::new("/").join(target), ..Mount::default() });
        Ok(())
    }

    async fn create(&self, config: &ContainerConfig) -> Result<String, StartError> {
        let runtime = &self.ctx.runtime;
        if let Some(stale) = &self.stale {
            let removed = runtime.remove_container(stale).await;
            removed.map_err(|err| {
                self.failed("CreateContainerError", crate::chain(&err), &format!("Error: {}", crate::chain(&err)))
            })?;
        }
        let id = match runtime.create_container(&self.sandbox.id, config).await {
            Ok(id) => id,
            Err(err) => {
                let message = crate::chain(&err);
                let event = format!("Error: {message}");
                return Err(self.failed("CreateContainerError", message, &event));
            }
        };
        self.event(EventType::Normal, "Created", "Container created");
        let started = runtime.start_container(&id).await;
        // The cache learns of the container before the worker plans again, or it would start it twice.
        if let Err(err) = self.ctx.cache.observe(self.pod.uid(), &id).await {
            tracing::warn!(error = %crate::chain(&err), "observe a new container");
        }
        if let Err(err) = started {
            let message = crate::chain(&err);
            // An id would make every try an event of its own.
            let event = format!("Error: {}", message.replace(&id, &self.spec.name));
            return Err(self.failed("RunContainerError", message, &event));
        }
        self.event(EventType::Normal, "Started", "Container started");
        self.link_log(&id, config);
        Ok(id)
    }

    /// Removes the runs before the last one: the status shows two, and `kubectl logs -p` one.
    async fn collect(&self) {
        let old = self.ctx.cache.pod(self.pod.uid()).containers.into_iter().filter(|container| {
            container.name == self.spec.name && container.state == ContainerState::Exited && container.attempt + 1 < self.attempt
        });
        for container in old {
            crate::housekeeping::remove_container(&self.ctx, &container.id).await;
        }
    }

    /// The link under `/var/log/containers` that log collectors read the pod's names from.
    fn link_log(&self, id: &str, config: &ContainerConfig) {
        let Some(links) = &self.ctx.config.container_logs else { return };
        let pod = &self.pod;
        let log = self.ctx.log_dir(pod.namespace(), pod.name(), pod.uid()).join(&config.log_path);
        let link = links.join(format!("{}_{}_{}-{id}.log", pod.name(), pod.namespace(), self.spec.name));
        let made = std::fs::create_dir_all(links).and_then(|()| std::os::unix::fs::symlink(log, &link));
        if let Err(err) = made {
            tracing::debug!(error = %err, link = %link.display(), "link a container's log");
        }
    }

    async fn hook(&self, id: &str, cancelled: &CancellationToken) -> Result<(), StartError> {
        let Some(handler) = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        // The container runs: its status must not wait for the hook's end.
        self.wake.wake();
        let result = tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            result = handlers::run(&self.ctx, &self.pod, &self.spec, id, handler, &self.pod_ips) => result,
        };
        let Err(err) = result else { return Ok(()) };
        // The event must not tell what a server said, which may be a secret; the status is for who may read the pod.
        tracing::debug!(pod = %self.pod.described(), container = self.spec.name, error = %err, "postStart hook");
        self.event(EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        self.event(EventType::Normal, "Killing", "FailedPostStartHook");
        let grace = super::kill::grace(&self.pod, &self.spec.name, crate::plan::KillCause::Pod);
        if let Err(err) = self.ctx.runtime.stop_container(id, grace).await {
            tracing::warn!(error = %crate::chain(&err), "stop a container whose postStart hook failed");
        }
        if let Err(err) = self.ctx.cache.observe(self.pod.uid(), id).await {
            tracing::warn!(error = %crate::chain(&err), "observe a stopped container");
        }
        Err(StartError { reason: "PostStartHookError", message: err.to_string(), retry: Some(self.ctx.clock.now()) })
    }
}
