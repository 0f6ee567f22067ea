//! Validation of containers: regular, init and ephemeral ones.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Map, Value, json};

use crate::check;
use crate::doc::Read;
use crate::pod::{Options, aggregate, env, security};
use crate::quantity::Quantity;
use crate::resources;

/// What the containers of one pod are checked against.
pub(super) struct Around<'a> {
    /// The whole pod spec.
    pub(super) spec: &'a Value,
    /// Volumes without faults.
    pub(super) volumes: Vec<&'a Value>,
    /// What is let pass.
    pub(super) options: &'a Options,
}

impl Around<'_> {
    fn grace(&self) -> Option<i64> {
        self.spec.opt_int("terminationGracePeriodSeconds")
    }

    fn host_users(&self) -> bool {
        self.spec.opt_flag("hostUsers").unwrap_or(true)
    }

    fn claim_names(&self) -> Vec<&str> {
        self.spec.list("resourceClaims").iter().map(|claim| claim.text("name")).filter(|name| !name.is_empty()).collect()
    }
}

/// `containers`
pub(super) fn regular(faults: &mut Faults, path: &Path<'_>, around: &Around<'_>) {
    let containers = around.spec.list("containers");
    if containers.is_empty() {
        return faults.required(path, "");
    }
    let mut seen = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        common(faults, &at, container, around);
        if !seen.insert(container.text("name")) {
            check::duplicate(faults, &at.child("name"), container.text("name"));
        }
        if let Some(lifecycle) = container.opt("lifecycle") {
            hooks(faults, &at.child("lifecycle"), lifecycle, around);
        }
        probes(faults, &at, container, around);
        restart_policy(faults, &at, container);
    }
    host_port_conflicts(faults, path, containers.iter().enumerate());
}

/// `initContainers`
pub(super) fn init(faults: &mut Faults, path: &Path<'_>, around: &Around<'_>) {
    let mut seen: HashSet<&str> = around.spec.list("containers").iter().map(|c| c.text("name")).collect();
    for (i, container) in around.spec.list("initContainers").iter().enumerate() {
        let at = path.index(i);
        common(faults, &at, container, around);
        init_restart_policy(faults, &at, container);
        let name = container.text("name");
        if seen.contains(name) {
            check::duplicate(faults, &at.child("name"), name);
        } else if !name.is_empty() {
            seen.insert(name);
        }
        // Init containers run one by one, so only a container's own ports can clash.
        host_port_conflicts(faults, path, std::iter::once((0, container)));
        if aggregate::is_sidecar(container) {
            if let Some(lifecycle) = container.opt("lifecycle") {
                hooks(faults, &at.child("lifecycle"), lifecycle, around);
            }
            probes(faults, &at, container, around);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.has(key) {
                    faults.forbidden(&at.child(key), "may not be set for init containers without restartPolicy=Always");
                }
            }
        }
        init_resize_policy(faults, &at, container, around.options);
    }
}

/// `ephemeralContainers`
pub(super) fn ephemeral(faults: &mut Faults, path: &Path<'_>, around: &Around<'_>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    const REFUSED: &[&str] = &[
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let spec = around.spec;
    let others: HashSet<&str> =
        spec.list("containers").iter().chain(spec.list("initContainers")).map(|c| c.text("name")).collect();
    let mut seen = others.clone();
    for (i, container) in spec.list("ephemeralContainers").iter().enumerate() {
        let at = path.index(i);
        common(faults, &at, container, around);
        image_is_trimmed(faults, &at, container);
        if !seen.insert(container.text("name")) {
            check::duplicate(faults, &at.child("name"), container.text("name"));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            faults.not_found(&at.child("targetContainerName"), &json!(target));
        }
        for key in REFUSED {
            // An empty list or object is a list or object that was sent.
            let set = match &container[*key] {
                Value::Object(map) => *key != "resources" || !map.is_empty(),
                other => !other.is_null(),
            };
            if set {
                faults.forbidden(&at.child(key), WHY);
            }
        }
        let mounts = at.child("volumeMounts");
        for (j, mount) in container.list("volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !mount.text(key).is_empty() {
                    faults.forbidden(&mounts.index(j).child(key), WHY);
                }
            }
        }
    }
}

/// What holds for every container of a real pod but not of a template: no blanks around the image.
pub(super) fn image_is_trimmed(faults: &mut Faults, path: &Path<'_>, container: &Value) {
    let image = container.text("image");
    if image.trim().len() != image.len() {
        faults.invalid_str(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn common(faults: &mut Faults, path: &Path<'_>, container: &Value, around: &Around<'_>) {
    let name = container.text("name");
    if name.is_empty() {
        faults.required(&path.child("name"), "");
    } else {
        check::dns_label(faults, &path.child("name"), name);
    }
    if container.text("image").is_empty() {
        faults.required(&path.child("image"), "");
    }
    check::required_one_of(
        faults,
        &path.child("terminationMessagePolicy"),
        container.text("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(faults, &path.child("ports"), container);
    env::variables(faults, &path.child("env"), container.list("env"));
    env::sources(faults, &path.child("envFrom"), container.list("envFrom"));
    mounts(faults, &path.child("volumeMounts"), container, around);
    devices(faults, &path.child("volumeDevices"), container, around);
    pull_policy(faults, &path.child("imagePullPolicy"), container.text("imagePullPolicy"));
    requirements(
        faults,
        &path.child("resources"),
        &container["resources"],
        resources::check_container_name,
        &around.claim_names(),
        around.options,
    );
    resize_policy(faults, &path.child("resizePolicy"), container, around.spec.text("restartPolicy"));
    security::container(faults, &path.child("securityContext"), &container["securityContext"], around.host_users());
}

/// `imagePullPolicy`
pub(super) fn pull_policy(faults: &mut Faults, path: &Path<'_>, policy: &str) {
    check::required_one_of(faults, path, policy, &["Always", "IfNotPresent", "Never"]);
}

/// Protocols of ports, sorted.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

fn ports(faults: &mut Faults, path: &Path<'_>, container: &Value) {
    let mut seen = HashSet::new();
    for (i, port) in container.list("ports").iter().enumerate() {
        let at = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            let messages = crate::names::port_name(name);
            if !messages.is_empty() {
                check::invalid_each(faults, &at.child("name"), name, messages);
            } else if !seen.insert(name) {
                check::duplicate(faults, &at.child("name"), name);
            }
        }
        let number = port.int("containerPort");
        if number == 0 {
            faults.required(&at.child("containerPort"), "");
        } else {
            check::port_number(faults, &at.child("containerPort"), number);
        }
        if port.int("hostPort") != 0 {
            check::port_number(faults, &at.child("hostPort"), port.int("hostPort"));
        }
        check::required_one_of(faults, &at.child("protocol"), port.text("protocol"), PROTOCOLS);
    }
}

fn host_port_conflicts<'a>(faults: &mut Faults, path: &Path<'_>, containers: impl Iterator<Item = (usize, &'a Value)>) {
    let mut seen = HashSet::new();
    for (i, container) in containers {
        let at = path.index(i);
        let ports = at.child("ports");
        for (j, port) in container.list("ports").iter().enumerate() {
            let number = port.int("hostPort");
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            if seen.contains(&key) {
                check::duplicate(faults, &ports.index(j).child("hostPort"), &key);
            } else {
                seen.insert(key);
            }
        }
    }
}

fn mounts(faults: &mut Faults, path: &Path<'_>, container: &Value, around: &Around<'_>) {
    let mut points = HashSet::new();
    let devices = container.list("volumeDevices");
    let privileged = container["securityContext"].flag("privileged");
    for (i, mount) in container.list("volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            faults.required(&at.child("name"), "");
        }
        let volume = around.volumes.iter().find(|volume| volume.text("name") == name);
        if volume.is_none() {
            faults.not_found(&at.child("name"), &json!(name));
        }
        if target.is_empty() {
            faults.required(&at.child("mountPath"), "");
        }
        if !points.insert(target) {
            faults.invalid_str(&at.child("mountPath"), target, "must be unique");
        }
        if devices.iter().any(|device| device.text("name") == name) {
            faults.invalid_str(&at.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.text("devicePath") == target) {
            faults.invalid_str(&at.child("mountPath"), target, "must not already exist as a path in volumeDevices");
        }
        let (sub, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !sub.is_empty() {
            check::descending_path(faults, &path.child("subPath"), sub);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                faults.invalid_str(&at.child("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
            }
            check::descending_path(faults, &path.child("subPathExpr"), expression);
        }
        propagation(faults, path, mount, privileged);
    }
}

fn propagation(faults: &mut Faults, path: &Path<'_>, mount: &Value, privileged: bool) {
    let mode = mount.opt_text("mountPropagation");
    if let Some(mode) = mode {
        let at = path.child("mountPropagation");
        check::one_of(faults, &at, mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode == "Bidirectional" && !privileged {
            faults.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    let at = path.child("recursiveReadOnly");
    match mount.opt_text("recursiveReadOnly") {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !mount.flag("readOnly") {
                faults.forbidden(&at, "may only be specified when readOnly is true");
            }
            if mode.is_some_and(|mode| mode != "None") {
                faults.forbidden(&at, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => faults.not_supported(&at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(faults: &mut Faults, path: &Path<'_>, container: &Value, around: &Around<'_>) {
    let mounts = container.list("volumeMounts");
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (i, device) in container.list("volumeDevices").iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (device.text("name"), device.text("devicePath"));
        if name.is_empty() {
            faults.required(&at.child("name"), "");
        }
        if names.contains(name) {
            faults.invalid_str(&at.child("name"), name, "must be unique");
        }
        match around.volumes.iter().find(|volume| volume.text("name") == name) {
            None => faults.not_found(&at.child("name"), &json!(name)),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => faults.invalid_str(
                &at.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        let path_at = at.child("devicePath");
        if target.is_empty() {
            faults.required(&path_at, "");
        }
        if paths.contains(target) {
            faults.invalid_str(&path_at, target, "must be unique");
        }
        if target.split('/').any(|part| part == "..") {
            faults.invalid_str(&path_at, target, "can not contain backsteps ('..')");
        } else {
            paths.insert(target);
        }
        if mounts.iter().any(|mount| mount.text("name") == name) {
            faults.invalid_str(&at.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == target) {
            faults.invalid_str(&path_at, target, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}

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

fn resize_policy(faults: &mut Faults, path: &Path<'_>, container: &Value, pod_restart: &str) {
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

/// `restartPolicy` and `restartPolicyRules` of a regular container, or of an init container that has a policy (KEP-5307).
fn restart_policy(faults: &mut Faults, path: &Path<'_>, container: &Value) {
    let rules = container.list("restartPolicyRules");
    let policy_at = path.child("restartPolicy");
    match container.opt_text("restartPolicy") {
        None if rules.is_empty() => return,
        None => faults.required(&policy_at, RULES_WITHOUT_POLICY),
        Some(policy) => check::one_of(faults, &policy_at, policy, &["Always", "Never", "OnFailure"]),
    }
    let at = path.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        faults.too_many(&at, rules.len(), MAX_RESTART_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let here = at.index(i);
        check::one_of(faults, &here.child("action"), rule.text("action"), &["Restart", "RestartAllContainers"]);
        let exit = here.child("exitCodes");
        let Some(codes) = rule.opt("exitCodes") else {
            faults.required(&exit, "must be specified");
            continue;
        };
        check::one_of(faults, &exit.child("operator"), codes.text("operator"), &["In", "NotIn"]);
        let count = codes.list("values").len();
        if count > MAX_EXIT_CODES {
            faults.too_many(&exit.child("values"), count, MAX_EXIT_CODES);
        }
    }
}

const RULES_WITHOUT_POLICY: &str = "must specify restartPolicy when restart rules are used";
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// The same of an init container: rules alone ask only for a policy.
fn init_restart_policy(faults: &mut Faults, path: &Path<'_>, container: &Value) {
    if container.has("restartPolicy") {
        restart_policy(faults, path, container);
    } else if !container.list("restartPolicyRules").is_empty() {
        faults.required(&path.child("restartPolicy"), RULES_WITHOUT_POLICY);
    }
}

/// An init container that ends is never restarted for new resources.
fn init_resize_policy(faults: &mut Faults, path: &Path<'_>, container: &Value, options: &Options) {
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
pub(super) fn restarts(policy: &Value) -> bool {
    policy.text("restartPolicy") == "RestartContainer"
}

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

fn hooks(faults: &mut Faults, path: &Path<'_>, lifecycle: &Value, around: &Around<'_>) {
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

fn probes(faults: &mut Faults, path: &Path<'_>, container: &Value, around: &Around<'_>) {
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
