//! Lifecycle hooks: exec, httpGet and sleep.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use corten_client::EventType;

use crate::context::Context;
use crate::fields::quote;
use crate::http::{Get, PLAIN_ANSWER, get};
use crate::pod::PodExt;

/// A hook did not do what it should; the text is the message of the container's status.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("Exec lifecycle hook ([{}]) for Container {container:?} in Pod {pod:?} failed - error: {why}, message: {}", command.join(" "), quote(output))]
    Exec { command: Vec<String>, container: String, pod: String, why: String, output: String },
    #[error("HTTP lifecycle hook ({path}) for Container {container:?} in Pod {pod:?} failed - error: {why}")]
    Http { path: String, container: String, pod: String, why: String },
    #[error("Cannot run handler: invalid handler: &LifecycleHandler{{Exec:nil,HTTPGet:nil,TCPSocket:nil,Sleep:nil,}}")]
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
    let (container, described) = (spec.name.clone(), pod.described());
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let (why, output) = match ctx.runtime.exec_sync(id, &command, None).await {
            Ok(output) if output.exit_code == 0 => return Ok(()),
            Ok(output) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (out, err) = (text(&output.stdout), text(&output.stderr));
                (format!("command '{}' exited with {}: {err}", command.join(" "), output.exit_code), format!("{out}{err}"))
            }
            Err(err) => (crate::chain(&err), String::new()),
        };
        return Err(HookError::Exec { command, container, pod: described, why, output });
    }
    if let Some(action) = &handler.http_get {
        let path = action.path.clone().unwrap_or_else(|| "/".to_owned());
        let failed = |why: String| HookError::Http { path, container, pod: described, why };
        let request = match http_request(pod, spec, action, ips, ctx.host_ips(), "kube-lifecycle/1.36") {
            Ok(request) => request,
            Err(why) => return Err(failed(why)),
        };
        // Any answer will do.
        let limit = Duration::from_secs(3600);
        return match get(&request, limit).await {
            Ok(_) => Ok(()),
            Err(why) if why.ends_with(PLAIN_ANSWER) => {
                // Older kubelets did not mind the scheme: as upstream, what they allowed goes on working.
                let plain = Get { https: false, ..request };
                let answer = get(&plain, limit).await.map_err(|_| failed(why))?;
                let host = crate::http::host_port(&plain.host, plain.port);
                let message = format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded");
                ctx.events.pod(pod, EventType::Warning, "LifecycleHTTPFallback", &message);
                drop(answer);
                Ok(())
            }
            Err(why) => Err(failed(why)),
        };
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
        IntOrString::String(name) => format!("strconv.Atoi: parsing {}: invalid syntax", quote(name)),
        IntOrString::Int(number) => format!("invalid port number: {number}"),
    })?;
    u16::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| format!("invalid port number: {number}"))
}
