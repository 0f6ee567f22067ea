//! Validation of security contexts: of pods, of containers, of Windows and Linux pods, and of the annotations that came before
//! the fields.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::check;
use crate::doc::Read;
use crate::internal;
use crate::pod::{Options, visit};

/// A user or group id, when it is set.
fn id(faults: &mut Faults, path: &Path<'_>, value: Option<i64>) {
    if let Some(value) = value.filter(|value| !(0..=i64::from(i32::MAX)).contains(value)) {
        faults.invalid_int(path, value, "must be between 0 and 2147483647, inclusive");
    }
}

/// `securityContext` of a container.
pub(super) fn container(faults: &mut Faults, path: &Path<'_>, context: &Value, host_users: bool) {
    if context.is_null() {
        return;
    }
    id(faults, &path.child("runAsUser"), context.opt_int("runAsUser"));
    id(faults, &path.child("runAsGroup"), context.opt_int("runAsGroup"));
    if let Some(kind) = context.opt_text("procMount") {
        let at = path.child("procMount");
        check::one_of(faults, &at, kind, &["Default", "Unmasked"]);
        if host_users && kind == "Unmasked" {
            faults.invalid_str(&at, kind, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(faults, &path.child("seccompProfile"), &context["seccompProfile"]);
    if context.opt_flag("allowPrivilegeEscalation") == Some(false) {
        let shown = || internal::shown("SecurityContext", context);
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            check::invalid_shown(faults, path, &shown(), detail);
        }
        for _ in context["capabilities"].texts("add").filter(|name| *name == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            check::invalid_shown(faults, path, &shown(), detail);
        }
    }
    windows_options(faults, &path.child("windowsOptions"), &context["windowsOptions"]);
    app_armor(faults, &path.child("appArmorProfile"), &context["appArmorProfile"]);
}

/// `securityContext` of a pod.
pub(super) fn pod(faults: &mut Faults, path: &Path<'_>, spec: &Value, options: &Options) {
    let context = &spec["securityContext"];
    if context.is_null() {
        return;
    }
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(faults, &path.child(key), context.opt_int(key));
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in context.list("supplementalGroups").iter().enumerate() {
        id(faults, &groups.index(i), group.as_i64());
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        faults.invalid(&path.child("shareProcessNamespace"), &json!(true), detail);
    }
    sysctls(faults, &path.child("sysctls"), spec, options);
    check::optional_one_of(faults, path, context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(faults, &path.child("seccompProfile"), &context["seccompProfile"]);
    windows_options(faults, &path.child("windowsOptions"), &context["windowsOptions"]);
    app_armor(faults, &path.child("appArmorProfile"), &context["appArmorProfile"]);
    check::optional_one_of(faults, path, context, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    // Mounting with a label is only there for pods that already ask for it.
    let policies: &[&str] = if options.mount_option { &["MountOption", "Recursive"] } else { &["Recursive"] };
    check::optional_one_of(faults, path, context, "seLinuxChangePolicy", policies);
}

pub(super) fn sysctls(faults: &mut Faults, path: &Path<'_>, spec: &Value, options: &Options) {
    let mut seen = HashSet::new();
    for (i, sysctl) in spec["securityContext"].list("sysctls").iter().enumerate() {
        let here = path.index(i);
        let at = here.child("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            faults.required(&at, "");
        } else if !is_sysctl_name(name) {
            faults.invalid_str(
                &at,
                name,
                "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if seen.contains(name) {
            check::duplicate(faults, &at, name);
        }
        if !options.lax_sysctls {
            let dotted = dotted_sysctl(name);
            let network = dotted.starts_with("net.");
            let ipc = dotted.starts_with("fs.mqueue.")
                || ["kernel.shm", "kernel.msg", "kernel.sem"].iter().any(|prefix| dotted.starts_with(prefix));
            if network && spec.flag("hostNetwork") {
                faults.invalid_str(&at, name, "may not be specified when 'hostNetwork' is true");
            } else if ipc && spec.flag("hostIPC") {
                faults.invalid_str(&at, name, "may not be specified when 'hostIPC' is true");
            }
        }
        seen.insert(name);
    }
}

/// A sysctl may be written with slashes; when the first separator is one, dots and slashes swap.
fn dotted_sysctl(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let segment_fits = |segment: &str| {
        let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = segment.as_bytes();
        alphanumeric(bytes.first())
            && alphanumeric(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment_fits)
}

fn seccomp(faults: &mut Faults, path: &Path<'_>, profile: &Value) {
    if profile.is_null() {
        return;
    }
    let kind = profile.text("type");
    let at = path.child("localhostProfile");
    if kind.is_empty() {
        faults.required(&path.child("type"), "type is required when seccompProfile is set");
    } else {
        check::one_of(faults, &path.child("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (kind == "Localhost", profile.opt_text("localhostProfile")) {
        (true, None) => faults.required(&at, "must be set when seccomp type is Localhost"),
        (true, Some(file)) => check::descending_path(faults, &at, file),
        (false, Some(_)) => {
            let shown = internal::shown("SeccompProfile", profile);
            check::invalid_shown(faults, &at, &shown, "can only be set when seccomp type is Localhost");
        }
        (false, None) => {}
    }
}

fn app_armor(faults: &mut Faults, path: &Path<'_>, profile: &Value) {
    if profile.is_null() {
        return;
    }
    let at = path.child("localhostProfile");
    let file = profile.opt_text("localhostProfile");
    match profile.text("type") {
        "Localhost" => match file {
            None => faults.required(&at, "must be set when AppArmor type is Localhost"),
            Some(file) => {
                if file.trim() != file {
                    faults.invalid_str(&at, file, "must not be padded with whitespace");
                } else if file.is_empty() {
                    faults.required(&at, "must be set when AppArmor type is Localhost");
                }
                if file.len() > 4095 {
                    faults.too_long(&at, 4095);
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(file) = file {
                faults.invalid_str(&at, file, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => faults.required(&path.child("type"), "type is required when appArmorProfile is set"),
        other => faults.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

fn windows_options(faults: &mut Faults, path: &Path<'_>, options: &Value) {
    if let Some(name) = options.opt_text("gmsaCredentialSpecName") {
        check::dns_subdomain(faults, &path.child("gmsaCredentialSpecName"), name);
    }
    if let Some(spec) = options.opt_text("gmsaCredentialSpec") {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            faults.invalid_str(&at, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 * 1024 {
            faults.invalid_str(&at, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = options.opt_text("runAsUserName") {
        for detail in windows_user(name) {
            faults.invalid_str(&path.child("runAsUserName"), name, detail);
        }
    }
}

/// What is wrong with a Windows user name, `DOMAIN\USER` or `USER`.
fn windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    if name.matches('\\').count() > 1 {
        return vec!["runAsUserName cannot contain more than one backslash"];
    }
    let (domain, user) = match name.split_once('\\') {
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let mut wrong = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            wrong.push("runAsUserName's Domain length must be under 256 characters");
        }
        let net_bios = (1..=15).contains(&domain.chars().count())
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        let label = |label: &str| {
            let bytes = label.as_bytes();
            (1..=63).contains(&bytes.len())
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-'
        };
        if !net_bios && !domain.split('.').all(label) {
            wrong.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        wrong.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        wrong.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        wrong.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    wrong
}

/// Windows HostProcess pods: all containers or none, and on the host's network.
pub(super) fn host_process(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let pod = spec["securityContext"]["windowsOptions"].opt_flag("hostProcess");
    let (mut containers, mut host) = (0, 0);
    visit(spec, path, |container, at| {
        containers += 1;
        let own = container["securityContext"]["windowsOptions"].opt_flag("hostProcess");
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let context = at.child("securityContext");
            let options = context.child("windowsOptions");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            faults.invalid(&options.child("hostProcess"), &json!(own), &detail);
        }
        if own.or(pod).unwrap_or_default() {
            host += 1;
        }
    });
    if host == 0 {
        return;
    }
    if host != containers {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        faults.invalid_str(path, "", detail);
    }
    if !spec.flag("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        faults.invalid(&path.child("hostNetwork"), &json!(false), detail);
    }
}

/// User namespaces (KEP-127) exclude the host's other namespaces, and devices, whose owner cannot be mapped.
pub(super) fn host_users(faults: &mut Faults, path: &Path<'_>, spec: &Value, options: &Options) {
    const WHY: &str = "when `hostUsers` is false";
    if spec.opt_flag("hostUsers") != Some(false) {
        return;
    }
    let keys: &[(&str, &str)] = &[("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")];
    for (key, shown) in &keys[usize::from(options.users_with_network)..] {
        if spec.flag(key) {
            faults.forbidden(&path.child(shown), WHY);
        }
    }
    if options.users_with_devices {
        return;
    }
    visit(spec, path, |container, at| {
        if !container.list("volumeDevices").is_empty() {
            faults.forbidden(&at.child("volumeDevices"), WHY);
        }
    });
}

/// `os` and what it excludes.
pub(super) fn operating_system(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let Some(os) = spec.opt("os") else { return };
    match os.text("name") {
        "" => faults.required(&path.child("os").child("name"), ""),
        "linux" => linux(faults, path, spec),
        "windows" => windows(faults, path, spec),
        other => faults.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
}

fn linux(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if spec["securityContext"].has("windowsOptions") {
        faults.forbidden(&path.child("securityContext").child("windowsOptions"), WHY);
    }
    visit(spec, path, |container, at| {
        if container["securityContext"].has("windowsOptions") {
            faults.forbidden(&at.child("securityContext").child("windowsOptions"), WHY);
        }
    });
}

fn windows(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    const WHY: &str = "cannot be set for a windows pod";
    let context = &spec["securityContext"];
    let at = path.child("securityContext");
    let set = |object: &Value, key: &str| match &object[key] {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    for key in ["appArmorProfile", "seLinuxOptions"] {
        if set(context, key) {
            faults.forbidden(&at.child(key), WHY);
        }
    }
    if spec.has("hostUsers") {
        faults.forbidden(&path.child("hostUsers"), WHY);
    }
    for key in ["hostPID", "hostIPC"] {
        if set(spec, key) {
            faults.forbidden(&path.child(key), WHY);
        }
    }
    for key in ["seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls"] {
        if set(context, key) {
            faults.forbidden(&at.child(key), WHY);
        }
    }
    if spec.has("shareProcessNamespace") {
        faults.forbidden(&path.child("shareProcessNamespace"), WHY);
    }
    for key in ["runAsUser", "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy"] {
        if set(context, key) {
            faults.forbidden(&at.child(key), WHY);
        }
    }
    visit(spec, path, |container, at| {
        let context = &container["securityContext"];
        for key in [
            "appArmorProfile",
            "seLinuxOptions",
            "seccompProfile",
            "capabilities",
            "readOnlyRootFilesystem",
            "privileged",
            "allowPrivilegeEscalation",
            "procMount",
            "runAsUser",
            "runAsGroup",
        ] {
            if context.has(key) {
                faults.forbidden(&at.child("securityContext").child(key), WHY);
            }
        }
    });
}

/// `lifecycle.stopSignal`: Windows knows two signals, Linux all of its own.
pub(super) fn stop_signal(faults: &mut Faults, path: &Path<'_>, signal: &str, os: &str) {
    const WINDOWS: &[&str] = &["SIGKILL", "SIGTERM"];
    const LINUX: &[&str] = &[
        "SIGABRT",
        "SIGALRM",
        "SIGBUS",
        "SIGCHLD",
        "SIGCLD",
        "SIGCONT",
        "SIGFPE",
        "SIGHUP",
        "SIGILL",
        "SIGINT",
        "SIGIO",
        "SIGIOT",
        "SIGKILL",
        "SIGPIPE",
        "SIGPOLL",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGRTMAX",
        "SIGRTMIN",
        "SIGSEGV",
        "SIGSTKFLT",
        "SIGSTOP",
        "SIGSYS",
        "SIGTERM",
        "SIGTRAP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
        "SIGXCPU",
        "SIGXFSZ",
    ];
    let real_time = signal
        .strip_prefix("SIGRTMIN+")
        .or_else(|| signal.strip_prefix("SIGRTMAX-"))
        .and_then(|offset| offset.parse::<u8>().ok())
        .is_some_and(|offset| (1..=15).contains(&offset));
    if os == "windows" {
        check::one_of(faults, path, signal, WINDOWS);
    } else if !real_time {
        check::one_of(faults, path, signal, LINUX);
    }
}
