//! Lifecycle hooks: exec, httpGet and sleep.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::context::Context;
use crate::http::{Get, get};
use crate::pod::PodExt;

/// A hook did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("exec lifecycle hook ({command:?}) failed: {why}")]
    Exec { command: Vec<String>, why: String },
    #[error("http lifecycle hook ({path}) failed: {why}")]
    Http { path: String, why: String },
    #[error("invalid handler")]
    Invalid,
}

/// Runs a hook to its end. The caller sets the limit of time.
pub async fn run(
    ctx: &Context,
    pod: &Pod,
    spec: &Container,
    id: &str,
    handler: &LifecycleHandler,
    ips: &[IpAddr],
) -> Result<(), HookError> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match ctx.runtime.exec_sync(id, &command, None).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let why = format!("exited with {}: {text}", output.exit_code);
                Err(HookError::Exec { command, why })
            }
            Err(err) => Err(HookError::Exec { command, why: crate::chain(&err) }),
        };
    }
    if let Some(action) = &handler.http_get {
        let path = action.path.clone().unwrap_or_else(|| "/".to_owned());
        let request = http_request(pod, spec, action, ips, ctx.host_ips(), "kube-lifecycle/1.36");
        let request = request.map_err(|why| HookError::Http { path: path.clone(), why })?;
        // Any answer will do.
        let answer = get(&request, Duration::from_secs(3600)).await;
        return answer.map(drop).map_err(|why| HookError::Http { path, why });
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(HookError::Invalid)
}

/// The request that an `httpGet` action stands for.
pub fn http_request(
    pod: &Pod,
    spec: &Container,
    action: &HTTPGetAction,
    pod_ips: &[IpAddr],
    host_ips: &[IpAddr],
    agent: &'static str,
) -> Result<Get, String> {
    let headers = action.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    Ok(Get {
        https: action.scheme.as_deref() == Some("HTTPS"),
        host: target(pod, action.host.as_deref(), pod_ips, host_ips),
        port: port(spec, &action.port)?,
        path: action.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        headers: headers.collect(),
        agent,
    })
}

/// The host an action names, or the pod's address.
pub fn target(pod: &Pod, host: Option<&str>, pod_ips: &[IpAddr], host_ips: &[IpAddr]) -> String {
    let own = if pod.host_network() { host_ips } else { pod_ips };
    match host.filter(|host| !host.is_empty()) {
        Some(host) => host.to_owned(),
        None => own.first().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The number of a port given by number or name.
pub fn port(spec: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = spec.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| match port {
        IntOrString::String(name) => format!("couldn't find port: {name:?}"),
        IntOrString::Int(_) => "invalid port".to_owned(),
    })?;
    u16::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| format!("invalid port number: {number}"))
}
