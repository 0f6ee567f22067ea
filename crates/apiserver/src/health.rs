//! `/healthz`, `/livez`, `/readyz`: whether the server lives and may be sent requests, check by check.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

/// Checks of every endpoint, by upstream's names. The server answers nothing before its start has done what the hooks name,
/// so these are true by the time that anybody asks.
const STARTED: [&str; 31] = [
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/storage-readiness",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
];
/// The hook that stands for the store in `/readyz`.
const STORAGE: &str = "poststarthook/storage-readiness";

/// What `/readyz` is asked for one by one, though its verdict does not name them: the hook stands for them there.
const ALONE: [&str; 2] = ["etcd", "etcd-readiness"];

/// Answers `/healthz`, `/livez`, `/readyz` and single checks under them.
///
/// # Errors
/// None: every answer, also a bad one, is plain text.
pub async fn serve(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    let Some(path) = call.info().path.strip_prefix('/').filter(|path| !path.ends_with('/')) else {
        return Ok(response::no_such_page());
    };
    let (endpoint, only) = path.split_once('/').map_or((path, None), |(endpoint, check)| (endpoint, Some(check)));
    let stored = store_answers(state).await;
    let stopping = state.tasks.is_stopping();
    let judged = |name: &'static str| {
        let good = match name {
            "shutdown" => !stopping && !state.departure.is_leaving(),
            "etcd" | "etcd-readiness" | STORAGE => stored,
            _ => true,
        };
        (name, good)
    };
    let checks: Vec<_> = of(endpoint).map(judged).collect();
    if let Some(only) = only {
        let alone = ALONE.into_iter().filter(|_| endpoint == "readyz").map(judged);
        return Ok(match checks.iter().copied().chain(alone).find(|(name, _)| *name == only) {
            Some((_, true)) => response::text(200, "ok"),
            Some((_, false)) => response::plain(500, "internal server error: reason withheld\n"),
            None => response::no_such_page(),
        });
    }
    let excluded: BTreeSet<&str> = call.query.all("exclude").collect();
    for (name, good) in checks.iter().filter(|(name, _)| !excluded.contains(name)) {
        state.metrics.health.checked(name, endpoint, *good);
    }
    Ok(report(endpoint, &checks, &excluded, call.query.get("verbose").is_some()))
}

/// Answers `/metrics/slis`: how single checks went when they were made last, and how often.
///
/// # Errors
/// 500 when the metrics cannot be written.
pub fn slis(state: &Arc<State>) -> Result<Response, Status> {
    crate::metrics::exposition(state.metrics.health.gather())
}

/// The paths of the single checks.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    let endpoints = ["healthz", "livez", "readyz"].into_iter();
    let named = endpoints.flat_map(|endpoint| of(endpoint).map(move |name| format!("/{endpoint}/{name}")));
    named.chain(ALONE.into_iter().map(|name| format!("/readyz/{name}")))
}

/// The checks of an endpoint, in order.
fn of(endpoint: &str) -> impl Iterator<Item = &'static str> + use<> {
    let is_ready = endpoint == "readyz";
    let own = if is_ready { "informer-sync" } else { "etcd" };
    ["ping", "log", own].into_iter().chain(STARTED).chain(is_ready.then_some("shutdown"))
}

/// The verdict over all checks but the excluded ones; in detail when it is asked for or bad.
fn report(endpoint: &str, checks: &[(&str, bool)], excluded: &BTreeSet<&str>, verbose: bool) -> Response {
    let mut lines = String::new();
    let mut failed = Vec::new();
    for (name, good) in checks {
        let _ = match (excluded.contains(name), good) {
            (true, _) => writeln!(lines, "[+]{name} excluded: ok"),
            (false, true) => writeln!(lines, "[+]{name} ok"),
            (false, false) => {
                failed.push(*name);
                writeln!(lines, "[-]{name} failed: reason withheld")
            }
        };
    }
    let unknown: Vec<_> = excluded.iter().filter(|name| !checks.iter().any(|(check, _)| check == *name)).collect();
    if !unknown.is_empty() {
        let quoted: Vec<_> = unknown.iter().map(|name| format!("{name:?}")).collect();
        let _ = writeln!(lines, "warn: some health checks cannot be excluded: no matches for {}", quoted.join(","));
    }
    if !failed.is_empty() {
        tracing::warn!(endpoint, failed = failed.join(","), "a health check failed");
        return response::plain(500, format!("{lines}{endpoint} check failed\n"));
    }
    match verbose {
        true => response::plain(200, format!("{lines}{endpoint} check passed\n")),
        false => response::plain(200, "ok"),
    }
}

async fn store_answers(state: &State) -> bool {
    state.store.get("/registry/health").await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_upstreams() {
        let text = |response: &Response| {
            let body = String::from_utf8(response.body().whole().unwrap().to_vec()).unwrap();
            (response.status().as_u16(), body)
        };
        let (good, bad) = ([("ping", true), ("etcd", true)], [("ping", true), ("etcd", false)]);
        assert_eq!(text(&report("readyz", &good, &[].into(), false)), (200, "ok".into()));
        assert_eq!(
            text(&report("readyz", &good, &["etcd"].into(), true)).1,
            "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n"
        );
        let expected = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
        assert_eq!(text(&report("readyz", &bad, &[].into(), false)), (500, expected.into()));
        assert_eq!(text(&report("readyz", &bad, &["etcd"].into(), false)).0, 200);
        assert!(text(&report("livez", &good, &["x"].into(), true)).1.contains("no matches for \"x\""));
    }
}
