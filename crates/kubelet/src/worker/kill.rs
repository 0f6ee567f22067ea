//! Stops one container: preStop hook, stop signal, and the kill at the end of the grace period.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::Instant;

use corten_client::EventType;
use corten_runtime::{Container, RuntimeError};

use crate::context::Context;
use crate::handlers;
use crate::plan::KillCause;
use crate::pod::PodExt;

/// A container always gets this long after its preStop hook, if it was given that much at all.
const MINIMUM: Duration = Duration::from_secs(2);

/// The grace period for stopping one container while its pod goes on: the probe's own, or the pod's.
pub fn grace(pod: &Pod, name: &str, cause: KillCause) -> Duration {
    let spec = pod.container(name).map(|(_, spec)| spec);
    let probe = spec.and_then(|spec| match cause {
        KillCause::Liveness => spec.liveness_probe,
        KillCause::Startup => spec.startup_probe,
        KillCause::Changed | KillCause::Pod => None,
    });
    let seconds = probe.and_then(|probe| probe.termination_grace_period_seconds);
    let seconds = seconds.or(pod.spec().termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Stops `container` until `deadline`, which may come nearer meanwhile. Returns when it has exited.
pub async fn run(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    message: &str,
    ips: &[IpAddr],
    mut deadline: watch::Receiver<Instant>,
) {
    ctx.events.container(pod, &container.name, EventType::Normal, "Killing", message);
    let given = deadline.borrow().saturating_duration_since(Instant::now());
    let spec = pod.container(&container.name).map(|(_, spec)| spec);
    let hook = spec.as_ref().and_then(|spec| spec.lifecycle.as_ref()?.pre_stop.as_ref());
    if let (Some(spec), Some(handler)) = (&spec, hook)
        && !given.is_zero()
    {
        let running = handlers::run(ctx, pod, spec, &container.id, handler, ips);
        tokio::pin!(running);
        let result = loop {
            let until = *deadline.borrow();
            tokio::select! {
                result = &mut running => break Some(result),
                () = tokio::time::sleep_until(until) => break None,
                changed = deadline.changed() => if changed.is_err() { break None },
            }
        };
        match result {
            Some(Err(err)) => {
                tracing::debug!(pod = %pod.described(), container = container.name, error = %err, "preStop hook");
                ctx.events.container(pod, &container.name, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
            }
            Some(Ok(())) => {}
            None => tracing::debug!(pod = %pod.described(), container = container.name, "preStop hook outlived the grace period"),
        }
    }
    let minimum = Instant::now() + MINIMUM.min(given);
    loop {
        let until = (*deadline.borrow_and_update()).max(minimum.min(Instant::now() + MINIMUM));
        let grace = until.saturating_duration_since(Instant::now());
        tokio::select! {
            result = ctx.runtime.stop_container(&container.id, grace) => {
                match result {
                    Ok(()) | Err(RuntimeError::NotFound { .. }) => break,
                    Err(err) => {
                        tracing::warn!(pod = %pod.described(), container = container.name, error = %crate::chain(&err), "stop a container");
                        ctx.events.container(pod, &container.name, EventType::Warning, "FailedKillPod", &crate::chain(&err));
                        // The runtime is in trouble: not at once again.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            Ok(()) = deadline.changed() => {}
        }
    }
    if let Err(err) = ctx.cache.observe(pod.uid(), &container.id).await {
        tracing::warn!(error = %crate::chain(&err), "observe a stopped container");
    }
}
