//! Warnings about pods and templates that are valid, but hardly meant as they are.

use std::collections::{HashMap, HashSet};

use corten_api::field::{Path, quoted};
use serde_json::Value;

use crate::addresses;
use crate::doc::Read;
use crate::pod::{annotations, visit};
use crate::quantity::Quantity;

mod overlap;

/// Warnings about a spec. `parent` is the path of the template, none for a pod.
pub(crate) fn spec(warnings: &mut Vec<String>, parent: Option<&Path<'_>>, spec: &Value, metadata: &Value) {
    let below = |name: &'static str| Place { parent: parent.map(ToString::to_string), name };
    let spec_at = below("spec").text();
    let meta_at = below("metadata").text();
    let template = parent.is_some();
    for key in spec.map("nodeSelector").keys() {
        if let Some(message) = deprecated_label(key) {
            warnings.push(format!("{spec_at}.nodeSelector[{key}]: {message}"));
        }
    }
    node_affinity(warnings, &format!("{spec_at}.affinity.nodeAffinity"), &spec["affinity"]["nodeAffinity"]);
    for (i, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let at = format!("{spec_at}.topologySpreadConstraints[{i}]");
        let key = constraint.text("topologyKey");
        if let Some(message) = deprecated_label(key) {
            warnings.push(format!("{at}.topologyKey: {key} is {message}"));
        }
        if !constraint.has("labelSelector") {
            warnings.push(format!("{at}.labelSelector: a null labelSelector results in matching no pod"));
        }
    }
    let annotations = metadata.map("annotations");
    for (key, message) in DEPRECATED_ANNOTATIONS {
        if annotations.contains_key(*key) {
            warnings.push(format!("{meta_at}.annotations[{key}]: {message}"));
        }
    }
    volumes(warnings, &format!("{spec_at}.volumes"), spec.list("volumes"));
    repeated(warnings, &format!("{spec_at}.hostAliases"), spec.list("hostAliases"), "ip");
    repeated(warnings, &format!("{spec_at}.imagePullSecrets"), spec.list("imagePullSecrets"), "name");
    for (i, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            warnings.push(format!("{spec_at}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    for name in ["memory", "ephemeral-storage"] {
        fractional(warnings, &format!("{spec_at}.overhead[{name}]"), &spec["overhead"][name]);
    }
    if !spec["securityContext"].has("seccompProfile") && annotations.contains_key(SECCOMP_POD) {
        warnings.push(format!("{meta_at}.annotations[{SECCOMP_POD}]: {SECCOMP_GONE}"));
    }
    let root = Path::new("");
    let at = |path: &Path<'_>| format!("{spec_at}{path}");
    visit(spec, &root, |container, path| containers(warnings, &at(path), &meta_at, container, spec, metadata, template));
    ports(warnings, spec, &root, at);
    port_names(warnings, spec, &root, at);
    if spec.opt_int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{spec_at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    affinity_selectors(warnings, &spec_at, spec);
    let servers = spec["dnsConfig"].texts("nameservers");
    warnings.extend(addresses::ip_list_warnings(&format!("{spec_at}.dnsConfig.nameservers"), servers));
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        warnings.extend(addresses::ip_warning(&format!("{spec_at}.hostAliases[{i}].ip"), alias.text("ip")));
    }
}

struct Place {
    parent: Option<String>,
    name: &'static str,
}

impl Place {
    fn text(&self) -> String {
        match &self.parent {
            Some(parent) => format!("{parent}.{}", self.name),
            None => self.name.to_owned(),
        }
    }
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_GONE: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

static DEPRECATED_ANNOTATIONS: &[(&str, &str)] = &[
    ("scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// What to use instead of a node label that is deprecated.
pub(crate) fn deprecated_label(label: &str) -> Option<&'static str> {
    Some(match label {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
        "failure-domain.beta.kubernetes.io/zone" => "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
        "beta.kubernetes.io/instance-type" => "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
        _ => return None,
    })
}

fn node_affinity(warnings: &mut Vec<String>, at: &str, affinity: &Value) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in affinity[required].list("nodeSelectorTerms").iter().enumerate() {
        node_term(warnings, &format!("{at}.{required}.nodeSelectorTerms[{i}]"), term, true);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, weighted) in affinity.list(preferred).iter().enumerate() {
        node_term(warnings, &format!("{at}.{preferred}[{i}].preference"), &weighted["preference"], false);
    }
}

/// Warnings about one node selector term.
pub(crate) fn node_term(warnings: &mut Vec<String>, at: &str, term: &Value, required: bool) {
    for (i, requirement) in term.list("matchExpressions").iter().enumerate() {
        let key = requirement.text("key");
        if let Some(message) = deprecated_label(key) {
            warnings.push(format!("{at}.matchExpressions[{i}].key: {key} is {message}"));
        }
        if required {
            continue;
        }
        for (j, value) in requirement.texts("values").enumerate() {
            for message in crate::names::label_value(value) {
                warnings.push(format!("{at}.matchExpressions[{i}].values[{j}]: {value} is invalid, {message}"));
            }
        }
    }
}

fn volumes(warnings: &mut Vec<String>, at: &str, volumes: &[Value]) {
    const DEPRECATED: &[(&str, &str, &str)] = &[
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (i, volume) in volumes.iter().enumerate() {
        for (key, shown, message) in DEPRECATED {
            if *key == "cephfs"
                && let Some(template) = volume["ephemeral"].opt("volumeClaimTemplate")
            {
                let spec = format!("{at}[{i}].ephemeral.volumeClaimTemplate.spec");
                crate::claim::warnings(warnings, &spec, &template["spec"]);
            }
            if volume.has(key) {
                warnings.push(format!("{at}[{i}].{shown}: {message}"));
            }
        }
    }
    overlap::warnings(warnings, volumes);
}

fn repeated(warnings: &mut Vec<String>, at: &str, items: &[Value], key: &str) {
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let value = item.text(key);
        if !seen.insert(value) {
            warnings.push(format!("{at}[{i}].{key}: duplicate {key} {}", quoted(value)));
        }
    }
}

fn fractional(warnings: &mut Vec<String>, at: &str, amount: &Value) {
    if let Some(quantity) = Quantity::of(amount).filter(|quantity| !quantity.is_whole()) {
        let shown = quoted(&quantity.to_string());
        warnings.push(format!("{at}: fractional byte value {shown} is invalid, must be an integer"));
    }
}

fn containers(
    warnings: &mut Vec<String>,
    at: &str,
    meta_at: &str,
    container: &Value,
    spec: &Value,
    metadata: &Value,
    template: bool,
) {
    let annotations = metadata.map("annotations");
    let context = &container["securityContext"];
    let key = format!("{SECCOMP_CONTAINER}{}", container.text("name"));
    if !context.has("seccompProfile") && annotations.contains_key(&key) {
        warnings.push(format!("{meta_at}.annotations[{key}]: {SECCOMP_GONE}"));
    }
    let key = format!("{APP_ARMOR}{}", container.text("name"));
    let told = |annotation: &Value| annotations::app_armor_profile(annotation.as_str().unwrap_or_default());
    let whole = spec["securityContext"].opt("appArmorProfile");
    if template
        && !context.has("appArmorProfile")
        && let Some(annotation) = annotations.get(&key)
        && whole.is_none_or(|whole| told(annotation).as_ref() != Some(whole))
    {
        let message = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
        warnings.push(format!("{meta_at}.annotations[{key}]: {message}"));
    }
    for name in ["memory", "ephemeral-storage"] {
        for list in ["limits", "requests"] {
            fractional(warnings, &format!("{at}.resources.{list}[{name}]"), &container["resources"][list][name]);
        }
    }
    let mut seen = HashSet::new();
    for (i, variable) in container.list("env").iter().enumerate() {
        let name = variable.text("name");
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let value = variable.text("value");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            let shown = quoted(name);
            warnings.push(format!("{at}.env[{i}]: hides previous definition of {shown}, which may be dropped when using apply"));
        }
    }
}

/// Ports that are declared twice, within a container or across them.
fn ports(warnings: &mut Vec<String>, spec: &Value, root: &Path<'_>, at: impl Fn(&Path<'_>) -> String) {
    let mut seen: Vec<(i64, String, String, i64, String)> = Vec::new();
    visit(spec, root, |container, path| {
        for (i, port) in container.list("ports").iter().enumerate() {
            let here = format!("{}.ports[{i}]", at(path));
            let (number, protocol) = (port.int("containerPort"), port.text("protocol"));
            let (ip, host) = (port.text("hostIP"), port.int("hostPort"));
            if !ip.is_empty() && host == 0 {
                let shown = format!(
                    "{{Name:{} HostPort:{host} ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}",
                    port.text("name")
                );
                warnings.push(format!("{here}: hostIP set without hostPort: {shown}"));
            }
            for (_, _, other_ip, other_host, other) in seen.iter().filter(|(n, p, ..)| *n == number && p == protocol) {
                if ip == other_ip && host == *other_host {
                    warnings.push(format!("{here}: duplicate port definition with {other}"));
                } else if host == 0 || *other_host == 0 {
                    warnings.push(format!("{here}: overlapping port definition with {other}"));
                } else if ip.is_empty() != other_ip.is_empty() && host == *other_host {
                    warnings.push(format!("{here}: dangerously ambiguous port definition with {other}"));
                }
            }
            seen.push((number, protocol.into(), ip.into(), host, here));
        }
    });
}

/// Names of ports that another container has used already.
fn port_names(warnings: &mut Vec<String>, spec: &Value, root: &Path<'_>, at: impl Fn(&Path<'_>) -> String) {
    let mut seen: HashMap<String, String> = HashMap::new();
    visit(spec, root, |container, path| {
        for (i, port) in container.list("ports").iter().enumerate().filter(|(_, port)| !port.text("name").is_empty()) {
            let here = format!("{}.ports[{i}]", at(path));
            let name = port.text("name");
            if let Some(other) = seen.get(name) {
                let shown = quoted(name);
                let use_of = "services and probes that select ports by name will use";
                warnings.push(format!("{here}: duplicate port name {shown} with {other}, {use_of} {other}"));
            } else {
                seen.insert(name.to_owned(), here);
            }
        }
    });
}

fn affinity_selectors(warnings: &mut Vec<String>, spec_at: &str, spec: &Value) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = &spec["affinity"][kind];
        let mut check = |at: String, term: &Value| {
            if !term.has("labelSelector") {
                warnings.push(format!("{at}.labelSelector: a null labelSelector results in matching no pod"));
            }
        };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in affinity.list(required).iter().enumerate() {
            check(format!("{spec_at}.affinity.{kind}.{required}[{i}]"), term);
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, weighted) in affinity.list(preferred).iter().enumerate() {
            check(format!("{spec_at}.affinity.{kind}.{preferred}[{i}].podAffinityTerm"), &weighted["podAffinityTerm"]);
        }
    }
}
