//! What an API server is told at start: the values of its flags, by upstream's names, as one plain struct.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

pub use crate::server::NamedCertificate;

/// Configuration of an [`crate::ApiServer`]. `Config::new(cert_dir)` has upstream's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub bind_address: IpAddr,
    /// Port to listen on; 0 takes any free one.
    pub secure_port: u16,
    /// Address under which members of the cluster reach this server; found out when absent.
    pub advertise_address: Option<IpAddr>,
    /// Where the CA and the certificates are kept that are made at first start.
    pub cert_dir: PathBuf,
    /// Serving certificate (PEM chain) instead of one made here.
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key.
    pub tls_private_key_file: Option<PathBuf>,
    /// Further names and addresses in the serving certificate.
    pub tls_sans: Vec<String>,
    /// CA of client certificates instead of the one made here.
    pub client_ca_file: Option<PathBuf>,
    /// CA of the front proxy that may name users in headers.
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Static tokens (CSV: token, user, uid, "group1,group2").
    pub token_auth_file: Option<PathBuf>,
    /// Whether requests without credentials go on as `system:anonymous`.
    pub anonymous_auth: bool,
    /// `Node`, `RBAC`, `AlwaysAllow`, `AlwaysDeny`, in order.
    pub authorization_mode: Vec<String>,
    /// Issuers of service account tokens; the first one signs.
    pub service_account_issuer: Vec<String>,
    /// Audiences of the API itself; the issuers when empty.
    pub api_audiences: Vec<String>,
    /// Public keys that verify service account tokens.
    pub service_account_key_file: Vec<PathBuf>,
    /// Private key that signs service account tokens; made in `cert_dir` when absent.
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Longest validity of a requested token; 0 sets no limit.
    pub service_account_max_token_expiration: Duration,
    /// Ranges of cluster IPs: one, or one of each family with the primary first.
    pub service_cluster_ip_range: Vec<IpNet>,
    /// Ports for Services of type NodePort and LoadBalancer.
    pub service_node_port_range: RangeInclusive<u16>,
    /// Whether privileged containers may be asked for.
    pub allow_privileged: bool,
    /// Admission plugins to switch on besides the default ones.
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to switch off.
    pub disable_admission_plugins: Vec<String>,
    /// Feature gates by upstream's names.
    pub feature_gates: BTreeMap<String, bool>,
    /// API versions switched on or off (`api/all`, `apps/v1`, …).
    pub runtime_config: BTreeMap<String, bool>,
    /// Audit policy; no audit without one.
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events go; `-` is standard output.
    pub audit_log_path: Option<PathBuf>,
    /// Size of an audit log in MiB at which it is rotated.
    pub audit_log_maxsize: u32,
    /// Rotated audit logs kept; 0 keeps all.
    pub audit_log_maxbackup: u32,
    /// Days for which rotated audit logs are kept; 0 keeps them for ever.
    pub audit_log_maxage: u32,
    /// How events are written.
    pub audit_log_format: AuditFormat,
    /// When events are written.
    pub audit_log_mode: AuditMode,
    /// How events are gathered in the mode `batch` before they are written.
    pub audit_log_batch: AuditBatch,
    /// Whether rotated audit logs are compressed.
    pub audit_log_compress: bool,
    /// How large events in the log may be.
    pub audit_log_truncation: AuditTruncation,
    /// Kubeconfig of the server that audit events are sent to.
    pub audit_webhook_config_file: Option<PathBuf>,
    /// When events are sent.
    pub audit_webhook_mode: AuditMode,
    /// How events are gathered in the mode `batch`.
    pub audit_webhook_batch: AuditBatch,
    /// How large events that are sent may be.
    pub audit_webhook_truncation: AuditTruncation,
    /// How long to wait before events are sent once more.
    pub audit_webhook_initial_backoff: Duration,
    /// How long a request may take that is not long-running.
    pub request_timeout: Duration,
    /// Shortest time after which a watch without `timeoutSeconds` is ended; up to twice of it, by chance.
    pub min_request_timeout: Duration,
    /// Requests that change nothing, at one time; with the next one, the seats of priority and fairness.
    pub max_requests_inflight: usize,
    /// Requests that change something, at one time.
    pub max_mutating_requests_inflight: usize,
    /// Whether priority and fairness is on.
    pub enable_priority_and_fairness: bool,
    /// Largest request body in bytes.
    pub max_request_body: usize,
    /// How long Events are kept.
    pub event_ttl: Duration,
    /// Whether `/debug/pprof` is served.
    pub profiling: bool,
    /// Client certificate (PEM) for kubelets instead of one made here.
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Its private key.
    pub kubelet_client_key: Option<PathBuf>,
    /// CA of kubelets' serving certificates; the cluster's own CA when absent.
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Order in which a node's addresses are tried.
    pub kubelet_preferred_address_types: Vec<String>,
    /// File of the encryption of Secrets and others at rest.
    pub encryption_provider_config: Option<PathBuf>,
    /// How long a stopping server waits for requests to end.
    pub shutdown_grace: Duration,
    /// How long a server that is asked to stop serves on, not ready, before it stops.
    pub shutdown_delay: Duration,
    /// Whether a stopping server answers new requests with 429 until the others have ended, instead of closing its doors.
    pub shutdown_send_retry_after: bool,
    /// Origins of web pages that may use the API through a browser, as regular expressions.
    pub cors_allowed_origins: Vec<String>,
    /// Serving certificates for the names that clients ask for.
    pub tls_sni_cert_keys: Vec<NamedCertificate>,
    /// Common names of front proxies' certificates; any when empty.
    pub requestheader_allowed_names: Vec<String>,
    /// Headers in which a front proxy names the user; the first that is there counts.
    pub requestheader_username_headers: Vec<String>,
    /// Headers with the user's UID; the first that is there counts.
    pub requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups.
    pub requestheader_group_headers: Vec<String>,
    /// What the names of headers with more of the user begin with.
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Part of the HTTP/2 requests after which the client is told to connect anew, so that clients spread over servers.
    pub goaway_chance: f64,
    /// Streams of one HTTP/2 connection at one time.
    pub http2_max_streams: u32,
    /// Directives of `Strict-Transport-Security`; no such header without any.
    pub strict_transport_security: Vec<String>,
    /// The oldest TLS that is spoken.
    pub tls_min_version: TlsVersion,
    /// Cipher suites of TLS 1.2 by their IANA names; all that are safe when empty.
    pub tls_cipher_suites: Vec<String>,
    /// Host name in URLs that others are given, instead of the address.
    pub external_hostname: Option<String>,
    /// Where the keys of service account tokens are said to be found, instead of at this server.
    pub service_account_jwks_uri: Option<String>,
    /// Seconds that pods stay on a node that is not ready, unless they say otherwise.
    pub not_ready_toleration_seconds: i64,
    /// Seconds that pods stay on a node that is unreachable, unless they say otherwise.
    pub unreachable_toleration_seconds: i64,
    /// Flags that were given and are no setting of this server, to be shown by `/flagz`.
    pub other_flags: BTreeMap<String, String>,
}

impl Config {
    /// Upstream's defaults, with certificates in `cert_dir`.
    #[must_use]
    pub fn new(cert_dir: impl Into<PathBuf>) -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Self {
            bind_address: IpAddr::from([0, 0, 0, 0]),
            secure_port: 6443,
            advertise_address: None,
            cert_dir: cert_dir.into(),
            tls_cert_file: None,
            tls_private_key_file: None,
            tls_sans: Vec::new(),
            client_ca_file: None,
            requestheader_client_ca_file: None,
            token_auth_file: None,
            anonymous_auth: true,
            authorization_mode: owned(&["Node", "RBAC"]),
            service_account_issuer: owned(&["https://kubernetes.default.svc.cluster.local"]),
            api_audiences: Vec::new(),
            service_account_key_file: Vec::new(),
            service_account_signing_key_file: None,
            service_account_max_token_expiration: Duration::ZERO,
            service_cluster_ip_range: vec![IpNet::V4(
                ipnet::Ipv4Net::new([10, 43, 0, 0].into(), 16).expect("16 is a prefix length"),
            )],
            service_node_port_range: 30000..=32767,
            allow_privileged: true,
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            feature_gates: BTreeMap::new(),
            runtime_config: BTreeMap::new(),
            audit_policy_file: None,
            audit_log_path: None,
            audit_log_maxsize: 100,
            audit_log_maxbackup: 100,
            audit_log_maxage: 366,
            audit_log_format: AuditFormat::default(),
            audit_log_mode: AuditMode::default(),
            audit_log_batch: AuditBatch::of_log(),
            audit_log_compress: false,
            audit_log_truncation: AuditTruncation::default(),
            audit_webhook_config_file: None,
            audit_webhook_mode: AuditMode::Batch,
            audit_webhook_batch: AuditBatch::of_webhook(),
            audit_webhook_truncation: AuditTruncation::default(),
            audit_webhook_initial_backoff: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1800),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            enable_priority_and_fairness: true,
            max_request_body: 3 * 1024 * 1024,
            event_ttl: Duration::from_secs(3600),
            profiling: false,
            kubelet_client_certificate: None,
            kubelet_client_key: None,
            kubelet_certificate_authority: None,
            kubelet_preferred_address_types: owned(&["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"]),
            encryption_provider_config: None,
            shutdown_grace: Duration::from_secs(10),
            shutdown_delay: Duration::ZERO,
            shutdown_send_retry_after: false,
            cors_allowed_origins: Vec::new(),
            tls_sni_cert_keys: Vec::new(),
            requestheader_allowed_names: Vec::new(),
            requestheader_username_headers: owned(&["X-Remote-User"]),
            requestheader_uid_headers: owned(&["X-Remote-Uid"]),
            requestheader_group_headers: owned(&["X-Remote-Group"]),
            requestheader_extra_headers_prefix: owned(&["X-Remote-Extra-"]),
            goaway_chance: 0.0,
            http2_max_streams: 1000,
            strict_transport_security: Vec::new(),
            tls_min_version: TlsVersion::default(),
            tls_cipher_suites: Vec::new(),
            external_hostname: None,
            service_account_jwks_uri: None,
            not_ready_toleration_seconds: 300,
            unreachable_toleration_seconds: 300,
            other_flags: BTreeMap::new(),
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    V1_2,
    /// 1.3
    V1_3,
}

/// How audit events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditFormat {
    /// One JSON document a line.
    #[default]
    Json,
    /// A line of text, without bodies.
    Legacy,
}

/// When audit events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditMode {
    /// Before the request goes on; it goes on whether that works or not.
    #[default]
    Blocking,
    /// Before the request goes on, or else it is refused.
    BlockingStrict,
    /// Gathered, and a little later.
    Batch,
}

/// How audit events are gathered in the mode `batch`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuditBatch {
    /// Events that may wait; what comes on top is lost.
    pub buffer_size: usize,
    /// Events of one batch.
    pub max_size: usize,
    /// How long the first event of a batch waits for others.
    pub max_wait: Duration,
    /// Batches a second, and how many may go at once.
    pub throttle: Option<(f64, f64)>,
}

impl AuditBatch {
    /// Upstream's defaults for the log: what is so near is written one by one, and nothing waits for others to come.
    #[must_use]
    pub fn of_log() -> Self {
        Self { buffer_size: 10_000, max_size: 1, max_wait: Duration::ZERO, throttle: None }
    }

    /// Upstream's defaults for webhooks.
    #[must_use]
    pub fn of_webhook() -> Self {
        Self { buffer_size: 10_000, max_size: 400, max_wait: Duration::from_secs(30), throttle: Some((10.0, 15.0)) }
    }
}

/// What becomes of large audit events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditTruncation {
    /// Whether there are limits.
    pub enabled: bool,
    /// Bytes of one event; a larger one loses its bodies.
    pub max_event_size: usize,
    /// Bytes of the events that are written or sent together.
    pub max_batch_size: usize,
}

impl Default for AuditTruncation {
    fn default() -> Self {
        Self { enabled: false, max_event_size: 100 << 10, max_batch_size: 10 << 20 }
    }
}

impl FromStr for AuditFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "legacy" => Ok(Self::Legacy),
            other => Err(format!("invalid audit log format {other}, allowed formats are legacy,json")),
        }
    }
}

impl FromStr for AuditMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "blocking" => Ok(Self::Blocking),
            "blocking-strict" => Ok(Self::BlockingStrict),
            "batch" => Ok(Self::Batch),
            other => Err(format!("invalid audit log mode {other}, allowed modes are batch,blocking,blocking-strict")),
        }
    }
}
