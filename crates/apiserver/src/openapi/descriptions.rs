//! The words of the OpenAPI documents: what `k8s-openapi` carries as descriptions of types and fields.
//!
//! Made for one group version at a time and dropped again: together they are megabytes that nobody reads twice.

use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// The schemas of all types that a group version's kinds are made of, by their full names.
pub(super) fn of(group: &str, version: &str) -> Map<String, Value> {
    let mut generator = k8s_openapi::schemars::generate::SchemaSettings::openapi3().into_generator();
    let g = &mut generator;
    match (group, version) {
        ("", "v1") => {
            use k8s_openapi::api::core::v1 as kinds;
            add::<kinds::Binding>(g);
            add::<kinds::ComponentStatus>(g);
            add::<kinds::ConfigMap>(g);
            add::<kinds::Endpoints>(g);
            add::<kinds::Event>(g);
            add::<kinds::LimitRange>(g);
            add::<kinds::Namespace>(g);
            add::<kinds::Node>(g);
            add::<kinds::PersistentVolumeClaim>(g);
            add::<kinds::PersistentVolume>(g);
            add::<kinds::Pod>(g);
            add::<kinds::PodTemplate>(g);
            add::<kinds::ReplicationController>(g);
            add::<kinds::ResourceQuota>(g);
            add::<kinds::Secret>(g);
            add::<kinds::ServiceAccount>(g);
            add::<kinds::Service>(g);
            add::<k8s_openapi::api::policy::v1::Eviction>(g);
            add::<k8s_openapi::api::authentication::v1::TokenRequest>(g);
            add::<k8s_openapi::api::autoscaling::v1::Scale>(g);
        }
        ("apiregistration.k8s.io", "v1") => {
            use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as kinds;
            add::<kinds::APIService>(g);
        }
        ("apps", "v1") => {
            use k8s_openapi::api::apps::v1 as kinds;
            add::<kinds::ControllerRevision>(g);
            add::<kinds::DaemonSet>(g);
            add::<kinds::Deployment>(g);
            add::<kinds::ReplicaSet>(g);
            add::<kinds::StatefulSet>(g);
            add::<k8s_openapi::api::autoscaling::v1::Scale>(g);
        }
        ("events.k8s.io", "v1") => {
            use k8s_openapi::api::events::v1 as kinds;
            add::<kinds::Event>(g);
        }
        ("authentication.k8s.io", "v1") => {
            use k8s_openapi::api::authentication::v1 as kinds;
            add::<kinds::SelfSubjectReview>(g);
            add::<kinds::TokenReview>(g);
        }
        ("authorization.k8s.io", "v1") => {
            use k8s_openapi::api::authorization::v1 as kinds;
            add::<kinds::LocalSubjectAccessReview>(g);
            add::<kinds::SelfSubjectAccessReview>(g);
            add::<kinds::SelfSubjectRulesReview>(g);
            add::<kinds::SubjectAccessReview>(g);
        }
        ("autoscaling", "v2") => {
            use k8s_openapi::api::autoscaling::v2 as kinds;
            add::<kinds::HorizontalPodAutoscaler>(g);
        }
        ("autoscaling", "v1") => {
            use k8s_openapi::api::autoscaling::v1 as kinds;
            add::<kinds::HorizontalPodAutoscaler>(g);
        }
        ("batch", "v1") => {
            use k8s_openapi::api::batch::v1 as kinds;
            add::<kinds::CronJob>(g);
            add::<kinds::Job>(g);
        }
        ("certificates.k8s.io", "v1") => {
            use k8s_openapi::api::certificates::v1 as kinds;
            add::<kinds::CertificateSigningRequest>(g);
        }
        ("networking.k8s.io", "v1") => {
            use k8s_openapi::api::networking::v1 as kinds;
            add::<kinds::IngressClass>(g);
            add::<kinds::Ingress>(g);
            add::<kinds::IPAddress>(g);
            add::<kinds::NetworkPolicy>(g);
            add::<kinds::ServiceCIDR>(g);
        }
        ("policy", "v1") => {
            use k8s_openapi::api::policy::v1 as kinds;
            add::<kinds::PodDisruptionBudget>(g);
        }
        ("rbac.authorization.k8s.io", "v1") => {
            use k8s_openapi::api::rbac::v1 as kinds;
            add::<kinds::ClusterRoleBinding>(g);
            add::<kinds::ClusterRole>(g);
            add::<kinds::RoleBinding>(g);
            add::<kinds::Role>(g);
        }
        ("storage.k8s.io", "v1") => {
            use k8s_openapi::api::storage::v1 as kinds;
            add::<kinds::CSIDriver>(g);
            add::<kinds::CSINode>(g);
            add::<kinds::CSIStorageCapacity>(g);
            add::<kinds::StorageClass>(g);
            add::<kinds::VolumeAttachment>(g);
            add::<kinds::VolumeAttributesClass>(g);
        }
        ("admissionregistration.k8s.io", "v1") => {
            use k8s_openapi::api::admissionregistration::v1 as kinds;
            add::<kinds::MutatingAdmissionPolicy>(g);
            add::<kinds::MutatingAdmissionPolicyBinding>(g);
            add::<kinds::MutatingWebhookConfiguration>(g);
            add::<kinds::ValidatingAdmissionPolicy>(g);
            add::<kinds::ValidatingAdmissionPolicyBinding>(g);
            add::<kinds::ValidatingWebhookConfiguration>(g);
        }
        ("apiextensions.k8s.io", "v1") => {
            use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as kinds;
            add::<kinds::CustomResourceDefinition>(g);
        }
        ("scheduling.k8s.io", "v1") => {
            use k8s_openapi::api::scheduling::v1 as kinds;
            add::<kinds::PriorityClass>(g);
        }
        ("coordination.k8s.io", "v1") => {
            use k8s_openapi::api::coordination::v1 as kinds;
            add::<kinds::Lease>(g);
        }
        ("node.k8s.io", "v1") => {
            use k8s_openapi::api::node::v1 as kinds;
            add::<kinds::RuntimeClass>(g);
        }
        ("discovery.k8s.io", "v1") => {
            use k8s_openapi::api::discovery::v1 as kinds;
            add::<kinds::EndpointSlice>(g);
        }
        ("resource.k8s.io", "v1") => {
            use k8s_openapi::api::resource::v1 as kinds;
            add::<kinds::DeviceClass>(g);
            add::<kinds::ResourceClaim>(g);
            add::<kinds::ResourceClaimTemplate>(g);
            add::<kinds::ResourceSlice>(g);
        }
        ("flowcontrol.apiserver.k8s.io", "v1") => {
            use k8s_openapi::api::flowcontrol::v1 as kinds;
            add::<kinds::FlowSchema>(g);
            add::<kinds::PriorityLevelConfiguration>(g);
        }
        (_, "v1") => {}
        // Earlier versions are not carried. Where a type became `v1` under the same name, its words hold for both.
        (group, earlier) => {
            let package = format!(".{earlier}.");
            return of(group, "v1").into_iter().map(|(name, words)| (name.replacen(".v1.", &package, 1), words)).collect();
        }
    }
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>(g);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>(g);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup>(g);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroupList>(g);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList>(g);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIVersions>(g);
    generator.take_definitions(true)
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    let _ = generator.subschema_for::<T>();
}
