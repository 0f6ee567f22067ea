//! Probes of running containers. Each probe is a task that sleeps until its next turn; results go to the worker, which
//! is woken when one flips. [`Verdict`] counts towards the thresholds and is pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use corten_client::EventType;
use corten_runtime::{Container, RuntimeError};

use crate::clock::{from_nanos, go_duration};
use crate::context::Context;
use crate::handlers;
use crate::http;
use crate::objects::Wake;
use crate::plan::Probes;
use crate::pod::{Kind, PodExt};

/// Tries of a probe that could not be carried out, upstream's `maxProbeRetries`.
const TRIES: usize = 3;

/// What one try brought, with the words for the event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    /// Counts as success, and is told.
    Warning(String),
    Failure(String),
    /// Counts as nothing.
    Unknown(String),
}

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Startup,
    Readiness,
    Liveness,
}

/// The probes of one pod's containers.
pub struct Probers {
    ctx: Arc<Context>,
    wake: Arc<Wake>,
    running: HashMap<String, Prober>,
}

struct Prober {
    results: Arc<Mutex<Probes>>,
    _stop: DropGuard,
}

impl Probers {
    pub fn new(ctx: Arc<Context>, wake: Arc<Wake>) -> Self {
        Self { ctx, wake, running: HashMap::new() }
    }

    /// Starts and ends probes so that exactly the `running` containers are probed, and returns the results by id.
    /// Nothing new is started unless `may_start`.
    pub fn update(&mut self, pod: &Arc<Pod>, running: &[Container], ips: &[IpAddr], may_start: bool) -> HashMap<String, Probes> {
        self.running.retain(|id, _| running.iter().any(|container| container.id == *id));
        if may_start && (pod.host_network() || !ips.is_empty()) {
            for container in running {
                if self.running.contains_key(&container.id) {
                    continue;
                }
                let Some((kind, spec)) = pod.container(&container.name) else { continue };
                if matches!(kind, Kind::Sidecar | Kind::Regular) {
                    self.start(pod, spec, container, ips);
                }
            }
        }
        let mut results: HashMap<String, Probes> =
            self.running.iter().map(|(id, prober)| (id.clone(), *prober.results.lock())).collect();
        // Until its prober runs, a container counts as undecided and not as ready.
        for container in running.iter().filter(|container| !self.running.contains_key(&container.id)) {
            if let Some((_, spec)) = pod.container(&container.name) {
                results.insert(container.id.clone(), undecided(&spec));
            }
        }
        results
    }

    /// Ends all probes: the pod is being stopped. Readiness stays as it was last seen until the containers exit.
    pub fn stop(&mut self) {
        for prober in self.running.values_mut() {
            let stopped = CancellationToken::new();
            prober._stop = stopped.drop_guard();
        }
    }

    fn start(&mut self, pod: &Arc<Pod>, spec: Spec, container: &Container, ips: &[IpAddr]) {
        let results = Arc::new(Mutex::new(undecided(&spec)));
        let stop = CancellationToken::new();
        let (started, started_seen) = watch::channel(spec.startup_probe.is_none());
        let started = Arc::new(started);
        let all = [
            (Which::Startup, spec.startup_probe.clone()),
            (Which::Readiness, spec.readiness_probe.clone()),
            (Which::Liveness, spec.liveness_probe.clone()),
        ];
        for (which, probe) in all {
            let Some(probe) = probe else { continue };
            let one = One {
                ctx: self.ctx.clone(),
                wake: self.wake.clone(),
                pod: pod.clone(),
                spec: spec.clone(),
                id: container.id.clone(),
                started_at: container.started_at,
                ips: ips.to_vec(),
                which,
                probe,
                results: results.clone(),
                started: started.clone(),
                started_seen: started_seen.clone(),
            };
            let stopped = stop.clone();
            self.ctx.tasks.spawn("probe", async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = one.run() => {}
                }
            });
        }
        self.running.insert(container.id.clone(), Prober { results, _stop: stop.drop_guard() });
    }
}

fn undecided(spec: &Spec) -> Probes {
    Probes { has_startup: spec.startup_probe.is_some(), has_readiness: spec.readiness_probe.is_some(), ..Probes::default() }
}

/// One probe of one container.
struct One {
    ctx: Arc<Context>,
    wake: Arc<Wake>,
    pod: Arc<Pod>,
    spec: Spec,
    id: String,
    started_at: i64,
    ips: Vec<IpAddr>,
    which: Which,
    probe: Probe,
    results: Arc<Mutex<Probes>>,
    started: Arc<watch::Sender<bool>>,
    started_seen: watch::Receiver<bool>,
}

impl One {
    async fn run(mut self) {
        if self.which != Which::Startup && self.started_seen.wait_for(|started| *started).await.is_err() {
            return;
        }
        let delay = Duration::from_secs(u64::try_from(self.probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
        let period = Duration::from_secs(u64::try_from(self.probe.period_seconds.unwrap_or(10)).unwrap_or(10).max(1));
        let mut next = self.ctx.clock.instant(from_nanos(self.started_at) + delay);
        let overdue = self.ctx.clock.now().duration_since(from_nanos(self.started_at)).as_secs()
            > period.as_secs() as i64 + delay.as_secs() as i64;
        if overdue {
            // A container of an earlier process: all its neighbours are found at this moment, and must not be probed at once.
            next = Instant::now() + period.mul_f64(rand::random::<f64>());
        }
        let mut verdict = Verdict::new(self.which, &self.probe);
        loop {
            tokio::time::sleep_until(next).await;
            let mut outcome = self.attempt().await;
            // What could not be tried at all is tried again at once, before it is told.
            for _ in 1..TRIES {
                if matches!(outcome, Outcome::Unknown(_)) {
                    outcome = self.attempt().await;
                }
            }
            self.tell(&outcome);
            if let Some(holds) = verdict.count(&outcome)
                && self.note(holds)
            {
                self.wake.wake();
                // A failed one waits for the container's end; a passed startup probe has done its work.
                if self.which == Which::Startup || (self.which == Which::Liveness && !holds) {
                    return;
                }
            }
            next = (next + period).max(Instant::now());
        }
    }

    /// Stores a result; whether it is news.
    fn note(&self, holds: bool) -> bool {
        let mut results = self.results.lock();
        let place = match self.which {
            Which::Startup => &mut results.startup,
            Which::Readiness => &mut results.readiness,
            Which::Liveness => &mut results.liveness,
        };
        let news = *place != Some(holds);
        *place = Some(holds);
        if self.which == Which::Startup && holds {
            self.started.send_replace(true);
        }
        news
    }

    fn tell(&self, outcome: &Outcome) {
        let name = match self.which {
            Which::Startup => "Startup",
            Which::Readiness => "Readiness",
            Which::Liveness => "Liveness",
        };
        let (reason, message) = match outcome {
            Outcome::Success => return,
            Outcome::Warning(text) => ("ProbeWarning", format!("{name} probe warning: {text}")),
            Outcome::Failure(text) => ("Unhealthy", format!("{name} probe failed: {text}")),
            Outcome::Unknown(text) => ("Unhealthy", format!("{name} probe errored and resulted in unknown state: {text}")),
        };
        self.ctx.events.container(&self.pod, &self.spec.name, EventType::Warning, reason, &message);
    }

    async fn attempt(&self) -> Outcome {
        let timeout = Duration::from_secs(u64::try_from(self.probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
        if let Some(exec) = &self.probe.exec {
            // Only variables with a value in the specification, as upstream: the probe does not know the others.
            let fixed = self.spec.env.iter().flatten();
            let fixed: Vec<_> = fixed.map(|var| (var.name.clone(), var.value.clone().unwrap_or_default())).collect();
            let command = crate::env::expand_all(exec.command.as_ref(), &fixed);
            return self.exec(&command, timeout).await;
        }
        let host_ips = self.ctx.host_ips();
        if let Some(action) = &self.probe.http_get {
            return match handlers::http_request(&self.pod, &self.spec, action, &self.ips, host_ips, "kube-probe/1.36") {
                Ok(request) => http_outcome(http::get(&request, timeout).await),
                Err(why) => Outcome::Unknown(why),
            };
        }
        if let Some(action) = &self.probe.tcp_socket {
            let host = handlers::target(&self.pod, action.host.as_deref(), &self.ips, host_ips);
            return match handlers::port(&self.spec, &action.port) {
                Ok(port) => match tokio::time::timeout(timeout, http::connect(&host, port)).await {
                    Ok(Ok(_)) => Outcome::Success,
                    Ok(Err(why)) => Outcome::Failure(why),
                    Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", http::host_port(&host, port))),
                },
                Err(why) => Outcome::Unknown(why),
            };
        }
        if let Some(action) = &self.probe.grpc {
            let host = handlers::target(&self.pod, None, &self.ips, host_ips);
            let port = u16::try_from(action.port).unwrap_or(0);
            let service = action.service.as_deref().unwrap_or_default();
            return match tokio::time::timeout(timeout, http::grpc_health(&host, port, service)).await {
                Ok(Ok(1)) => Outcome::Success,
                Ok(Ok(status)) => {
                    let word = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
                    let word = usize::try_from(status).ok().and_then(|status| word.get(status)).unwrap_or(&"UNKNOWN");
                    Outcome::Failure(format!("service unhealthy (responded with {word:?})"))
                }
                Ok(Err(why)) => Outcome::Failure(why),
                Err(_) => Outcome::Failure(format!(
                    "timeout: failed to connect service {:?} within {}: context deadline exceeded",
                    http::host_port(&host, port),
                    go_duration(timeout)
                )),
            };
        }
        Outcome::Unknown(format!("missing probe handler for {}:{}", self.pod.described(), self.spec.name))
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Outcome {
        match self.ctx.runtime.exec_sync(&self.id, command, Some(timeout)).await {
            Ok(output) if output.exit_code == 0 => Outcome::Success,
            Ok(output) => {
                let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.push_str(&String::from_utf8_lossy(&output.stderr));
                if text.len() > 10 << 10 {
                    let end = (0..=10 << 10).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                    text.truncate(end);
                }
                Outcome::Failure(text)
            }
            Err(RuntimeError::Timeout(after)) => {
                Outcome::Failure(format!("command timed out: {:?} timed out after {}", command.join(" "), go_duration(after)))
            }
            // The command is not there: the container is not well, as upstream counts it.
            Err(RuntimeError::Start(why)) => Outcome::Failure(why),
            Err(err) => Outcome::Unknown(crate::chain(&err)),
        }
    }
}

fn http_outcome(answer: Result<http::Answer, String>) -> Outcome {
    match answer {
        Err(why) => Outcome::Failure(why),
        Ok(answer) if answer.elsewhere => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        Ok(answer) if (200..400).contains(&answer.status) => Outcome::Success,
        Ok(answer) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
    }
}

/// Counts outcomes towards the thresholds.
struct Verdict {
    success_threshold: i32,
    failure_threshold: i32,
    last: Option<bool>,
    run: i32,
}

impl Verdict {
    fn new(which: Which, probe: &Probe) -> Self {
        let success_threshold = if which == Which::Readiness { probe.success_threshold.unwrap_or(1).max(1) } else { 1 };
        Self { success_threshold, failure_threshold: probe.failure_threshold.unwrap_or(3).max(1), last: None, run: 0 }
    }

    /// The result that now holds, once a threshold is reached.
    fn count(&mut self, outcome: &Outcome) -> Option<bool> {
        let holds = match outcome {
            Outcome::Success | Outcome::Warning(_) => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return None,
        };
        if self.last == Some(holds) {
            self.run += 1;
        } else {
            (self.last, self.run) = (Some(holds), 1);
        }
        let threshold = if holds { self.success_threshold } else { self.failure_threshold };
        (self.run >= threshold).then_some(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn thresholds_decide() {
        //    success failure outcomes   results
        check(1,      3,      "fff",     "..-");
        check(1,      3,      "ffsfff",  "..+..-");
        check(2,      1,      "sfss",    ".-.+");
        check(1,      2,      "fuf",     "..-"); // an error counts as nothing
        fn check(success: i32, failure: i32, outcomes: &str, expected: &str) {
            let probe = Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() };
            let mut verdict = Verdict::new(Which::Readiness, &probe);
            let results: String = outcomes.chars().map(|c| {
                let outcome = match c {
                    's' => Outcome::Success,
                    'u' => Outcome::Unknown(String::new()),
                    _ => Outcome::Failure(String::new()),
                };
                match verdict.count(&outcome) { Some(true) => '+', Some(false) => '-', None => '.' }
            }).collect();
            assert_eq!(results, expected, "{outcomes}");
        }
    }

    #[test]
    fn http_codes_decide() {
        let answer = |status| Ok(http::Answer { status, body: String::new(), elsewhere: false });
        assert_eq!(http_outcome(answer(204)), Outcome::Success);
        assert_eq!(http_outcome(answer(302)), Outcome::Success);
        assert_eq!(http_outcome(answer(500)), Outcome::Failure("HTTP probe failed with statuscode: 500".to_owned()));
    }
}
