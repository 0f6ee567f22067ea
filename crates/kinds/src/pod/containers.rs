//! Validation of containers: regular, init and ephemeral ones.

mod amounts;
mod handlers;
mod restart;

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::check;
use crate::doc::Read;
use crate::pod::{Options, aggregate, env, security};
use crate::resources;

use amounts::{init_resize_policy, resize_policy};
pub(crate) use amounts::{requirements, restarts};
use handlers::{hooks, probes};
use restart::{init_restart_policy, restart_policy};

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
    check::required(faults, &path.child("name"), name, check::dns_label);
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
