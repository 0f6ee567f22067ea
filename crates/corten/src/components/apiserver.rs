//! `corten apiserver`: kube-apiserver's flags to the API server's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use corten_apiserver::config::{AuditBatch, AuditMode, AuditTruncation, TlsVersion};
use corten_apiserver::{ApiServer, Config};
use corten_store::Sqlite;
use corten_task::Tasks;

use crate::flags::{Component, Flags};

/// The command line.
pub const COMPONENT: Component = Component {
    name: "apiserver",
    about: "Run the API server (kube-apiserver's flags)",
    known: include_str!("../flags/apiserver.txt"),
    effective: &[
        ("data-dir", "Directory of the embedded store [default: /var/lib/corten]"),
        ("secure-port", "Port to serve on [default: 6443]"),
        ("bind-address", "Address to serve on [default: 0.0.0.0]"),
        ("advertise-address", "Address at which the cluster reaches this server"),
        ("cert-dir", "Directory of certificates made here [default: DATA_DIR/pki]"),
        ("tls-cert-file", "Serving certificate instead of one made here"),
        ("tls-private-key-file", "Its private key"),
        ("client-ca-file", "CA of client certificates instead of the one made here"),
        ("requestheader-client-ca-file", "CA of a front proxy that may name users in headers"),
        ("token-auth-file", "Static tokens as CSV: token,user,uid,\"group1,group2\""),
        ("anonymous-auth", "Let requests without credentials through as system:anonymous [default: true]"),
        ("authorization-mode", "Node, RBAC, AlwaysAllow, AlwaysDeny, in order [default: Node,RBAC]"),
        ("service-account-issuer", "Issuer of service account tokens; the first signs"),
        ("api-audiences", "Audiences of the API [default: the issuers]"),
        ("service-account-key-file", "Public keys that verify service account tokens"),
        ("service-account-signing-key-file", "Private key that signs service account tokens"),
        ("service-account-max-token-expiration", "Longest validity of a requested token"),
        ("service-cluster-ip-range", "Addresses for Services [default: 10.43.0.0/16]"),
        ("service-node-port-range", "Ports for NodePort Services [default: 30000-32767]"),
        ("allow-privileged", "Whether privileged containers may be asked for [default: true]"),
        ("enable-admission-plugins", "Admission plugins to switch on besides the default ones"),
        ("disable-admission-plugins", "Admission plugins to switch off"),
        ("feature-gates", "Name=true|false, comma-separated"),
        ("runtime-config", "API versions to switch on or off: api/all=true, batch/v1=false"),
        ("audit-policy-file", "Audit policy"),
        ("audit-log-path", "Audit log; - for standard output"),
        ("audit-log-maxsize", "Size in MiB at which the audit log is rotated"),
        ("audit-log-maxbackup", "Rotated audit logs kept"),
        ("audit-log-maxage", "Days for which rotated audit logs are kept"),
        ("audit-log-format", "Format of audit events: json or legacy"),
        ("audit-log-mode", "When audit events are written: blocking, blocking-strict or batch"),
        ("audit-log-batch-buffer-size", "Events that may wait to be written in the mode batch [default: 10000]"),
        ("audit-log-batch-max-size", "Events written at once [default: 1]"),
        ("audit-log-batch-max-wait", "How long an event waits for others [default: 0s]"),
        ("audit-log-batch-throttle-enable", "Whether the number of batches is limited [default: false]"),
        ("audit-log-batch-throttle-qps", "Batches a second"),
        ("audit-log-batch-throttle-burst", "Batches at once"),
        ("audit-log-compress", "Compress rotated audit logs [default: false]"),
        ("audit-log-truncate-enabled", "Limit the size of events in the audit log [default: false]"),
        ("audit-log-truncate-max-event-size", "Bytes of an event; a larger one loses its bodies [default: 102400]"),
        ("audit-log-truncate-max-batch-size", "Bytes of events that are written at once [default: 10485760]"),
        ("audit-webhook-config-file", "Kubeconfig of a server that audit events are sent to"),
        ("audit-webhook-mode", "When they are sent: batch, blocking or blocking-strict [default: batch]"),
        ("audit-webhook-initial-backoff", "How long to wait before they are sent once more [default: 10s]"),
        ("audit-webhook-batch-buffer-size", "Events that may wait to be sent [default: 10000]"),
        ("audit-webhook-batch-max-size", "Events sent at once [default: 400]"),
        ("audit-webhook-batch-max-wait", "How long an event waits for others [default: 30s]"),
        ("audit-webhook-batch-throttle-enable", "Whether the number of batches is limited [default: true]"),
        ("audit-webhook-batch-throttle-qps", "Batches a second [default: 10]"),
        ("audit-webhook-batch-throttle-burst", "Batches at once [default: 15]"),
        ("audit-webhook-truncate-enabled", "Limit the size of events that are sent [default: false]"),
        ("audit-webhook-truncate-max-event-size", "Bytes of an event; a larger one loses its bodies [default: 102400]"),
        ("audit-webhook-truncate-max-batch-size", "Bytes of events that are sent at once [default: 10485760]"),
        ("shutdown-delay-duration", "How long to serve on, not ready, before a stop [default: 0s]"),
        ("shutdown-send-retry-after", "Answer 429 to new requests during a stop, until the others have ended [default: false]"),
        ("cors-allowed-origins", "Origins of web pages that may use the API, as regular expressions"),
        ("tls-sni-cert-key", "CERT,KEY[:NAMES]: a serving certificate for these names; may be repeated"),
        ("request-timeout", "Longest time for a request that is no watch [default: 1m]"),
        ("min-request-timeout", "Shortest time in seconds before a watch is ended [default: 1800]"),
        ("max-requests-inflight", "Requests that change nothing, at one time [default: 400]"),
        ("max-mutating-requests-inflight", "Requests that change something, at one time [default: 200]"),
        ("enable-priority-and-fairness", "Queue requests by flow [default: true]"),
        ("event-ttl", "How long Events are kept [default: 1h]"),
        ("profiling", "Serve profiles [default: false]"),
        ("kubelet-client-certificate", "Client certificate for kubelets"),
        ("kubelet-client-key", "Its private key"),
        ("kubelet-certificate-authority", "CA of kubelets' serving certificates"),
        ("kubelet-preferred-address-types", "Order in which a node's addresses are tried"),
        ("etcd-servers", "Not yet: the store is embedded"),
        ("v", "Verbosity of the log"),
        ("requestheader-allowed-names", "Names of front proxies' certificates [default: any]"),
        ("requestheader-username-headers", "Headers with the user [default: X-Remote-User]"),
        ("requestheader-uid-headers", "Headers with the user's UID [default: X-Remote-Uid]"),
        ("requestheader-group-headers", "Headers with groups [default: X-Remote-Group]"),
        ("requestheader-extra-headers-prefix", "Beginnings of headers with more of the user [default: X-Remote-Extra-]"),
        ("goaway-chance", "Part of HTTP/2 requests after which the client connects anew, up to 0.02 [default: 0]"),
        ("http2-max-streams-per-connection", "Streams of one HTTP/2 connection at one time [default: 1000]"),
        ("strict-transport-security-directives", "Directives of Strict-Transport-Security in every answer"),
        ("tls-min-version", "VersionTLS12 or VersionTLS13 [default: VersionTLS12]"),
        ("tls-cipher-suites", "Cipher suites of TLS 1.2"),
        ("external-hostname", "Host name in URLs that others are given"),
        ("service-account-jwks-uri", "Where the keys of service account tokens are found, by the discovery document"),
        ("default-not-ready-toleration-seconds", "How long pods stay on a node that is not ready [default: 300]"),
        ("default-unreachable-toleration-seconds", "How long pods stay on a node that is unreachable [default: 300]"),
    ],
    harmless: &[
        "audit-log-version",
        "audit-webhook-version",
        "contention-profiling",
        "default-watch-cache-size",
        "delete-collection-workers",
        "emulation-forward-compatible",
        "enable-bootstrap-token-auth",
        "enable-garbage-collector",
        "enable-logs-handler",
        "etcd-cafile",
        "etcd-certfile",
        "etcd-compaction-interval",
        "etcd-count-metric-poll-period",
        "etcd-db-metric-poll-interval",
        "etcd-healthcheck-timeout",
        "etcd-keyfile",
        "etcd-prefix",
        "etcd-readycheck-timeout",
        "etcd-servers-overrides",
        "kubelet-port",
        "kubelet-read-only-port",
        "kubelet-timeout",
        "lease-reuse-duration-seconds",
        "livez-grace-period",
        "log-flush-frequency",
        "permit-address-sharing",
        "runtime-config-emulation-forward-compatible",
        "service-account-lookup",
        "show-hidden-metrics-for-version",
        "storage-backend",
        "storage-initialization-timeout",
        "storage-media-type",
        "watch-cache",
        "watch-cache-sizes",
    ],
    refused: &[
        ("admission-control-config-file", "configuration files of admission plugins are not read yet"),
        ("authentication-config", "authentication is set up by flags only"),
        ("authentication-token-webhook-config-file", "no webhook is asked about tokens yet"),
        ("authorization-config", "authorization is set up by --authorization-mode only"),
        ("authorization-policy-file", "the ABAC mode is not supported"),
        ("authorization-webhook-config-file", "no webhook is asked about authorization yet"),
        ("debug-socket-path", "profiles are not served"),
        ("egress-selector-config-file", "connections are made directly"),
        ("encryption-provider-config", "objects are not encrypted at rest yet"),
        ("oidc-issuer-url", "tokens of other issuers are not accepted yet"),
        ("service-account-signing-endpoint", "tokens are signed with --service-account-signing-key-file"),
    ],
};

/// Opens the store and starts serving.
pub async fn start(flags: &Flags, tasks: &Tasks) -> anyhow::Result<ApiServer> {
    if flags.text("etcd-servers").is_some() {
        bail!("an external etcd is not supported yet: leave --etcd-servers out, and the embedded store in --data-dir is used");
    }
    let data = PathBuf::from(flags.text("data-dir").unwrap_or("/var/lib/corten"));
    let config = config(flags, &data)?;
    let store = Sqlite::open(corten_store::Config::new(data.join("store")), tasks)?;
    ApiServer::start(config, Arc::new(store), tasks).await.context("start the API server")
}

fn config(flags: &Flags, data: &std::path::Path) -> anyhow::Result<Config> {
    let path = |name: &str| flags.text(name).map(PathBuf::from);
    let mut config = Config::new(path("cert-dir").unwrap_or_else(|| data.join("pki")));
    set(&mut config.bind_address, flags.parsed("bind-address")?);
    set(&mut config.secure_port, flags.parsed("secure-port")?);
    config.advertise_address = flags.parsed("advertise-address")?;
    config.tls_cert_file = path("tls-cert-file");
    config.tls_private_key_file = path("tls-private-key-file");
    config.client_ca_file = path("client-ca-file");
    config.requestheader_client_ca_file = path("requestheader-client-ca-file");
    config.token_auth_file = path("token-auth-file");
    config.anonymous_auth = flags.enabled("anonymous-auth", config.anonymous_auth)?;
    list(&mut config.authorization_mode, flags.list("authorization-mode"));
    list(&mut config.service_account_issuer, flags.list("service-account-issuer"));
    list(&mut config.api_audiences, flags.list("api-audiences"));
    config.service_account_key_file = flags.list("service-account-key-file").into_iter().map(PathBuf::from).collect();
    config.service_account_signing_key_file = path("service-account-signing-key-file");
    set(&mut config.service_account_max_token_expiration, flags.duration("service-account-max-token-expiration")?);
    let ranges = flags.list("service-cluster-ip-range");
    if !ranges.is_empty() {
        let parse =
            |text: &String| text.parse().with_context(|| format!("invalid value {text:?} for --service-cluster-ip-range"));
        config.service_cluster_ip_range = ranges.iter().map(parse).collect::<Result<_, _>>()?;
    }
    if let Some(text) = flags.text("service-node-port-range") {
        let (low, high) =
            text.split_once('-').with_context(|| format!("invalid value {text:?} for --service-node-port-range"))?;
        config.service_node_port_range = low.parse()?..=high.parse()?;
    }
    config.allow_privileged = flags.enabled("allow-privileged", config.allow_privileged)?;
    config.enable_admission_plugins = flags.list("enable-admission-plugins");
    config.disable_admission_plugins = flags.list("disable-admission-plugins");
    config.feature_gates = switches(flags, "feature-gates")?;
    config.runtime_config = switches(flags, "runtime-config")?;
    config.audit_policy_file = path("audit-policy-file");
    config.audit_log_path = path("audit-log-path");
    set(&mut config.audit_log_maxsize, flags.parsed("audit-log-maxsize")?);
    set(&mut config.audit_log_maxbackup, flags.parsed("audit-log-maxbackup")?);
    set(&mut config.audit_log_maxage, flags.parsed("audit-log-maxage")?);
    set(&mut config.audit_log_format, flags.parsed("audit-log-format")?);
    set(&mut config.audit_log_mode, flags.parsed("audit-log-mode")?);
    config.audit_log_compress = flags.enabled("audit-log-compress", false)?;
    config.audit_log_truncation = truncation(flags, "audit-log")?;
    config.audit_webhook_config_file = path("audit-webhook-config-file");
    set(&mut config.audit_webhook_mode, flags.parsed("audit-webhook-mode")?);
    config.audit_webhook_truncation = truncation(flags, "audit-webhook")?;
    set(&mut config.audit_webhook_initial_backoff, flags.duration("audit-webhook-initial-backoff")?);
    config.audit_log_batch = batch(flags, "log", config.audit_log_mode, config.audit_log_batch)?;
    config.audit_webhook_batch = batch(flags, "webhook", config.audit_webhook_mode, config.audit_webhook_batch)?;
    set(&mut config.shutdown_delay, flags.duration("shutdown-delay-duration")?);
    config.shutdown_send_retry_after = flags.enabled("shutdown-send-retry-after", false)?;
    config.cors_allowed_origins = flags.list("cors-allowed-origins");
    for text in flags.all("tls-sni-cert-key") {
        let named =
            text.parse().map_err(|why| anyhow::anyhow!("invalid argument {text:?} for \"--tls-sni-cert-key\" flag: {why}"))?;
        config.tls_sni_cert_keys.push(named);
    }
    set(&mut config.request_timeout, flags.duration("request-timeout")?);
    set(&mut config.min_request_timeout, flags.parsed("min-request-timeout")?.map(Duration::from_secs));
    set(&mut config.max_requests_inflight, flags.parsed("max-requests-inflight")?);
    set(&mut config.max_mutating_requests_inflight, flags.parsed("max-mutating-requests-inflight")?);
    config.enable_priority_and_fairness = flags.enabled("enable-priority-and-fairness", config.enable_priority_and_fairness)?;
    set(&mut config.event_ttl, flags.duration("event-ttl")?);
    config.profiling = flags.enabled("profiling", config.profiling)?;
    config.kubelet_client_certificate = path("kubelet-client-certificate");
    config.kubelet_client_key = path("kubelet-client-key");
    config.kubelet_certificate_authority = path("kubelet-certificate-authority");
    list(&mut config.kubelet_preferred_address_types, flags.list("kubelet-preferred-address-types"));
    list(&mut config.requestheader_allowed_names, flags.list("requestheader-allowed-names"));
    list(&mut config.requestheader_username_headers, flags.list("requestheader-username-headers"));
    list(&mut config.requestheader_uid_headers, flags.list("requestheader-uid-headers"));
    list(&mut config.requestheader_group_headers, flags.list("requestheader-group-headers"));
    list(&mut config.requestheader_extra_headers_prefix, flags.list("requestheader-extra-headers-prefix"));
    set(&mut config.goaway_chance, flags.parsed("goaway-chance")?);
    if !(0.0..=0.02).contains(&config.goaway_chance) {
        bail!("--goaway-chance can not be less than 0 or greater than 0.02");
    }
    // Upstream's 0 means whatever its library takes to be right.
    set(&mut config.http2_max_streams, flags.parsed("http2-max-streams-per-connection")?.filter(|streams| *streams > 0));
    list(&mut config.strict_transport_security, flags.list("strict-transport-security-directives"));
    config.tls_min_version = match flags.text("tls-min-version") {
        None | Some("" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12") => TlsVersion::V1_2,
        Some("VersionTLS13") => TlsVersion::V1_3,
        Some(other) => bail!("unknown tls version {other:?}"),
    };
    config.tls_cipher_suites = flags.list("tls-cipher-suites");
    config.external_hostname = flags.text("external-hostname").map(str::to_owned);
    config.service_account_jwks_uri = flags.text("service-account-jwks-uri").map(str::to_owned);
    set(&mut config.not_ready_toleration_seconds, flags.parsed("default-not-ready-toleration-seconds")?);
    set(&mut config.unreachable_toleration_seconds, flags.parsed("default-unreachable-toleration-seconds")?);
    config.other_flags = flags.given();
    Ok(config)
}

/// The limits of audit events of one output.
fn truncation(flags: &Flags, output: &str) -> anyhow::Result<AuditTruncation> {
    let enabled = flags.enabled(&format!("{output}-truncate-enabled"), false)?;
    let mut truncation = AuditTruncation { enabled, ..AuditTruncation::default() };
    set(&mut truncation.max_event_size, flags.parsed(&format!("{output}-truncate-max-event-size"))?);
    set(&mut truncation.max_batch_size, flags.parsed(&format!("{output}-truncate-max-batch-size"))?);
    if truncation.enabled && truncation.max_event_size == 0 {
        let output = output.trim_start_matches("audit-");
        bail!("invalid audit truncate {output} max event size 0, must be a positive number");
    }
    if truncation.enabled && truncation.max_batch_size < truncation.max_event_size {
        let (batch, event) = (truncation.max_batch_size, truncation.max_event_size);
        let output = output.trim_start_matches("audit-");
        bail!("invalid audit truncate {output} max batch size {batch}, must be greater than max event size ({event})");
    }
    Ok(truncation)
}

/// How audit events of one output are gathered.
fn batch(flags: &Flags, output: &str, mode: AuditMode, usual: AuditBatch) -> anyhow::Result<AuditBatch> {
    let name = |what: &str| format!("audit-{output}-batch-{what}");
    let mut batch = usual;
    set(&mut batch.buffer_size, flags.parsed(&name("buffer-size"))?);
    set(&mut batch.max_size, flags.parsed(&name("max-size"))?);
    set(&mut batch.max_wait, flags.duration(&name("max-wait"))?);
    let throttled = flags.enabled(&name("throttle-enable"), usual.throttle.is_some())?;
    let (mut per_second, mut burst) = usual.throttle.unwrap_or_default();
    set(&mut per_second, flags.parsed(&name("throttle-qps"))?);
    set(&mut burst, flags.parsed(&name("throttle-burst"))?);
    batch.throttle = throttled.then_some((per_second, burst));
    if mode != AuditMode::Batch {
        // What is not used may be anything.
        return Ok(batch);
    }
    for (what, good, value) in [
        ("buffer size", batch.buffer_size > 0, batch.buffer_size as f64),
        ("max batch size", batch.max_size > 0, batch.max_size as f64),
        ("throttle QPS", !throttled || per_second > 0.0, per_second),
        ("throttle burst", !throttled || burst >= 1.0, burst),
    ] {
        if !good {
            bail!("invalid audit batch {output} {what} {value}, must be a positive number");
        }
    }
    Ok(batch)
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *field = value;
    }
}

fn list(field: &mut Vec<String>, given: Vec<String>) {
    if !given.is_empty() {
        *field = given;
    }
}

/// `Name=true,Other=false`
fn switches(flags: &Flags, name: &str) -> anyhow::Result<BTreeMap<String, bool>> {
    let one = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, "true"));
        let value = value.parse().with_context(|| format!("invalid value {text:?} for --{name}"))?;
        Ok((key.to_owned(), value))
    };
    flags.list(name).iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use corten_apiserver::config::AuditMode;

    use super::*;

    fn read(args: &[&str]) -> anyhow::Result<Config> {
        let flags = COMPONENT.parse(args.iter().map(OsString::from)).unwrap();
        assert!(COMPONENT.without_effect(&flags).is_empty(), "{args:?}");
        config(&flags, std::path::Path::new("/data"))
    }

    #[test]
    fn what_surrounds_requests_is_set_by_flags() {
        let config = read(&[
            "--shutdown-delay-duration=1m10s",
            "--shutdown-send-retry-after",
            "--cors-allowed-origins=//a$,//b$",
            "--tls-sni-cert-key=a.crt,a.key:a.example,*.a.example",
            "--tls-sni-cert-key=b.crt,b.key",
            "--audit-log-compress=true",
            "--audit-log-truncate-enabled",
            "--audit-log-truncate-max-event-size=1000",
            "--audit-log-mode=batch",
            "--audit-log-batch-max-size=7",
            "--audit-log-batch-max-wait=2s",
            "--audit-webhook-config-file=w.yaml",
            "--audit-webhook-mode=blocking-strict",
            "--audit-webhook-batch-max-wait=5s",
            "--audit-webhook-batch-throttle-qps=2.5",
        ])
        .unwrap();
        assert_eq!((config.shutdown_delay, config.shutdown_send_retry_after), (Duration::from_secs(70), true));
        assert_eq!(config.cors_allowed_origins, ["//a$", "//b$"]);
        let names: Vec<_> = config.tls_sni_cert_keys.iter().map(|named| named.names.len()).collect();
        assert_eq!(names, [2, 0]);
        let truncation = config.audit_log_truncation;
        assert_eq!((truncation.enabled, truncation.max_event_size, truncation.max_batch_size), (true, 1000, 10 << 20));
        assert_eq!((config.audit_log_compress, config.audit_webhook_mode), (true, AuditMode::BlockingStrict));
        let batch = config.audit_webhook_batch;
        assert_eq!((batch.max_size, batch.max_wait, batch.throttle), (400, Duration::from_secs(5), Some((2.5, 15.0))));
        let batch = config.audit_log_batch;
        assert_eq!((batch.buffer_size, batch.max_size, batch.max_wait), (10_000, 7, Duration::from_secs(2)));
        assert_eq!((batch.throttle, AuditBatch::of_log().max_size), (None, 1));
        assert!(read(&["--audit-log-batch-max-size=0"]).is_ok(), "it is not used");
        let without = read(&["--audit-webhook-batch-throttle-enable=false"]).unwrap().audit_webhook_batch;
        assert_eq!(without.throttle, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (args, why) in [
            (&["--tls-sni-cert-key=a.crt"][..], "expected comma separated certificate and key file paths"),
            (&["--audit-webhook-batch-max-size=0"], "invalid audit batch webhook max batch size 0, must be a positive number"),
            (&["--audit-log-mode=batch", "--audit-log-batch-throttle-enable"], "invalid audit batch log throttle QPS 0"),
            (&["--audit-webhook-mode=later"], "allowed modes are batch,blocking,blocking-strict"),
            (&["--audit-log-truncate-enabled", "--audit-log-truncate-max-batch-size=1"], "must be greater than max event size"),
        ] {
            let err = read(args).err().unwrap();
            assert!(err.to_string().contains(why), "{args:?}: {err}");
        }
    }
}
