//! The checks of the Pod Security Standards, each a pure function from a pod to what is wrong with it, in the order and
//! the words of the reference (`k8s.io/pod-security-admission/policy`).

use serde_json::Value;

use super::super::tools::{items, members, quoted, text};
use super::{Level, Standard};

/// What one check found.
pub(super) struct Fault {
    reason: String,
    detail: String,
}

type Check = fn(&Pod<'_>) -> Option<Fault>;

/// Every check: since which minor version, for which level (baseline ones hold for restricted too), and whether a
/// stricter one takes its place there.
const CHECKS: [(u32, Level, bool, Check); 18] = [
    (8, Level::Restricted, false, privilege_escalation),
    (0, Level::Baseline, false, app_armor),
    (0, Level::Baseline, true, added_capabilities),
    (22, Level::Restricted, false, capabilities),
    (0, Level::Baseline, false, host_namespaces),
    (0, Level::Baseline, true, host_path_volumes),
    (0, Level::Baseline, false, host_ports),
    (34, Level::Baseline, false, probe_hosts),
    (0, Level::Baseline, false, privileged),
    (0, Level::Baseline, false, proc_mount),
    (0, Level::Restricted, false, volume_types),
    (0, Level::Restricted, false, run_as_non_root),
    (23, Level::Restricted, false, run_as_user),
    (0, Level::Baseline, false, se_linux),
    (19, Level::Baseline, true, seccomp_baseline),
    (19, Level::Restricted, false, seccomp_restricted),
    (0, Level::Baseline, false, sysctls),
    (0, Level::Baseline, false, windows_host_process),
];

/// What is wrong with a pod (or a pod template) by a standard.
pub(super) fn run(pod: &Value, standard: &Standard) -> Vec<Fault> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let pod = Pod { document: pod, windows: text(pod, "/spec/os/name") == "windows" && standard.since(25) };
    let applies = |(since, level, replaced, _): &&(u32, Level, bool, Check)| {
        standard.since(*since) && *level <= standard.level && !(*replaced && standard.level == Level::Restricted)
    };
    CHECKS.iter().filter(applies).filter_map(|(.., check)| check(&pod)).collect()
}

/// `host namespaces (hostNetwork=true), privileged (…)`
pub(super) fn details(faults: &[Fault]) -> String {
    let shown = faults.iter().map(|fault| match fault.detail.as_str() {
        "" => fault.reason.clone(),
        detail => format!("{} ({detail})", fault.reason),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// `host namespaces, privileged`
pub(super) fn reasons(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.reason.as_str()).collect::<Vec<_>>().join(", ")
}

struct Pod<'p> {
    document: &'p Value,
    windows: bool,
}

impl<'p> Pod<'p> {
    fn spec(&self) -> &'p Value {
        &self.document["spec"]
    }

    fn security(&self) -> &'p Value {
        &self.spec()["securityContext"]
    }

    fn containers(&self) -> impl Iterator<Item = &'p Value> {
        let spec = self.spec();
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(&spec[list]))
    }

    /// Names of the containers for which `bad` holds.
    fn bad(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'p str> {
        self.containers().filter(|container| bad(container)).map(|container| text(container, "/name")).collect()
    }
}

fn fault(reason: impl Into<String>, detail: String) -> Option<Fault> {
    Some(Fault { reason: reason.into(), detail })
}

fn plural<'t>(one: &'t str, many: &'t str, count: usize) -> &'t str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

fn unique<'v>(values: impl IntoIterator<Item = &'v str>) -> Vec<&'v str> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Fault> {
    let bad = pod.bad(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if bad.is_empty() || pod.windows {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    fault("allowPrivilegeEscalation != false", detail)
}

fn app_armor(pod: &Pod<'_>) -> Option<Fault> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let allowed = |profile: &str| matches!(profile, "" | "RuntimeDefault" | "Localhost");
    let profile = |context: &'_ Value| text(context, "/appArmorProfile/type").to_owned();
    let mut setters = Vec::new();
    let mut values = Vec::new();
    let own = profile(pod.security());
    if !allowed(&own) {
        setters.push("pod".to_owned());
        values.push(format!("{own:?}"));
    }
    let bad = pod.bad(|container| !allowed(&profile(&container["securityContext"])));
    if !bad.is_empty() {
        setters.push(containers(&bad));
        let found = pod.containers().map(|container| profile(&container["securityContext"]));
        values.extend(found.filter(|profile| !allowed(profile)).map(|profile| format!("{profile:?}")));
    }
    values.sort_unstable();
    values.dedup();
    let mut forbidden = Vec::new();
    if !setters.is_empty() {
        let value = plural("type to", "types to", values.len());
        forbidden.push(format!("{} must not set AppArmor profile {value} {}", setters.join(" and "), values.join(", ")));
    }
    let mut annotations: Vec<String> = members(&pod.document["metadata"]["annotations"])
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .filter_map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let good = matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
            (!good).then(|| format!("{key}={value:?}"))
        })
        .collect();
    annotations.sort_unstable();
    if !annotations.is_empty() {
        forbidden.push(format!("{} {}", plural("annotation", "annotations", annotations.len()), annotations.join(", ")));
    }
    if forbidden.is_empty() {
        return None;
    }
    let count = values.len() + annotations.len();
    fault(plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count), forbidden.join(", "))
}

/// The capabilities that a runtime gives anyway.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn added<'p>(container: &'p Value, allowed: &'p [&'p str]) -> impl Iterator<Item = &'p str> {
    let added = items(&container["securityContext"]["capabilities"]["add"]).filter_map(Value::as_str);
    added.filter(|capability| !allowed.contains(capability))
}

fn forbidden_capabilities(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
    let bad = pod.bad(|container| added(container, allowed).next().is_some());
    let capabilities = unique(pod.containers().flat_map(|container| {
        let all = items(&container["securityContext"]["capabilities"]["add"]).filter_map(Value::as_str);
        all.filter(|capability| !allowed.contains(capability))
    }));
    (!bad.is_empty())
        .then(|| format!("{} must not include {} in securityContext.capabilities.add", containers(&bad), quoted(capabilities)))
}

fn added_capabilities(pod: &Pod<'_>) -> Option<Fault> {
    fault("non-default capabilities", forbidden_capabilities(pod, &DEFAULT_CAPABILITIES)?)
}

fn capabilities(pod: &Pod<'_>) -> Option<Fault> {
    if pod.windows {
        return None;
    }
    let drops_all =
        |container: &Value| items(&container["securityContext"]["capabilities"]["drop"]).any(|dropped| dropped == "ALL");
    let bad = pod.bad(|container| !drops_all(container));
    let mut details = Vec::new();
    if !bad.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&bad)));
    }
    details.extend(forbidden_capabilities(pod, &["NET_BIND_SERVICE"]));
    if details.is_empty() { None } else { fault("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Fault> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec()[field] == true);
    let set: Vec<_> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { fault("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Fault> {
    let volumes = items(&pod.spec()["volumes"]).filter(|volume| volume.get("hostPath").is_some_and(|path| !path.is_null()));
    let names: Vec<_> = volumes.map(|volume| text(volume, "/name")).collect();
    if names.is_empty() {
        return None;
    }
    fault("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Fault> {
    let ports = |container: &Value| {
        items(&container["ports"]).filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect::<Vec<_>>()
    };
    let bad = pod.bad(|container| !ports(container).is_empty());
    if bad.is_empty() {
        return None;
    }
    let mut used: Vec<_> = pod.containers().flat_map(ports).map(|port| port.to_string()).collect();
    used.sort_unstable();
    used.dedup();
    let uses = plural("uses", "use", bad.len());
    let port = plural("hostPort", "hostPorts", used.len());
    fault("hostPort", format!("{} {uses} {port} {}", containers(&bad), used.join(", ")))
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Fault> {
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = [
            &container["livenessProbe"],
            &container["readinessProbe"],
            &container["startupProbe"],
            &container["lifecycle"]["postStart"],
            &container["lifecycle"]["preStop"],
        ];
        let hosts = handlers.into_iter().flat_map(|handler| [text(handler, "/httpGet/host"), text(handler, "/tcpSocket/host")]);
        hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let bad = pod.bad(|container| !hosts(container).is_empty());
    if bad.is_empty() {
        return None;
    }
    let found: Vec<String> = pod.containers().flat_map(hosts).collect();
    let found = unique(found.iter().map(String::as_str));
    let uses = plural("uses", "use", bad.len());
    let host = plural("probe or lifecycle host", "probe or lifecycle hosts", found.len());
    fault("probe or lifecycle host", format!("{} {uses} {host} {}", containers(&bad), quoted(found)))
}

fn privileged(pod: &Pod<'_>) -> Option<Fault> {
    let bad = pod.bad(|container| container["securityContext"]["privileged"] == true);
    if bad.is_empty() {
        return None;
    }
    fault("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Fault> {
    // In a user namespace of its own a pod may see its own processes only.
    if pod.spec()["hostUsers"] == false {
        return None;
    }
    let kind = |container: &Value| text(container, "/securityContext/procMount").to_owned();
    let bad = pod.bad(|container| !matches!(kind(container).as_str(), "" | "Default"));
    if bad.is_empty() {
        return None;
    }
    let found: Vec<String> = pod.containers().map(kind).filter(|kind| !matches!(kind.as_str(), "" | "Default")).collect();
    let found = unique(found.iter().map(String::as_str));
    fault("procMount", format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(found)))
}

fn volume_types(pod: &Pod<'_>) -> Option<Fault> {
    const ALLOWED: [&str; 9] =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"];
    let kind = |volume: &Value| members(volume).map(|(key, _)| key.clone()).find(|key| key != "name");
    let bad: Vec<_> = items(&pod.spec()["volumes"])
        .filter_map(|volume| Some((text(volume, "/name"), kind(volume)?)))
        .filter(|(_, kind)| !ALLOWED.contains(&kind.as_str()))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let kinds = unique(bad.iter().map(|(_, kind)| kind.as_str()));
    let volumes = plural("volume", "volumes", bad.len());
    let uses = plural("uses", "use", bad.len());
    let types = plural("restricted volume type", "restricted volume types", kinds.len());
    let names = quoted(bad.iter().map(|(name, _)| *name));
    fault("restricted volume types", format!("{volumes} {names} {uses} {types} {}", quoted(kinds)))
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Fault> {
    let of_pod = pod.security()["runAsNonRoot"].as_bool();
    let mut setters = Vec::new();
    if of_pod == Some(false) {
        setters.push("pod".to_owned());
    }
    let explicit = pod.bad(|container| container["securityContext"]["runAsNonRoot"] == false);
    if !explicit.is_empty() {
        setters.push(containers(&explicit));
    }
    if !setters.is_empty() {
        return fault(
            "runAsNonRoot != true",
            format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and ")),
        );
    }
    let implicit = pod.bad(|container| of_pod != Some(true) && !container["securityContext"]["runAsNonRoot"].is_boolean());
    if implicit.is_empty() {
        return None;
    }
    fault("runAsNonRoot != true", format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

fn run_as_user(pod: &Pod<'_>) -> Option<Fault> {
    let mut setters = Vec::new();
    if pod.security()["runAsUser"] == 0 {
        setters.push("pod".to_owned());
    }
    let bad = pod.bad(|container| container["securityContext"]["runAsUser"] == 0);
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    if setters.is_empty() { None } else { fault("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and "))) }
}

fn se_linux(pod: &Pod<'_>) -> Option<Fault> {
    const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let options = |context: &Value| {
        let get = |field: &str| text(context, &format!("/seLinuxOptions/{field}")).to_owned();
        (get("type"), get("user"), get("role"))
    };
    let is_bad =
        |(kind, user, role): &(String, String, String)| !TYPES.contains(&kind.as_str()) || !user.is_empty() || !role.is_empty();
    let own = options(pod.security());
    let mut setters = Vec::new();
    if is_bad(&own) {
        setters.push("pod".to_owned());
    }
    let bad = pod.bad(|container| is_bad(&options(&container["securityContext"])));
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    if setters.is_empty() {
        return None;
    }
    let all: Vec<_> = pod.containers().map(|container| options(&container["securityContext"])).chain([own]).collect();
    let types = unique(all.iter().map(|(kind, ..)| kind.as_str()).filter(|kind| !TYPES.contains(kind)));
    let mut details = Vec::new();
    if !types.is_empty() {
        details.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    if all.iter().any(|(_, user, _)| !user.is_empty()) {
        details.push("user may not be set".to_owned());
    }
    if all.iter().any(|(.., role)| !role.is_empty()) {
        details.push("role may not be set".to_owned());
    }
    fault(
        "seLinuxOptions",
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), details.join("; ")),
    )
}

/// Who sets a seccomp profile that is none, and which.
fn bad_seccomp(pod: &Pod<'_>) -> Option<Fault> {
    let kind = |context: &Value| text(context, "/seccompProfile/type").to_owned();
    let is_bad = |kind: &String| !matches!(kind.as_str(), "" | "RuntimeDefault" | "Localhost");
    let own = kind(pod.security());
    let mut setters = Vec::new();
    if is_bad(&own) {
        setters.push("pod".to_owned());
    }
    let bad = pod.bad(|container| is_bad(&kind(&container["securityContext"])));
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    if setters.is_empty() {
        return None;
    }
    let all: Vec<_> = pod.containers().map(|container| kind(&container["securityContext"])).chain([own]).filter(is_bad).collect();
    let values = unique(all.iter().map(String::as_str));
    fault(
        "seccompProfile",
        format!("{} must not set securityContext.seccompProfile.type to {}", setters.join(" and "), quoted(values)),
    )
}

fn seccomp_baseline(pod: &Pod<'_>) -> Option<Fault> {
    bad_seccomp(pod)
}

fn seccomp_restricted(pod: &Pod<'_>) -> Option<Fault> {
    if pod.windows {
        return None;
    }
    if let Some(fault) = bad_seccomp(pod) {
        return Some(fault);
    }
    let set = |context: &Value| !text(context, "/seccompProfile/type").is_empty();
    if set(pod.security()) {
        return None;
    }
    let open = pod.bad(|container| !set(&container["securityContext"]));
    if open.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&open)
    );
    fault("seccompProfile", detail)
}

fn sysctls(pod: &Pod<'_>) -> Option<Fault> {
    const SAFE: [&str; 12] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ];
    let names = items(&pod.security()["sysctls"]).map(|sysctl| text(sysctl, "/name"));
    let bad: Vec<_> = names.filter(|name| !SAFE.contains(name)).collect();
    if bad.is_empty() { None } else { fault("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>) -> Option<Fault> {
    let set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let mut setters = Vec::new();
    if set(pod.security()) {
        setters.push("pod".to_owned());
    }
    let bad = pod.bad(|container| set(&container["securityContext"]));
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    if setters.is_empty() {
        return None;
    }
    fault("hostProcess", format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn faults_are_told_in_the_references_words() {
        let good = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}});
        check(Level::Privileged, json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}), "");
        check(Level::Baseline, json!({"hostNetwork": true, "containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            "host namespaces (hostNetwork=true), privileged (container \"c\" must not set securityContext.privileged=true)");
        check(Level::Baseline, json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}], "containers": [{"name": "c", "ports": [{"hostPort": 80}],
            "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), hostPath volumes (volume \"v\"), hostPort (container \"c\" uses hostPort 80)");
        check(Level::Restricted, json!({"containers": [{"name": "c"}]}),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")");
        check(Level::Restricted, json!({"containers": [{"name": "c", "securityContext": good}]}), "");
        check(Level::Restricted, json!({"volumes": [{"name": "v", "hostPath": {}}], "containers": [{"name": "c", "securityContext": good}]}),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")");
        check(Level::Baseline, json!({"securityContext": {"sysctls": [{"name": "kernel.x"}]}, "containers": []}), "forbidden sysctls (kernel.x)");
        #[track_caller]
        fn check(level: Level, spec: Value, expected: &str) {
            let standard = Standard { level, version: "latest".into() };
            assert_eq!(details(&run(&json!({"spec": spec}), &standard)), expected);
        }
    }
}
