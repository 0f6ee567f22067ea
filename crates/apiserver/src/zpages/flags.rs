//! The server's configuration as the values of upstream's flags, written as upstream's flags write them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{AuditFormat, AuditMode, Config};

/// Every flag that has an effect, with its value, and those that were given besides.
pub(super) fn of(config: &Config) -> BTreeMap<String, String> {
    let mut flags = config.other_flags.clone();
    let mut set = |name: &str, value: String| {
        flags.insert(name.to_owned(), value);
    };
    let switches =
        |given: &BTreeMap<String, bool>| given.iter().map(|(name, on)| format!("{name}={on}")).collect::<Vec<_>>().join(",");
    let ranges = config.service_cluster_ip_range.iter().map(ToString::to_string).collect::<Vec<_>>();
    let ports = &config.service_node_port_range;
    let address = config.advertise_address.map(|address| address.to_string()).unwrap_or_default();
    set("advertise-address", address);
    set("allow-privileged", config.allow_privileged.to_string());
    set("anonymous-auth", config.anonymous_auth.to_string());
    set("api-audiences", list(&config.api_audiences));
    set("audit-log-format", format(config.audit_log_format));
    set("audit-log-maxage", config.audit_log_maxage.to_string());
    set("audit-log-maxbackup", config.audit_log_maxbackup.to_string());
    set("audit-log-maxsize", config.audit_log_maxsize.to_string());
    set("audit-log-mode", mode(config.audit_log_mode));
    set("audit-log-path", path(&config.audit_log_path));
    set("audit-policy-file", path(&config.audit_policy_file));
    set("authorization-mode", list(&config.authorization_mode));
    set("bind-address", config.bind_address.to_string());
    set("cert-dir", config.cert_dir.display().to_string());
    set("client-ca-file", path(&config.client_ca_file));
    set("disable-admission-plugins", list(&config.disable_admission_plugins));
    set("enable-admission-plugins", list(&config.enable_admission_plugins));
    set("enable-priority-and-fairness", config.enable_priority_and_fairness.to_string());
    set("event-ttl", duration(config.event_ttl));
    set("feature-gates", switches(&config.feature_gates));
    set("kubelet-certificate-authority", path(&config.kubelet_certificate_authority));
    set("kubelet-client-certificate", path(&config.kubelet_client_certificate));
    set("kubelet-client-key", path(&config.kubelet_client_key));
    set("kubelet-preferred-address-types", list(&config.kubelet_preferred_address_types));
    set("max-mutating-requests-inflight", config.max_mutating_requests_inflight.to_string());
    set("max-requests-inflight", config.max_requests_inflight.to_string());
    set("min-request-timeout", config.min_request_timeout.as_secs().to_string());
    set("profiling", config.profiling.to_string());
    set("request-timeout", duration(config.request_timeout));
    set("requestheader-client-ca-file", path(&config.requestheader_client_ca_file));
    set("runtime-config", switches(&config.runtime_config));
    set("secure-port", config.secure_port.to_string());
    set("service-account-issuer", list(&config.service_account_issuer));
    let keys: Vec<String> = config.service_account_key_file.iter().map(|path| path.display().to_string()).collect();
    set("service-account-key-file", list(&keys));
    set("service-account-max-token-expiration", duration(config.service_account_max_token_expiration));
    set("service-account-signing-key-file", path(&config.service_account_signing_key_file));
    set("service-cluster-ip-range", ranges.join(","));
    set("service-node-port-range", format!("{}-{}", ports.start(), ports.end()));
    set("tls-cert-file", path(&config.tls_cert_file));
    set("tls-private-key-file", path(&config.tls_private_key_file));
    set("token-auth-file", path(&config.token_auth_file));
    flags
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

fn path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

fn duration(duration: Duration) -> String {
    corten_api::time::format_duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn format(format: AuditFormat) -> String {
    match format {
        AuditFormat::Json => "json".into(),
        AuditFormat::Legacy => "legacy".into(),
    }
}

fn mode(mode: AuditMode) -> String {
    match mode {
        AuditMode::Blocking => "blocking".into(),
        AuditMode::BlockingStrict => "blocking-strict".into(),
        AuditMode::Batch => "batch".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_upstreams_flags_write_them() {
        let mut config = Config::new("/pki");
        config.other_flags.insert("data-dir".into(), "/data".into());
        config.feature_gates = [("A".to_owned(), true), ("B".to_owned(), false)].into();
        let flags = of(&config);
        for (name, value) in [
            ("authorization-mode", "[Node,RBAC]"),
            ("request-timeout", "1m0s"),
            ("event-ttl", "1h0m0s"),
            ("feature-gates", "A=true,B=false"),
            ("service-node-port-range", "30000-32767"),
            ("audit-log-mode", "blocking"),
            ("client-ca-file", ""),
            ("data-dir", "/data"),
        ] {
            assert_eq!(flags[name], value, "{name}");
        }
    }
}
