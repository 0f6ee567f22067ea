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
    let words = policy["description"].as_str().unwrap();
    assert!(words.ends_with("\n\nPossible enum values:\n - `\"Always\"`\n - `\"IfNotPresent\"`\n - `\"Never\"`"), "{words}");
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
    // What is shared bears names that stay the same as long as it does: they are part of clients that are generated.
    assert!(shared.get("body-2Y1dVQaQ").is_some());
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

/// A query has what its type has, besides times and structs; a name in the path is that of the kind the operation is about.
#[test]
fn parameters_are_the_fields_of_their_types() {
    #[track_caller]
    fn check(document: &Value, path: &str, method: &str, expected: &[&str]) {
        let item = &document["paths"][format!("/api/v1/namespaces/{{namespace}}{path}")];
        let of = |of: &Value| of["parameters"].as_array().cloned().unwrap_or_default();
        let all = [of(item), of(&item[method])].concat();
        let mut names: Vec<_> = all.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        names.retain(|name| !matches!(*name, "namespace" | "name" | "pretty"));
        assert_eq!(names, expected, "{method} {path}");
    }
    let document = version_3(Catalogue::builtin(), &Document::Version { group: String::new(), version: "v1".into() });
    check(&document, "/pods/{name}", "get", &[]);
    check(&document, "/pods/{name}", "put", &["dryRun", "fieldManager", "fieldValidation"]);
    check(&document, "/pods/{name}/portforward", "get", &["ports"]);
    check(&document, "/pods/{name}/exec", "post", &["command", "container", "stderr", "stdin", "stdout", "tty"]);
    let of_log = ["container", "follow", "insecureSkipTLSVerifyBackend", "limitBytes", "previous", "sinceSeconds", "stream"];
    check(&document, "/pods/{name}/log", "get", &[&of_log[..], &["tailLines", "timestamps"]].concat());
    let name =
        |path: &str| document["paths"][path]["parameters"].as_array().unwrap().iter().find(|own| own["name"] == "name").cloned();
    let scale = name("/api/v1/namespaces/{namespace}/replicationcontrollers/{name}/scale").unwrap();
    assert_eq!(scale["description"], "name of the Scale");
}

/// What the crate of the types does not carry is said in words of our own; fields with a closed list of values tell them.
#[test]
fn words_come_from_the_crate_or_are_our_own() {
    let everything = Catalogue::builtin().serving(|_, _, _, _| true);
    let words = |group: &str, version: &str, name: &str| {
        let document = version_3(&everything, &Document::Version { group: group.into(), version: version.into() });
        document["components"]["schemas"][name].clone()
    };
    let list = words("", "v1", "io.k8s.api.core.v1.PodList");
    assert_eq!(list["description"], "Objects of kind Pod, all or those a request selects.");
    assert!(list["properties"]["items"]["description"].is_string());
    let class = words("storage.k8s.io", "v1beta1", "io.k8s.api.storage.v1beta1.VolumeAttributesClass");
    assert!(class["properties"]["driverName"]["description"].is_string());
    // What is in a list has values, but no words of its own to say them in.
    let rule = words("admissionregistration.k8s.io", "v1", "io.k8s.api.admissionregistration.v1.RuleWithOperations");
    assert_eq!(rule["properties"]["operations"]["items"]["enum"], json!(["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]));
    assert!(!rule["properties"]["operations"]["description"].as_str().unwrap().contains("Possible"));
    let scope = rule["properties"]["scope"]["description"].as_str().unwrap();
    assert!(scope.ends_with("\n\n\nPossible enum values:\n - `\"*\"`\n - `\"Cluster\"`\n - `\"Namespaced\"`"), "{scope}");
}
