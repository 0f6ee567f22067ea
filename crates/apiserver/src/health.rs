//! `/healthz`, `/livez`, `/readyz`: whether the server lives and may be sent requests, check by check.

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
    let mut checks = vec![("ping", true), ("log", true)];
    match endpoint {
        "readyz" => checks.push(("informer-sync", true)),
        _ => checks.push(("etcd", stored)),
    }
    checks.extend(STARTED.map(|name| (name, stored || name != STORAGE)));
    if endpoint == "readyz" {
        checks.push(("shutdown", !state.tasks.is_stopping()));
    }
    if let Some(only) = only {
        return Ok(match checks.iter().find(|(name, _)| *name == only) {
            Some((_, true)) => response::text(200, "ok"),
            Some((_, false)) => response::plain(500, "internal server error: reason withheld\n"),
            None => response::no_such_page(),
        });
    }
    let excluded: Vec<&str> =
        call.query.all("exclude").flat_map(|names| names.split(',')).filter(|name| !name.is_empty()).collect();
    Ok(report(endpoint, &checks, &excluded, call.query.get("verbose").is_some()))
}

/// The verdict over all checks but the excluded ones; in detail when it is asked for or bad.
fn report(endpoint: &str, checks: &[(&str, bool)], excluded: &[&str], verbose: bool) -> Response {
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
        assert_eq!(text(&report("readyz", &good, &[], false)), (200, "ok".into()));
        assert_eq!(text(&report("readyz", &good, &["etcd"], true)).1, "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n");
        let expected = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
        assert_eq!(text(&report("readyz", &bad, &[], false)), (500, expected.into()));
        assert_eq!(text(&report("readyz", &bad, &["etcd"], false)).0, 200);
        assert!(text(&report("livez", &good, &["x"], true)).1.contains("no matches for \"x\""));
    }
}
