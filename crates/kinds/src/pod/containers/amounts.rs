//! What containers ask for, and how that may change while they run.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Map, Value, json};

use crate::check;
use crate::doc::Read;
use crate::pod::{Options, aggregate};
use crate::quantity::Quantity;
use crate::resources;

/// Requests and limits of a container or of the pod.
pub(crate) fn requirements(
    faults: &mut Faults,
    path: &Path<'_>,
    requirements: &Value,
    check_name: fn(&mut Faults, &Path<'_>, &str),
    claims: &[&str],
    options: &Options,
) {
    let (limits, requests) = (requirements.map("limits"), requirements.map("requests"));
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    for (name, amount) in limits {
        let at = limits_at.key(name);
        check_name(faults, &at, name);
        check::resource_quantity(faults, &at, name, amount);
        huge_page_amount(faults, &at, name, amount, options);
    }
    for (name, amount) in requests {
        let at = requests_at.key(name);
        check_name(faults, &at, name);
        check::resource_quantity(faults, &at, name, amount);
        against_limit(faults, &limits_at, &requests_at, name, amount, limits);
        huge_page_amount(faults, &at, name, amount, options);
    }
    let names = || limits.keys().chain(requests.keys()).map(String::as_str);
    if names().any(resources::is_huge_page) && !names().any(|name| matches!(name, "cpu" | "memory")) {
        faults.forbidden(path, "HugePages require cpu or memory");
    }
    claim_names(faults, &path.child("claims"), requirements.list("claims"), claims);
}

fn against_limit(
    faults: &mut Faults,
    limits_at: &Path<'_>,
    requests_at: &Path<'_>,
    name: &str,
    amount: &Value,
    limits: &Map<String, Value>,
) {
    let overcommit = resources::is_overcommit_allowed(name);
    let Some(request) = Quantity::of(amount) else { return };
    match limits.get(name).and_then(Quantity::of) {
        Some(limit) if !overcommit && request.amount() != limit.amount() => {
            faults.invalid_str(requests_at, &request.to_string(), &format!("must be equal to {name} limit of {limit}"));
        }
        Some(limit) if request.amount() > limit.amount() => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            faults.invalid_str(requests_at, &request.to_string(), &detail);
        }
        Some(_) => {}
        None if !overcommit => faults.required(limits_at, "Limit must be set for non overcommitable resources"),
        None => {}
    }
}

/// An amount of huge pages must be a whole number of pages.
fn huge_page_amount(faults: &mut Faults, path: &Path<'_>, name: &str, amount: &Value, options: &Options) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    if options.lax_huge_pages {
        return;
    }
    let (Some(amount), Some(size)) = (Quantity::of(amount), Quantity::of(&json!(size))) else { return };
    let divisible = size.is_positive() && amount.is_whole() && amount.value() % size.value() == 0;
    if !divisible {
        faults.invalid_str(path, &amount.to_string(), &format!("{amount} is not positive integer multiple of {name}"));
    }
}

fn claim_names(faults: &mut Faults, path: &Path<'_>, claims: &[Value], known: &[&str]) {
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            faults.required(&at, "");
            continue;
        }
        if seen.iter().any(|have| have == name) {
            check::duplicate(faults, &at, name);
        } else {
            let key = if request.is_empty() {
                name.to_owned()
            } else {
                check::dns_label(faults, &at.child("request"), request);
                format!("{name}/{request}")
            };
            if seen.contains(&key) {
                check::duplicate(faults, &at, &key);
            } else if request.is_empty() {
                for _ in seen.iter().filter(|have| have.split_once('/').is_some_and(|(claim, _)| claim == name)) {
                    check::duplicate(faults, &at, name);
                }
            }
            seen.push(key);
        }
        if !known.contains(&name) {
            let mut sorted = known.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            let listed = if sorted.is_empty() { " which is empty".to_owned() } else { format!(": {}", sorted.join(", ")) };
            faults.not_found(&at, &json!(name));
            if let Some(fault) = faults.0.last_mut() {
                fault.message.push_str(": must be one of the names in pod.spec.resourceClaims");
                fault.message.push_str(&listed);
            }
        }
    }
}

pub(super) fn resize_policy(faults: &mut Faults, path: &Path<'_>, container: &Value, pod_restart: &str) {
    let mut seen = HashSet::new();
    for (i, policy) in container.list("resizePolicy").iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if !seen.insert(resource) {
            check::duplicate(faults, &path.index(i), resource);
        }
        check::required_one_of(faults, path, resource, &["cpu", "memory"]);
        check::required_one_of(faults, path, restart, &["NotRequired", "RestartContainer"]);
        if pod_restart == "Never" && restart != "NotRequired" {
            faults.invalid_str(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// An init container that ends is never restarted for new resources.
pub(super) fn init_resize_policy(faults: &mut Faults, path: &Path<'_>, container: &Value, options: &Options) {
    if aggregate::is_sidecar(container) || options.lax_init_resize {
        return;
    }
    let at = path.child("resizePolicy");
    for (i, policy) in container.list("resizePolicy").iter().enumerate().filter(|(_, policy)| restarts(policy)) {
        let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
        faults.invalid_str(&at.index(i).child("restartPolicy"), policy.text("restartPolicy"), detail);
    }
}

/// Whether a resize policy says that the container is restarted.
pub(crate) fn restarts(policy: &Value) -> bool {
    policy.text("restartPolicy") == "RestartContainer"
}
