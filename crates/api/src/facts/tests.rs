use super::*;

#[test]
fn every_type_of_the_table_is_found_by_its_name() {
    let types = Types::get();
    assert!(types.iter().count() > 1000);
    for ty in types.iter() {
        assert_eq!(types.named(ty.name).map(|found| found.id), Some(ty.id), "{}", ty.name);
    }
}

#[test]
fn inlined_structs_are_flattened_in_json_and_nested_in_protobuf() {
    let types = Types::get();
    let volume = types.named("core.v1.Volume").unwrap();
    assert!(volume.field("emptyDir").is_some());
    let source = types.named("core.v1.VolumeSource").unwrap();
    assert!(volume.members.contains(&Member { number: 2, what: MemberKind::Inlined(source.id) }));
    let pod = types.named("core.v1.Pod").unwrap();
    assert!(pod.field("apiVersion").is_some() && pod.members.iter().all(|member| member.number > 0));
}

#[test]
fn markers_are_kept() {
    let types = Types::get();
    let container = types.named("core.v1.Container").unwrap();
    let ports = container.field("ports").unwrap();
    assert_eq!(ports.list, ListType::Map);
    assert_eq!(ports.keys, ["containerPort", "protocol"]);
    assert_eq!(ports.merge_key, Some("containerPort"));
    assert_eq!(ports.go_item_name(types), "v1.ContainerPort");
    let protocol = types.named("core.v1.ContainerPort").unwrap().field("protocol").unwrap();
    assert_eq!((protocol.default, protocol.go), (Some("\"TCP\""), Some("v1.Protocol")));
    let limits = types.named("core.v1.ResourceRequirements").unwrap().field("limits").unwrap();
    assert_eq!(limits.go_name(types), "v1.ResourceList");
    assert_eq!(limits.go_item_name(types), "resource.Quantity");
}
