use super::*;

#[test]
fn documents_have_what_kubectl_looks_for() {
    let catalogue = Catalogue::builtin();
    let document = version_3(catalogue, &Document::Version { group: "apps".into(), version: "v1".into() });
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|parameter| &parameter["name"]).collect();
    assert!(names.contains(&&json!("fieldValidation")));
    let schemas = &document["components"]["schemas"];
    let container = &schemas["io.k8s.api.core.v1.Container"];
    assert_eq!(container["properties"]["env"]["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(container["properties"]["env"]["x-kubernetes-patch-strategy"], "merge");
    assert!(container["properties"]["image"]["description"].as_str().unwrap().contains("Container image name"));
    let policy = &container["properties"]["imagePullPolicy"];
    assert_eq!(policy["enum"], json!(["Always", "IfNotPresent", "Never"]));
    assert!(policy["description"].as_str().unwrap().ends_with("\n - `\"Always\"`\n - `\"IfNotPresent\"`\n - `\"Never\"`"));
    let own =
        [("", "v1"), ("apps", "v1")].map(|(group, version)| json!({"group": group, "version": version, "kind": "DeleteOptions"}));
    assert_eq!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["x-kubernetes-group-version-kind"], json!(own));
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert!(schemas["io.k8s.api.apps.v1.DeploymentList"]["properties"]["items"].is_object());
}

#[test]
fn every_reference_is_there() {
    let catalogue = Catalogue::builtin();
    for (name, document) in documents(catalogue) {
        let document = version_3(catalogue, &document);
        check(&document, &document["components"]["schemas"], "#/components/schemas/", &name);
    }
    let document = version_2(catalogue);
    check(&document, &document["definitions"], "#/definitions/", "v2");

    fn check(value: &Value, schemas: &Value, prefix: &str, name: &str) {
        match value {
            Value::Object(map) => {
                let target = map.get("$ref").and_then(Value::as_str);
                if let Some(target) = target.filter(|target| !target.starts_with("#/parameters/")) {
                    let target = target.strip_prefix(prefix).expect(target);
                    assert!(schemas.get(target).is_some(), "{name} lacks {target}");
                }
                map.values().for_each(|value| check(value, schemas, prefix, name));
            }
            Value::Array(list) => list.iter().for_each(|value| check(value, schemas, prefix, name)),
            _ => {}
        }
    }
}

#[test]
fn parameters_of_many_operations_are_said_once() {
    let document = version_2(Catalogue::builtin());
    let item = &document["paths"]["/api/v1/namespaces/{namespace}/configmaps"];
    let shared = &document["parameters"];
    for reference in item["get"]["parameters"].as_array().unwrap() {
        let name = reference["$ref"].as_str().unwrap().strip_prefix("#/parameters/").unwrap();
        assert!(name.starts_with(shared[name]["name"].as_str().unwrap()));
    }
    let own: Vec<_> = item["post"]["parameters"].as_array().unwrap().iter().filter_map(|own| own["name"].as_str()).collect();
    assert_eq!(own, ["body", "dryRun", "fieldValidation"]);
}

#[test]
fn a_client_gets_the_form_it_prefers() {
    #[track_caller]
    fn check(accept: &str, dialect: Dialect, expected: Option<Form>) {
        assert_eq!(Form::choose(accept, dialect), expected, "{accept}");
    }
    check("", Dialect::V2, Some(Form::Json));
    check("*/*", Dialect::V3, Some(Form::Json));
    check("application/json", Dialect::V2, Some(Form::Json));
    check("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", Dialect::V2, Some(Form::Protobuf)); // client-go's
    check("application/com.github.proto-openapi.spec.v3.v1.0+protobuf", Dialect::V3, Some(Form::Protobuf));
    check(
        "application/json;q=0.5, application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
        Dialect::V3,
        Some(Form::Protobuf),
    );
    check("application/com.github.proto-openapi.spec.v3@v1.0+protobuf", Dialect::V2, None);
    check("text/plain", Dialect::V2, None);
}
