//! The features of upstream that this server has, as `kubernetes_feature_enabled` tells of them. What it does not have, or what no
//! part of it asks for, is not named: a client may rely on what is said here.

use prometheus::{IntGaugeVec, Opts, Registry};

use super::VALID;

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

/// Lets `registry` show them.
pub(super) fn show(registry: &Registry) {
    let help = "This metric records the data about the stage and enablement of a k8s feature.";
    let made = IntGaugeVec::new(Opts::new("kubernetes_feature_enabled", help), &["name", "stage"]).expect(VALID);
    for (name, stage) in FEATURES {
        made.with_label_values(&[name, stage]).set(1);
    }
    registry.register(Box::new(made)).expect(VALID);
}
