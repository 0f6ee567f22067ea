//! What a kubelet, a scheduler or a controller may say of a pod in its `status`.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::check;
use crate::doc::Read;
use crate::names;

const NOT_NEGATIVE: &str = "must be a non-negative integer";

pub(super) fn change(faults: &mut Faults, new: &Value, old: &Value) {
    let (status, before) = (&new["status"], &old["status"]);
    let path = Path::new("status");
    conditions(faults, &path.child("conditions"), status);
    if new["spec"].text("nodeName") != old["spec"].text("nodeName") {
        faults.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let nominated = status.text("nominatedNodeName");
    if nominated != before.text("nominatedNodeName") && !nominated.is_empty() {
        let at = path.child("nominatedNodeName");
        check::dns_subdomain(faults, &at, nominated);
        if !old["spec"].text("nodeName").is_empty() {
            faults.forbidden(&at, "may not be set on pods that are already bound to a node");
        }
    }
    if status.int("observedGeneration") < 0 {
        faults.invalid_int(&path.child("observedGeneration"), status.int("observedGeneration"), NOT_NEGATIVE);
    }
    if status.text("qosClass") != before.text("qosClass") {
        faults.invalid_str(&path.child("qosClass"), status.text("qosClass"), check::IMMUTABLE);
    }
    for (key, containers) in [
        ("containerStatuses", Some("containers")),
        ("initContainerStatuses", Some("initContainers")),
        ("ephemeralContainerStatuses", None),
    ] {
        transitions(faults, &path.child(key), status.list(key), before.list(key), &old["spec"], containers);
    }
    claims(faults, &path.child("resourceClaimStatuses"), status, &new["spec"]);
    if let Some(extended) = status.opt("extendedResourceClaimStatus") {
        extended_claim(faults, &path.child("extendedResourceClaimStatus"), extended, &new["spec"]);
    }
    addresses(faults, &path.child("podIPs"), status.list("podIPs"), before.list("podIPs"));
    if let Some(first) = status.list("hostIPs").first() {
        let at = path.child("hostIPs");
        if first.text("ip") != status.text("hostIP") {
            faults.invalid_str(&at.index(0).child("ip"), first.text("ip"), "must be equal to `hostIP`");
        }
        addresses(faults, &at, status.list("hostIPs"), before.list("hostIPs"));
    }
    for key in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        users(faults, &path.child(key), status.list(key), &new["spec"]);
    }
    for (key, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        resource_health(faults, &path.child(key), status.list(key), new["spec"].list(containers));
    }
    let ephemeral = path.child("ephemeralContainerStatuses");
    for (i, status) in status.list("ephemeralContainerStatuses").iter().enumerate() {
        if !status.list("allocatedResourcesStatus").is_empty() {
            let at = ephemeral.index(i);
            faults.forbidden(&at.child("allocatedResourcesStatus"), "must not be specified in container status");
        }
    }
}

fn conditions(faults: &mut Faults, path: &Path<'_>, status: &Value) {
    for (i, condition) in status.list("conditions").iter().enumerate() {
        let at = path.index(i);
        let generation = condition.int("observedGeneration");
        if generation < 0 {
            faults.invalid_int(&at.child("observedGeneration"), generation, NOT_NEGATIVE);
        }
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            check::qualified_name(faults, &at.child("Type"), kind);
        }
    }
}

/// A container that has ended may run again only when its policy, its rules (KEP-5307) or the pod's policy restart it.
/// Ephemeral containers, which are in no list of `containers`, never do.
fn transitions(faults: &mut Faults, path: &Path<'_>, new: &[Value], old: &[Value], spec: &Value, containers: Option<&str>) {
    if containers.is_some() && restarts_all(spec) {
        return;
    }
    for (i, before) in old.iter().enumerate() {
        let name = before.text("name");
        let Some(ended) = before["state"].opt("terminated") else { continue };
        let again = new.iter().filter(|now| now.text("name") == name && !now["state"].has("terminated")).count();
        let told = match containers {
            None => again,
            Some(list) => {
                let own = spec.list(list).iter().find(|container| container.text("name") == name);
                let restarts = own.is_some_and(|container| should_restart(container, spec, ended.int("exitCode")));
                again.min(usize::from(!restarts))
            }
        };
        for _ in 0..told {
            faults.forbidden(&path.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Whether the end of some container may restart all of them.
fn restarts_all(spec: &Value) -> bool {
    let mut containers = spec.list("initContainers").iter().chain(spec.list("containers"));
    containers
        .any(|container| container.list("restartPolicyRules").iter().any(|rule| rule.text("action") == "RestartAllContainers"))
}

fn should_restart(container: &Value, spec: &Value, exit_code: i64) -> bool {
    if let Some(policy) = container.opt_text("restartPolicy") {
        let matches = |rule: &&Value| {
            let listed = rule["exitCodes"].list("values").iter().any(|value| value.as_i64() == Some(exit_code));
            match rule["exitCodes"].text("operator") {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        };
        let rule = container.list("restartPolicyRules").iter().find(matches);
        if rule.is_some_and(|rule| matches!(rule.text("action"), "Restart" | "RestartAllContainers")) {
            return true;
        }
        if let Some(restarts) = by_policy(policy, exit_code) {
            return restarts;
        }
    }
    by_policy(spec.text("restartPolicy"), exit_code).unwrap_or(true)
}

fn by_policy(policy: &str, exit_code: i64) -> Option<bool> {
    match policy {
        "Always" => Some(true),
        "OnFailure" => Some(exit_code != 0),
        "Never" => Some(false),
        _ => None,
    }
}

fn claims(faults: &mut Faults, path: &Path<'_>, status: &Value, spec: &Value) {
    let mut seen = HashSet::new();
    for (i, claim) in status.list("resourceClaimStatuses").iter().enumerate() {
        let at = path.index(i);
        let name = claim.text("name");
        if spec.list("resourceClaims").iter().all(|have| have.text("name") != name) {
            faults.invalid_str(&at.child("name"), name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name) {
            check::duplicate(faults, &at.child("name"), name);
        }
        if let Some(claim) = claim.opt_text("resourceClaimName") {
            check::dns_subdomain(faults, &at.child("resourceClaimName"), claim);
        }
    }
}

/// The claim that the scheduler made for extended resources (KEP-5004): each of its requests is for a container's resource.
fn extended_claim(faults: &mut Faults, path: &Path<'_>, status: &Value, spec: &Value) {
    let mappings = path.child("requestMappings");
    if status.list("requestMappings").is_empty() {
        faults.required(&mappings, "at least one request mapping is required");
    }
    let mut seen = HashSet::new();
    for (i, mapping) in status.list("requestMappings").iter().enumerate() {
        let at = mappings.index(i);
        let (container, resource, request) =
            (mapping.text("containerName"), mapping.text("resourceName"), mapping.text("requestName"));
        let mut known = spec.list("containers").iter().chain(spec.list("initContainers"));
        match known.find(|known| known.text("name") == container) {
            Some(found) if found["resources"].map("requests").contains_key(resource) => {}
            Some(_) => faults.invalid_str(
                &at.child("resourceName"),
                resource,
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                 spec.containers.resources.requests",
            ),
            None => faults.invalid_str(
                &at.child("containerName"),
                container,
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
            ),
        }
        check::dns_label(faults, &path.child("requestName"), request);
        if !seen.insert((container, resource, request)) {
            for key in ["containerName", "resourceName", "requestName"] {
                check::duplicate(faults, &at.child(key), mapping.text(key));
            }
        }
    }
    let name = status.text("resourceClaimName");
    let at = path.child("resourceClaimName");
    check::required(faults, &at, name, check::dns_subdomain);
}

/// Addresses of the pod or its node: those that were there before may stay as they are.
fn addresses(faults: &mut Faults, path: &Path<'_>, list: &[Value], old: &[Value]) {
    let all: Vec<&str> = list.iter().map(|address| address.text("ip")).collect();
    for (i, address) in all.iter().enumerate() {
        if old.iter().all(|old| old.text("ip") != *address) {
            check::ip(faults, &path.index(i), address);
        }
    }
    if all.len() > 1 {
        dual_stack(faults, path, list, &all);
    }
}

fn dual_stack(faults: &mut Faults, path: &Path<'_>, list: &[Value], all: &[&str]) {
    let parsed: Option<Vec<bool>> = all.iter().map(|ip| names::parse_ip(ip).map(|ip| ip.is_ipv6())).collect();
    if parsed.is_none() {
        let bad = all.iter().position(|ip| names::parse_ip(ip).is_none()).unwrap_or_default();
        faults.internal(path, &format!("failed to check for dual stack with error:invalid IP[{bad}]: {}", all[bad]));
    }
    let both = parsed.is_some_and(|families| check::is_dual_stack(&families));
    if !both || all.len() > 2 {
        let shown: Vec<Value> = list.iter().map(|address| json!({ "IP": address.text("ip") })).collect();
        faults.invalid(path, &json!(shown), "may specify no more than one IP for each IP family");
    }
}

/// The health of devices: of resources that the container asks for, each device once.
fn resource_health(faults: &mut Faults, path: &Path<'_>, statuses: &[Value], containers: &[Value]) {
    for (i, status) in statuses.iter().enumerate() {
        let here = path.index(i);
        let list = here.child("allocatedResourcesStatus");
        for (j, resource) in status.list("allocatedResourcesStatus").iter().enumerate() {
            let at = list.index(j);
            if let Some(container) = containers.iter().find(|container| container.text("name") == status.text("name")) {
                allocated_name(faults, &at.child("name"), resource.text("name"), &container["resources"]);
            }
            let devices = at.child("resources");
            let mut seen = HashSet::new();
            for (k, device) in resource.list("resources").iter().enumerate() {
                let at = devices.index(k);
                check::one_of(faults, &at.child("health"), device.text("health"), &["Healthy", "Unhealthy", "Unknown"]);
                if !seen.insert(device.text("resourceID")) {
                    check::duplicate(faults, &at.child("resourceID"), device.text("resourceID"));
                }
            }
        }
    }
}

fn allocated_name(faults: &mut Faults, path: &Path<'_>, name: &str, resources: &Value) {
    let (found, detail) = if name.starts_with("claim:") {
        let written = |claim: &Value| match claim.text("request") {
            "" => format!("claim:{}", claim.text("name")),
            request => format!("claim:{}/{request}", claim.text("name")),
        };
        let found = resources.list("claims").iter().any(|claim| written(claim) == name);
        let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                      'claim:<claimName>' if request is empty";
        (found, detail)
    } else {
        (resources.map("requests").contains_key(name), "must match one of the container's resource requests")
    };
    if !found {
        faults.invalid_str(path, name, detail);
    }
}

fn users(faults: &mut Faults, path: &Path<'_>, statuses: &[Value], spec: &Value) {
    const RANGE: &str = "must be between 0 and 2147483647, inclusive";
    let windows = spec["os"].text("name") == "windows";
    for (i, status) in statuses.iter().enumerate() {
        let Some(user) = status["user"].opt("linux") else { continue };
        let here = path.index(i);
        let user_at = here.child("user");
        let at = user_at.child("linux");
        if windows {
            faults.forbidden(&at, "cannot be set for a windows pod");
            continue;
        }
        let fits = |id: i64| (0..=i64::from(i32::MAX)).contains(&id);
        for key in ["uid", "gid"] {
            if !fits(user.int(key)) {
                faults.invalid_int(&at.child(key), user.int(key), RANGE);
            }
        }
        let groups = at.child("supplementalGroups");
        for (j, group) in user.list("supplementalGroups").iter().enumerate() {
            let group = group.as_i64().unwrap_or_default();
            if !fits(group) {
                faults.invalid_int(&groups.index(j), group, RANGE);
            }
        }
    }
}
