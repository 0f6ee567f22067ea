//! How much users may rely on a metric (KEP-1209). Upstream puts it before the help text, where dashboards and linters read it.

use prometheus::proto::MetricFamily;

/// Neither the name nor the labels change.
const STABLE: [&str; 12] = [
    "apiserver_admission_controller_admission_duration_seconds",
    "apiserver_admission_step_admission_duration_seconds",
    "apiserver_current_inflight_requests",
    "apiserver_longrunning_requests",
    "apiserver_request_duration_seconds",
    "apiserver_request_total",
    "apiserver_requested_deprecated_apis",
    "apiserver_response_sizes",
    "apiserver_storage_objects",
    "apiserver_storage_size_bytes",
    "kubernetes_healthcheck",
    "kubernetes_healthchecks_total",
];

/// Labels may come, none goes.
const BETA: [&str; 14] = [
    "apiserver_cel_compilation_duration_seconds",
    "apiserver_cel_evaluation_duration_seconds",
    "apiserver_flowcontrol_current_executing_requests",
    "apiserver_flowcontrol_current_executing_seats",
    "apiserver_flowcontrol_current_inqueue_requests",
    "apiserver_flowcontrol_dispatched_requests_total",
    "apiserver_flowcontrol_nominal_limit_seats",
    "apiserver_flowcontrol_rejected_requests_total",
    "apiserver_flowcontrol_request_wait_duration_seconds",
    "apiserver_storage_events_received_total",
    "apiserver_validating_admission_policy_check_duration_seconds",
    "apiserver_validating_admission_policy_check_total",
    "apiserver_watch_list_duration_seconds",
    "kubernetes_feature_enabled",
];

/// Says of each family how stable it is.
pub(super) fn mark(families: &mut [MetricFamily]) {
    for family in families {
        if let Some(level) = level(family.name()) {
            let help = format!("[{level}] {}", family.help());
            family.set_help(help);
        }
    }
}

/// None for what is not Kubernetes' own.
fn level(name: &str) -> Option<&'static str> {
    match name {
        name if STABLE.contains(&name) => Some("STABLE"),
        name if BETA.contains(&name) || name.starts_with("workqueue_") => Some("BETA"),
        name if name.starts_with("process_") => None,
        _ => Some("ALPHA"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_level() {
        assert_eq!(level("apiserver_request_total"), Some("STABLE"));
        assert_eq!(level("apiserver_flowcontrol_nominal_limit_seats"), Some("BETA"));
        assert_eq!((level("kubernetes_build_info"), level("process_open_fds")), (Some("ALPHA"), None));
    }
}
