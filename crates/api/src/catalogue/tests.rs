use super::*;
use crate::facts::Types;

#[test]
fn every_type_of_the_catalogue_has_facts() {
    for resource in Catalogue::builtin().all() {
        for version in &resource.versions {
            assert!(Types::get().named(&version.type_name).is_some(), "{}", version.type_name);
            for sub in &version.subresources {
                assert!(Types::get().named(&sub.type_name).is_some(), "{}", sub.type_name);
            }
        }
    }
}

#[test]
#[rustfmt::skip]
fn stored_forms() {
    //    group          resource                     version    hash
    check("",            "configmaps",                "v1",      "qFsyl6wFWjQ=");
    check("",            "events",                    "v1",      "r2yiGXH7wu8=");
    check("events.k8s.io", "events",                  "v1",      "r2yiGXH7wu8="); // shared with the core group
    check("apiregistration.k8s.io", "apiservices",    "v1",      "InPBPD7+PqM=");
    check("apiextensions.k8s.io", "customresourcedefinitions", "v1", "jfWCUB31mvA="); // hash of v1beta1
    check("admissionregistration.k8s.io", "mutatingadmissionpolicies", "v1", "LYmCf+UMVdg="); // of v1beta1, too
    check("",            "bindings",                  "v1",      "");             // never stored
    check("authorization.k8s.io", "subjectaccessreviews", "v1",  "");
    #[track_caller]
    fn check(group: &str, plural: &str, version: &str, hash: &str) {
        let storage = &Catalogue::builtin().resource(group, plural).unwrap().storage;
        assert_eq!((storage.version.as_str(), storage.hash.as_str()), (version, hash));
    }
}

#[test]
fn versions_of_one_resource_are_one_entry() {
    let all = Catalogue::builtin();
    let hpa = all.kind("autoscaling", "HorizontalPodAutoscaler").unwrap();
    assert_eq!(hpa.versions.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["v2", "v1"]);
    assert_eq!(hpa.storage.version, "v2");
    let (scale, version) = all.resource_in("apps", "v1", "deployments").unwrap();
    assert_eq!(version.subresource("scale").unwrap().type_name, "autoscaling.v1.Scale");
    assert_eq!(scale.qualified(), "deployments.apps");
    assert!(!all.resource_in("storage.k8s.io", "v1beta1", "volumeattributesclasses").unwrap().1.served);
}

#[test]
fn a_custom_resource_is_added_and_replaced() {
    let mut widget = (**Catalogue::builtin().resource("", "pods").unwrap()).clone();
    widget.group = "example.com".into();
    widget.plural = "widgets".into();
    widget.kind = "Widget".into();
    let all = Catalogue::builtin().with([widget.clone()]);
    assert!(all.kind("example.com", "Widget").is_some());
    widget.kind = "Gadget".into();
    let all = all.with([widget]);
    assert!(all.kind("example.com", "Widget").is_none() && all.kind("example.com", "Gadget").is_some());
    assert_eq!(all.all().len(), Catalogue::builtin().all().len() + 1);
}
