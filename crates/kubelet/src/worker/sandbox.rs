//! Makes the sandbox of a pod and attaches it to the network.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use corten_client::EventType;
use corten_network::{HostPort, Protocol};
use corten_runtime::{Sandbox, SandboxConfig};

use super::{Done, Worker};
use crate::cgroups;
use crate::context::Context;
use crate::names;
use crate::plan::{POD_NAME, POD_NAMESPACE, POD_UID};
use crate::pod::PodExt;
use crate::security;

impl Worker {
    pub(super) fn make_sandbox(&mut self, attempt: u32) {
        self.making_sandbox = true;
        let old: Vec<Sandbox> = self.seen.sandboxes.clone();
        if !old.is_empty() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.ctx.events.pod(&self.pod, EventType::Normal, "SandboxChanged", message);
        }
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.operations.push(Box::pin(async move { Done::Sandbox(make(&ctx, &pod, attempt, &old).await) }));
    }

    /// Learns the addresses of a sandbox that an earlier process made.
    pub(super) fn attach_again(&mut self) {
        let Some(sandbox) = self.seen.sandboxes.first().cloned() else { return };
        self.making_sandbox = true;
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.operations.push(Box::pin(async move {
            let ips = attach(&ctx, &pod, &sandbox).await;
            Done::Sandbox(ips.map(|ips| (sandbox, ips)))
        }));
    }
}

async fn make(ctx: &Arc<Context>, pod: &Pod, attempt: u32, old: &[Sandbox]) -> Result<(Sandbox, Vec<IpAddr>), String> {
    for sandbox in old {
        ctx.network.detach(&sandbox.id, sandbox.network_namespace.as_deref()).await.map_err(|err| crate::chain(&err))?;
        ctx.runtime.stop_sandbox(&sandbox.id).await.map_err(|err| crate::chain(&err))?;
        // Its containers stay: their exit codes are still to be reported.
    }
    let config = config(ctx, pod, attempt)?;
    std::fs::create_dir_all(&config.log_directory).map_err(|err| format!("{}: {err}", config.log_directory.display()))?;
    limit(ctx, pod);
    let sandbox = ctx.runtime.run_sandbox(&config).await.map_err(|err| crate::chain(&err))?;
    match attach(ctx, pod, &sandbox).await {
        Ok(ips) => Ok((sandbox, ips)),
        Err(message) => {
            // A sandbox without a network is of no use; the next try makes its own.
            if let Err(err) = ctx.runtime.remove_sandbox(&sandbox.id).await {
                tracing::warn!(error = %crate::chain(&err), "remove a sandbox without network");
            }
            Err(message)
        }
    }
}

/// Makes the pod's cgroup and sets its limits. A node where that fails still runs the pod.
pub(super) fn limit(ctx: &Context, pod: &Pod) {
    if !ctx.config.host.manage {
        return;
    }
    let path = cgroups::pod_path(&ctx.config.cgroup_root, pod);
    let limits = cgroups::pod_limits(pod, ctx.config.pod_pids_limit);
    if let Err(err) = ctx.cgroups.create(&path).and_then(|()| ctx.cgroups.limit(&path, &limits)) {
        tracing::warn!(error = %crate::chain(&err), "limit a pod");
    }
}

async fn attach(ctx: &Context, pod: &Pod, sandbox: &Sandbox) -> Result<Vec<IpAddr>, String> {
    if pod.host_network() {
        return Ok(ctx.host_ips().to_vec());
    }
    let Some(netns) = &sandbox.network_namespace else {
        return Err("the sandbox has no network namespace".to_owned());
    };
    let attachment = ctx.network.attach(&sandbox.id, netns, &host_ports(pod)).await;
    attachment.map(|attachment| attachment.ips).map_err(|err| format!("failed to set up network: {}", crate::chain(&err)))
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let sidecars = pod.init_containers().iter().filter(|container| crate::pod::is_sidecar(container));
    let ports = pod.spec().containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
            Some(HostPort {
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                host_port: number(port.host_port?)?,
                container_port: number(port.container_port)?,
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect()
}

fn config(ctx: &Context, pod: &Pod, attempt: u32) -> Result<SandboxConfig, String> {
    let domain = &ctx.config.cluster_domain;
    let hostname = names::kernel_hostname(pod, domain, &ctx.config.node_name).map_err(|err| err.to_string())?;
    let (dns, warnings) = names::resolver(pod, &ctx.config.cluster_dns, domain, &ctx.host_resolver());
    for (reason, message) in warnings {
        if reason == names::MISSING {
            ctx.events.node(EventType::Warning, reason, names::NO_CLUSTER_DNS);
        }
        ctx.events.pod(pod, EventType::Warning, reason, &message);
    }
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    for (name, value) in [(POD_NAME, pod.name()), (POD_NAMESPACE, pod.namespace()), (POD_UID, pod.uid())] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    let sysctls = pod.spec().security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    Ok(SandboxConfig {
        name: pod.name().to_owned(),
        namespace: pod.namespace().to_owned(),
        uid: pod.uid().to_owned(),
        attempt,
        hostname,
        log_directory: ctx.log_dir(pod.namespace(), pod.name(), pod.uid()),
        dns: Some(dns),
        cgroup_parent: cgroups::pod_path(&ctx.config.cgroup_root, pod),
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        namespaces: security::namespaces(pod),
        sysctls: sysctls.into_iter().flatten().map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone())).collect(),
    })
}
