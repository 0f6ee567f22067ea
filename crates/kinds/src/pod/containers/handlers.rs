//! What is done to containers from outside: hooks and probes.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::Around;
use crate::check;
use crate::doc::Read;
use crate::pod::security;

/// The handlers of probes and hooks, in the order in which they are looked for.
fn handler(faults: &mut Faults, path: &Path<'_>, handler: &Value, hook: bool, grace: Option<i64>) {
    let kinds: &[&str] =
        if hook { &["exec", "httpGet", "tcpSocket", "sleep"] } else { &["exec", "httpGet", "tcpSocket", "grpc"] };
    let mut found = false;
    for kind in kinds {
        let Some(action) = handler.opt(kind) else { continue };
        let at = path.child(kind);
        if found {
            faults.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                if action.list("command").is_empty() {
                    faults.required(&at.child("command"), "");
                }
            }
            "httpGet" => http_get(faults, &at, action),
            "sleep" => {
                let seconds = action.int("seconds");
                if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    faults.invalid_int(&at, seconds, &detail);
                }
            }
            _ => check::port_number_or_name(faults, &at.child("port"), &action["port"]),
        }
    }
    if !found {
        faults.required(path, "must specify a handler type");
    }
}

fn http_get(faults: &mut Faults, path: &Path<'_>, action: &Value) {
    if action.text("path").is_empty() {
        faults.required(&path.child("path"), "");
    }
    check::port_number_or_name(faults, &path.child("port"), &action["port"]);
    check::one_of(faults, &path.child("scheme"), action.text("scheme"), &["HTTP", "HTTPS"]);
    for header in action.list("httpHeaders") {
        let name = header.text("name");
        check::invalid_each(faults, &path.child("httpHeaders"), name, crate::names::http_header_name(name));
    }
}

pub(super) fn hooks(faults: &mut Faults, path: &Path<'_>, lifecycle: &Value, around: &Around<'_>) {
    for key in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.opt(key) {
            handler(faults, &path.child(key), hook, true, around.grace());
        }
    }
    if let Some(signal) = lifecycle.opt_text("stopSignal") {
        let at = path.child("stopSignal");
        let os = around.spec["os"].text("name");
        if os.is_empty() {
            faults.forbidden(&at, "may not be set for containers with empty `spec.os.name`");
        } else {
            security::stop_signal(faults, &at, signal, os);
        }
    }
}

pub(super) fn probes(faults: &mut Faults, path: &Path<'_>, container: &Value, around: &Around<'_>) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.opt(key) else { continue };
        let at = path.child(key);
        handler(faults, &at, probe, false, around.grace());
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
            check::field_not_negative(faults, &at, probe, number);
        }
        let grace = probe.opt_int("terminationGracePeriodSeconds");
        let grace_at = at.child("terminationGracePeriodSeconds");
        if let Some(grace) = grace.filter(|grace| *grace <= 0) {
            faults.invalid_int(&grace_at, grace, "must be greater than 0");
        }
        if key == "readinessProbe" {
            if let Some(grace) = grace {
                faults.invalid_int(&grace_at, grace, "must not be set for readinessProbes");
            }
        } else if probe.int("successThreshold") != 1 {
            faults.invalid_int(&at.child("successThreshold"), probe.int("successThreshold"), "must be 1");
        }
    }
}
