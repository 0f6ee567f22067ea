//! What admission policies and the Pod Security Standards decide, by upstream's names.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::Operation;
use crate::metrics::{VALID, counters, histograms};

/// Checks of ValidatingAdmissionPolicies that had a consequence.
pub(super) struct PolicyMetrics {
    checks: IntCounterVec,
    took: HistogramVec,
}

impl PolicyMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = ["policy", "policy_binding", "error_type", "enforcement_action"];
        Self {
            checks: counters(
                registry,
                "apiserver_validating_admission_policy_check_total",
                "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
                &labels,
            ),
            took: histograms(
                registry,
                "apiserver_validating_admission_policy_check_duration_seconds",
                "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.",
                &[5e-7, 0.001, 0.01, 0.1, 1.0],
                &labels,
            ),
        }
    }

    /// A check failed with a message, and the binding's `action` was taken.
    pub(super) fn failed(&self, policy: &str, binding: &str, action: &str, message: &str, took: Duration) {
        let error = match message {
            message if message.starts_with("compilation") => "compile_error",
            message if message.starts_with("validation failed due to running out of cost budget") => "out_of_budget",
            _ => "invalid_error",
        };
        let labels = [policy, binding, error, action];
        self.checks.with_label_values(&labels).inc();
        self.took.with_label_values(&labels).observe(took.as_secs_f64());
    }
}

/// How long the expressions of policies take.
#[derive(Clone)]
pub(super) struct CelMetrics {
    compilation: Histogram,
    evaluation: Histogram,
}

impl CelMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let made = |name, help| {
            let made = Histogram::with_opts(HistogramOpts::new(name, help)).expect(VALID);
            registry.register(Box::new(made.clone())).expect(VALID);
            made
        };
        Self {
            compilation: made("apiserver_cel_compilation_duration_seconds", "CEL compilation time in seconds."),
            evaluation: made("apiserver_cel_evaluation_duration_seconds", "CEL evaluation time in seconds."),
        }
    }

    /// The expressions of a policy were compiled.
    pub(super) fn compiled(&self, took: Duration) {
        self.compilation.observe(took.as_secs_f64());
    }

    /// The expressions of a policy were evaluated for a request.
    pub(super) fn evaluated(&self, took: Duration) {
        self.evaluation.observe(took.as_secs_f64());
    }
}

/// Pods and what makes pods, as the Pod Security Standards found them.
pub(super) struct PodSecurityMetrics {
    evaluations: IntCounterVec,
    /// Of pods of namespaces that ask for nothing, made and changed: nearly all there are.
    usual: [IntCounter; 2],
}

impl PodSecurityMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = ["decision", "policy_level", "policy_version", "mode", "request_operation", "resource", "subresource"];
        let evaluations = counters(
            registry,
            "pod_security_evaluations_total",
            "Number of policy evaluations that occurred, not counting ignored or exempt requests.",
            &labels,
        );
        let usual = ["create", "update"]
            .map(|operation| evaluations.with_label_values(&["allow", "privileged", "latest", "enforce", operation, "pod", ""]));
        Self { evaluations, usual }
    }

    /// A pod of a namespace that asks for nothing was let in.
    pub(super) fn usual(&self, operation: Operation) {
        self.usual[usize::from(operation == Operation::Update)].inc();
    }

    /// A pod (`itself`), or what makes pods, was judged in a mode.
    pub(super) fn judged(
        &self,
        allowed: bool,
        (level, version): (&str, &str),
        mode: &str,
        operation: Operation,
        itself: bool,
        subresource: &str,
    ) {
        let decision = if allowed { "allow" } else { "deny" };
        let operation = if operation == Operation::Update { "update" } else { "create" };
        let resource = if itself { "pod" } else { "controller" };
        self.evaluations.with_label_values(&[decision, level, version, mode, operation, resource, subresource]).inc();
    }
}
