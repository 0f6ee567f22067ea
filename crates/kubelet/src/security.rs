//! Security contexts of pod and container as the runtime takes them, and the check of `runAsNonRoot`.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};

use corten_runtime::{NamespaceOptions, SeccompProfile, SecurityContext};

use crate::pod::PodExt;

/// The container would run as root though it must not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NonRootError(String);

/// Effective settings: the container's where set, else the pod's. `seccomp_root` holds `Localhost` profiles.
pub fn context(
    pod: &Pod,
    container: &Container,
    seccomp_root: &Path,
    seccomp_default: bool,
    target: Option<String>,
) -> SecurityContext {
    let of_pod = pod.spec().security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    let mut supplemental_groups = of_pod.supplemental_groups.unwrap_or_default();
    supplemental_groups.extend(of_pod.fs_group);
    let profile = own.seccomp_profile.or(of_pod.seccomp_profile);
    let seccomp = match profile.as_ref().map(|profile| profile.type_.as_str()) {
        _ if privileged => SeccompProfile::Unconfined,
        Some("Unconfined") => SeccompProfile::Unconfined,
        Some("Localhost") => {
            let name = profile.and_then(|profile| profile.localhost_profile).unwrap_or_default();
            SeccompProfile::Localhost(seccomp_root.join(name))
        }
        None if !seccomp_default => SeccompProfile::Unconfined,
        _ => SeccompProfile::RuntimeDefault,
    };
    let upper = |names: Option<Vec<String>>| -> Vec<String> {
        let names = names.unwrap_or_default().into_iter();
        names.map(|name| name.to_uppercase().trim_start_matches("CAP_").to_owned()).collect()
    };
    SecurityContext {
        privileged,
        add_capabilities: upper(capabilities.add),
        drop_capabilities: upper(capabilities.drop),
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_username: String::new(),
        supplemental_groups,
        supplemental_groups_strict: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp,
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        namespaces: namespaces(pod),
        target_container: target,
    }
}

/// Namespaces the pod shares.
pub fn namespaces(pod: &Pod) -> NamespaceOptions {
    let spec = pod.spec();
    NamespaceOptions {
        host_network: spec.host_network.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        host_pid: spec.host_pid.unwrap_or(false),
        share_process_namespace: spec.share_process_namespace.unwrap_or(false),
    }
}

/// Checks `runAsNonRoot` against the user the container would get. `image_user` is the image's, such as `1000:1000`.
pub fn check_non_root(pod: &Pod, container: &Container, image_user: &str) -> Result<(), NonRootError> {
    let of_pod = pod.spec().security_context.as_ref();
    let own = container.security_context.as_ref();
    let required = own.and_then(|own| own.run_as_non_root).or_else(|| of_pod.and_then(|pod| pod.run_as_non_root));
    if required != Some(true) {
        return Ok(());
    }
    let wanted = own.and_then(|own| own.run_as_user).or_else(|| of_pod.and_then(|pod| pod.run_as_user));
    let place = format!("(pod: {:?}, container: {})", pod.described(), container.name);
    let user = image_user.split(':').next().unwrap_or_default();
    match (wanted, user.parse::<i64>()) {
        (Some(0), _) => Err(NonRootError(format!("container's runAsUser breaks non-root policy {place}"))),
        (Some(_), _) => Ok(()),
        (None, Ok(0)) => Err(NonRootError(format!("container has runAsNonRoot and image will run as root {place}"))),
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) if user.is_empty() => {
            Err(NonRootError(format!("container has runAsNonRoot and image will run as root {place}")))
        }
        (None, Err(_)) => Err(NonRootError(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::pod;

    #[test]
    #[rustfmt::skip]
    fn root_is_refused_where_forbidden() {
        let place = "(pod: \"web_default(u1)\", container: a)";
        check("{}", "", None);
        check("{runAsNonRoot: true}", "", Some(format!("container has runAsNonRoot and image will run as root {place}")));
        check("{runAsNonRoot: true}", "1000:1000", None);
        check("{runAsNonRoot: true}", "nginx", Some(format!("container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root {place}")));
        check("{runAsNonRoot: true, runAsUser: 0}", "1000", Some(format!("container's runAsUser breaks non-root policy {place}")));
        check("{runAsNonRoot: true, runAsUser: 7}", "", None);
        #[track_caller]
        fn check(context: &str, user: &str, expected: Option<String>) {
            let pod = pod(&format!("{{securityContext: {context}, containers: [{{name: a}}]}}"));
            let got = check_non_root(&pod, &pod.spec().containers[0], user);
            assert_eq!(got.err().map(|err| err.to_string()), expected);
        }
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let pod = pod("{securityContext: {runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: [4]}, \
             containers: [{name: a, securityContext: {runAsUser: 9, capabilities: {drop: [ALL], add: [cap_net_admin]}, allowPrivilegeEscalation: false}}]}");
        let got = context(&pod, &pod.spec().containers[0], Path::new("/seccomp"), true, None);
        assert_eq!((got.run_as_user, got.run_as_group, got.supplemental_groups), (Some(9), Some(2), vec![4, 3]));
        assert_eq!((got.add_capabilities, got.no_new_privs), (vec!["NET_ADMIN".to_owned()], true));
        assert_eq!(got.seccomp, SeccompProfile::RuntimeDefault);
    }
}
