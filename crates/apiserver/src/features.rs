//! The features of upstream that this server has, and `kubernetes_feature_enabled`, which tells of them. What it does not have, or
//! what no part of it asks for, is not named: a client may rely on what is said here.

use prometheus::Registry;

use crate::config::Config;
use crate::metrics::gauges;

/// Name and stage in v1.36; what is generally available has no stage. None of them can be turned off here.
const FEATURES: [(&str, &str); 33] = [
    ("APIResponseCompression", "BETA"),
    ("ComponentFlagz", "BETA"),
    ("ComponentStatusz", "BETA"),
    ("ConsistentListFromCache", ""),
    ("ConstrainedImpersonation", "BETA"),
    ("DRAAdminAccess", ""),
    ("DRAConsumableCapacity", "BETA"),
    ("DRADeviceBindingConditions", "BETA"),
    ("DRADeviceTaints", "BETA"),
    ("DRAPartitionableDevices", "BETA"),
    ("DRAPrioritizedList", ""),
    ("DRAResourceClaimDeviceStatus", "BETA"),
    ("DynamicResourceAllocation", ""),
    ("InPlacePodVerticalScaling", ""),
    ("ListFromCacheSnapshot", "BETA"),
    ("MultiCIDRServiceAllocator", ""),
    ("MutatingAdmissionPolicy", ""),
    ("NodeDeclaredFeatures", "BETA"),
    ("OpenAPIEnums", "BETA"),
    ("PodLevelResources", "BETA"),
    ("PodObservedGenerationTracking", ""),
    ("PodSchedulingReadiness", ""),
    ("PodTopologyLabelsAdmission", "BETA"),
    ("PortForwardWebsockets", "BETA"),
    ("RelaxedServiceNameValidation", "BETA"),
    ("RemoteRequestHeaderUID", "BETA"),
    ("RetryGenerateName", ""),
    ("SidecarContainers", ""),
    ("StorageVersionHash", "BETA"),
    ("StreamingCollectionEncodingToJSON", ""),
    ("TranslateStreamCloseWebsocketRequests", "BETA"),
    ("VolumeAttributesClass", ""),
    ("WatchList", "BETA"),
];

/// Features that resources belong to, with their stage. They are off unless `--feature-gates` names them, or all of their stage.
const OPTIONAL: [(&str, &str); 4] = [
    ("ClusterTrustBundle", "BETA"),
    ("GenericWorkload", "ALPHA"),
    ("PodCertificateRequest", "BETA"),
    ("StorageVersionMigrator", "BETA"),
];

/// Whether a feature is on that can be off.
pub(crate) fn is_on(config: &Config, name: &str) -> bool {
    let gates = &config.feature_gates;
    let is_alpha = OPTIONAL.contains(&(name, "ALPHA"));
    let all_of_stage = if is_alpha { "AllAlpha" } else { "AllBeta" };
    gates.get(name).or_else(|| gates.get(all_of_stage)).is_some_and(|on| *on)
}

/// Lets `registry` show them.
pub(crate) fn show(registry: &Registry, config: &Config) {
    let help = "This metric records the data about the stage and enablement of a k8s feature.";
    let made = gauges(registry, "kubernetes_feature_enabled", help, &["name", "stage"]);
    for (name, stage) in FEATURES {
        made.with_label_values(&[name, stage]).set(1);
    }
    for (name, stage) in OPTIONAL {
        made.with_label_values(&[name, stage]).set(is_on(config, name).into());
    }
}
