//! PodSecurity: the Pod Security Standards (KEP-2579), by labels of the namespace: what is enforced, warned of, audited.
//!
//! Pods are refused; what makes pods (Deployments, Jobs, …) only warns, since its pods will be judged themselves.

mod checks;

use serde_json::Value;

use corten_api::field::{Faults, Path};
use corten_api::status::Status;

use super::metrics::PodSecurityMetrics;
use super::tools::{done, members, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::reader::Reader;

pub(super) struct PodSecurity {
    pub(super) reader: Reader,
    pub(super) metrics: PodSecurityMetrics,
}

/// A standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A standard as of a version, `latest` for the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    version: String,
}

/// What the labels of a namespace ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    enforce: Standard,
    audit: Standard,
    warn: Standard,
}

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace looked at for warnings when its labels change.
const MAX_PODS: usize = 3000;

/// Resources whose pods come from a template, and where that is.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

impl PodSecurity {
    fn policy(&self, namespace: &str) -> Option<Policy> {
        let namespace = self.reader.get("", "namespaces", "", namespace)?;
        Some(Policy::of(|label| namespace.label(label).map(str::to_owned)).0)
    }

    /// The pod of a request, or the pod it would make, and whether it is the pod itself.
    fn pod(request: &AdmissionRequest) -> Option<(&Value, bool)> {
        let object = request.object.as_ref()?;
        if request.group.is_empty() && request.resource == "pods" {
            return matches!(request.subresource.as_str(), "" | "ephemeralcontainers").then_some((object, true));
        }
        if !request.subresource.is_empty() {
            return None;
        }
        let (.., pointer) =
            TEMPLATES.iter().find(|(group, resource, _)| request.group == *group && request.resource == *resource)?;
        Some((object.pointer(pointer)?, false))
    }

    /// Whether an update of a pod changes anything that the standards look at.
    fn matters(request: &AdmissionRequest) -> bool {
        let (Operation::Update, Some(old), Some(new)) = (request.operation, &request.old, &request.object) else { return true };
        let marks = |pod: &Value| -> Vec<(String, Value)> {
            let marked = members(&pod["metadata"]["annotations"]).filter(|(key, _)| {
                key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                    || key.starts_with("seccomp.security.alpha.kubernetes.io/")
            });
            marked.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        // Images and what else of a pod's spec may be updated are no matter of the standards.
        request.resource != "pods"
            || old["spec"]["ephemeralContainers"] != new["spec"]["ephemeralContainers"]
            || marks(old) != marks(new)
    }

    fn warn(&self, request: &mut AdmissionRequest) {
        let Some(policy) = self.policy(&request.namespace) else { return };
        let Some((pod, itself)) = Self::pod(request) else { return };
        let would = |standard: &Standard| {
            let faults = checks::run(pod, standard);
            (!faults.is_empty()).then(|| format!("would violate PodSecurity \"{standard}\": {}", checks::details(&faults)))
        };
        // A pod that is refused needs no warning of the same.
        let refused = itself && !checks::run(pod, &policy.enforce).is_empty();
        let warning = would(&policy.warn).filter(|_| !refused);
        let audit = would(&policy.audit);
        for (mode, standard, violation) in [("audit", &policy.audit, &audit), ("warn", &policy.warn, &warning)] {
            if violation.is_some() {
                self.count(false, standard, mode, request, itself);
            }
        }
        // Nothing is enforced on what only makes pods.
        if itself {
            request.audit_annotations.insert("pod-security.kubernetes.io/enforce-policy".into(), policy.enforce.to_string());
        }
        if let Some(audit) = audit {
            request.audit_annotations.insert("pod-security.kubernetes.io/audit-violations".into(), audit);
        }
        request.warnings.extend(warning);
    }

    fn count(&self, allowed: bool, standard: &Standard, mode: &str, request: &AdmissionRequest, itself: bool) {
        let level = match standard.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        let standard = (level, standard.version.as_str());
        self.metrics.judged(allowed, standard, mode, request.operation, itself, &request.subresource);
    }

    fn enforce(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let (Some(policy), Some((pod, true))) = (self.policy(&request.namespace), Self::pod(request)) else { return Ok(()) };
        let faults = checks::run(pod, &policy.enforce);
        match (policy.enforce.level, policy.enforce.version.as_str(), request.subresource.as_str()) {
            (Level::Privileged, "latest", "") => self.metrics.usual(request.operation),
            _ => self.count(faults.is_empty(), &policy.enforce, "enforce", request, true),
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(request.forbidden(&format!("violates PodSecurity \"{}\": {}", policy.enforce, checks::details(&faults))))
    }

    /// Refuses labels that mean nothing.
    fn check_labels(request: &AdmissionRequest) -> Result<(), Status> {
        let Some(namespace) = &request.object else { return Ok(()) };
        let labels = |object: &Value| Policy::of(|label| object["metadata"]["labels"][label].as_str().map(str::to_owned));
        let (_, faults) = labels(namespace);
        if faults.is_empty() {
            return Ok(());
        }
        // Labels that were wrong before do not keep the namespace from being changed.
        if request.old.as_ref().is_some_and(|old| labels(old).1 == faults) {
            return Ok(());
        }
        Err(Status::invalid("", "Namespace", text(namespace, "/metadata/name"), &faults))
    }

    /// Tells which pods of a namespace would not be let in under its new labels.
    fn warn_of_existing(&self, request: &mut AdmissionRequest) {
        let (Some(new), Some(old)) = (&request.object, &request.old) else { return };
        let labels = |object: &Value| Policy::of(|label| object["metadata"]["labels"][label].as_str().map(str::to_owned)).0;
        let (before, after) = (labels(old).enforce, labels(new).enforce);
        if after.level <= before.level && after.version == before.version || after.level == Level::Privileged {
            return;
        }
        let namespace = text(new, "/metadata/name").to_owned();
        // Pods with the same faults are told of together, by the first one's name.
        let mut found: Vec<(String, String, usize)> = Vec::new();
        for entry in self.reader.list("", "pods", &namespace).iter().take(MAX_PODS) {
            let faults = checks::run(&entry.decode(), &after);
            if faults.is_empty() {
                continue;
            }
            let reasons = checks::reasons(&faults);
            match found.iter_mut().find(|(known, ..)| *known == reasons) {
                Some((.., more)) => *more += 1,
                None => found.push((reasons, entry.name.to_string(), 0)),
            }
        }
        if found.is_empty() {
            return;
        }
        found.sort_by(|a, b| a.1.cmp(&b.1));
        let head = format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{after}\"");
        request.warnings.push(head);
        request.warnings.extend(found.into_iter().map(|(reasons, name, more)| match more {
            0 => format!("{name}: {reasons}"),
            1 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {more} other pods): {reasons}"),
        }));
    }
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && (request.is("", "namespaces") || (Self::pod(request).is_some() && Self::matters(request)))
    }

    fn judge<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        match request.resource.as_str() {
            "namespaces" if Self::check_labels(request).is_ok() => self.warn_of_existing(request),
            "namespaces" => {}
            _ => self.warn(request),
        }
        self.validate(request)
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let outcome = match request.resource.as_str() {
            "namespaces" => Self::check_labels(request),
            _ => self.enforce(request),
        };
        done(outcome)
    }
}

impl Policy {
    /// The policy that labels ask for, and what is wrong with them.
    fn of(label: impl Fn(&str) -> Option<String>) -> (Self, Faults) {
        let mut faults = Faults::default();
        let metadata = Path::new("metadata");
        let labels = metadata.child("labels");
        let mut standard = |mode: &str| {
            let (level_key, version_key) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
            let level = match label(&level_key).as_deref() {
                None | Some("privileged") => Level::Privileged,
                Some("baseline") => Level::Baseline,
                Some("restricted") => Level::Restricted,
                Some(other) => {
                    faults.invalid_str(&labels.key(&level_key), other, "must be one of privileged, baseline, restricted");
                    // What cannot be understood is held to the strictest standard where it is enforced.
                    if mode == "enforce" { Level::Restricted } else { Level::Privileged }
                }
            };
            let version = label(&version_key).unwrap_or_else(|| "latest".to_owned());
            if version != "latest" && minor(&version).is_none() {
                faults.invalid_str(&labels.key(&version_key), &version, "must be \"latest\" or \"v1.x\"");
            }
            Standard { level, version }
        };
        let mut policy = Self { enforce: standard("enforce"), audit: standard("audit"), warn: standard("warn") };
        // Who says nothing of warnings is warned of what will be refused.
        if label(&format!("{PREFIX}warn")).is_none() {
            policy.warn = policy.enforce.clone();
        }
        (policy, faults)
    }
}

/// The minor version of `v1.30`.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("v1.")?;
    let plain = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
    digits.parse().ok().filter(|_| plain)
}

impl Standard {
    /// Whether something that is checked since `v1.minor` is checked by this version of the standard.
    fn since(&self, wanted: u32) -> bool {
        minor(&self.version).is_none_or(|minor| minor >= wanted)
    }
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        write!(f, "{level}:{}", self.version)
    }
}
