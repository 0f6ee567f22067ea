use super::*;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

fn pods() -> String {
    "core.PodList".into()
}

#[test]
#[rustfmt::skip]
fn the_best_clause_that_can_be_fulfilled_wins() {
    use Encoding::{Json, Protobuf, Yaml};
    use Endpoint::{List, Object, Watch};
    let whole = |encoding| Ok((encoding, Shape::Whole, MetaVersion::V1));
    let shaped = |shape, meta| Ok((Json, shape, meta));
    let types = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let streams = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    let offered = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    check("", Object, whole(Json));
    check("*/*", Object, whole(Json));
    check("application/vnd.kubernetes.protobuf, */*", Object, whole(Protobuf));
    check("*/*, application/yaml", Object, whole(Yaml)); // what is named comes before what is not
    check("*/*;q=1, application/yaml;q=0.1", Object, whole(Yaml)); // even then
    check("application/json;q=0.1, application/yaml", Object, whole(Yaml));
    check("application/json;q=x, application/yaml;q=0.1", Object, whole(Yaml));
    check("application/*", Object, Err(offered));
    check("APPLICATION/JSON", Object, Err(offered));
    check("text/html", Object, Err(offered));
    check("text/html, application/json", Object, whole(Json));
    // Shapes.
    check(TABLE, List, shaped(Shape::Table, MetaVersion::V1));
    check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", List, shaped(Shape::Table, MetaVersion::V1beta1));
    check("application/json;as=Table;v=v2;g=meta.k8s.io", List, Err(types));
    check("application/json;as=Table;v=v1", List, Err(types));
    check("application/json;as=Nope;v=v1;g=meta.k8s.io", List, Err(types));
    check("application/json;as=Nope;v=v1;g=meta.k8s.io, application/json", List, whole(Json));
    check("application/json;v=v1", List, Err(types)); // a version of nothing
    check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", List, Err(types));
    check("*/*;as=Table;v=v1;g=meta.k8s.io", List, shaped(Shape::Table, MetaVersion::V1));
    check(PARTIAL, Object, shaped(Shape::Partial, MetaVersion::V1));
    check(PARTIAL, Watch, shaped(Shape::Partial, MetaVersion::V1));
    check(LIST, List, shaped(Shape::Partial, MetaVersion::V1));
    check(PARTIAL, List, Err("you requested PartialObjectMetadata, but the requested object is a list (*core.PodList)"));
    check(LIST, Object, Err("you requested PartialObjectMetadataList, but the requested object is not a list (*core.PodList)"));
    // Parameters.
    check("application/json;stream=watch", Watch, whole(Json));
    check("application/json;stream=nope", Watch, Err(types));
    check("application/yaml;stream=watch", List, Err(types));
    check("application/yaml", Watch, Err(streams));
    check("application/json;sv=v1", Object, whole(Json));
    check("application/json;sv=v2", Object, Err(types));
    #[track_caller]
    fn check(header: &str, endpoint: Endpoint, expected: Result<(Encoding, Shape, MetaVersion), &str>) {
        let got = accept(header, endpoint, false).and_then(|form| {
            if endpoint != Endpoint::Watch {
                form.fits(endpoint == Endpoint::List, &pods)?;
            }
            Ok(form)
        });
        let got = got.map(|form| (form.encoding, form.shape, form.meta)).map_err(|status| {
            assert_eq!((status.code, status.reason.as_str()), (406, "NotAcceptable"));
            status.message
        });
        let matches = match (&got, &expected) {
            // The router offers streams too where there are some.
            (Err(got), Err(expected)) => got == expected || (expected.starts_with("406") && got.starts_with(expected)),
            (got, expected) => got.as_ref().ok() == expected.as_ref().ok(),
        };
        assert!(matches, "{header}: {got:?} instead of {expected:?}");
    }
}

#[test]
#[rustfmt::skip]
fn documents_are_routed_before_they_are_negotiated() {
    const JSON: &str = "application/json";
    const DISCOVERY: &str = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io";
    //    method    content type                        accept                  types        status
    check("GET",    "",                                 "",                     MEDIA_TYPES, 200);
    check("GET",    "application/json",                 "application/yaml",     MEDIA_TYPES, 200);
    check("POST",   "text/plain",                       "text/plain",           MEDIA_TYPES, 405);
    check("HEAD",   "",                                 "",                     MEDIA_TYPES, 405);
    check("GET",    "application/merge-patch+json",     "text/plain",           MEDIA_TYPES, 415);
    check("GET",    "text/plain, application/json;a=b", "*/*",                  MEDIA_TYPES, 200);
    check("GET",    "",                                 "application/*",        MEDIA_TYPES, 406);
    check("GET",    "",                                 "application/yaml",     JSON,        406);
    check("GET",    "application/yaml",                 "",                     JSON,        415);
    #[track_caller]
    fn check(method: &str, content_type: &str, accept: &str, types: &str, expected: u16) {
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        let got = route_document(&method, content_type, accept, types).map_or_else(|status| status.code, |()| 200);
        assert_eq!(got, expected);
    }
    let negotiated = |accept: &str, aggregated| accept_document(accept, false, aggregated).map(|(form, is)| (form.encoding, is)).ok();
    assert_eq!(negotiated(DISCOVERY, true), Some((Encoding::Json, true)));
    assert_eq!(negotiated(DISCOVERY, false), None);
    assert_eq!(negotiated(&DISCOVERY.replace("json", "yaml"), true), Some((Encoding::Yaml, true)));
    assert_eq!(negotiated(&DISCOVERY.replace("v2", "v2beta1"), true), None);
    assert_eq!(negotiated(&format!("application/json;q=0.5,{DISCOVERY};q=0.4"), true), Some((Encoding::Json, false)));
    assert_eq!(negotiated("application/vnd.kubernetes.protobuf", true), Some((Encoding::Protobuf, false)));
    assert_eq!(negotiated("application/*", true), Some((Encoding::Json, false)));
    assert_eq!((negotiated(TABLE, true), negotiated("application/json;sv=v1", false)), (None, None));
}

#[test]
fn streams_are_offered_where_there_are_some() {
    for (endpoint, has_streams) in
        [(Endpoint::Object, false), (Endpoint::Deletion, false), (Endpoint::List, true), (Endpoint::Watch, true)]
    {
        let refused = accept("text/html", endpoint, false).unwrap_err();
        assert_eq!(refused.message.contains("stream=watch"), has_streams, "{endpoint:?}");
    }
}

#[test]
#[rustfmt::skip]
fn bodies_come_in_known_types() {
    check("",                                           Some(Encoding::Json));
    check("application/json",                           Some(Encoding::Json));
    check("Application/JSON; charset=utf-8",            Some(Encoding::Json));
    check("application/json;",                          Some(Encoding::Json));
    check("application/json; a=\"b;c\"; d=e",           Some(Encoding::Json));
    check("application/yaml",                           Some(Encoding::Yaml));
    check("application/vnd.kubernetes.protobuf",        Some(Encoding::Protobuf));
    check("application/json; charset",                  None);
    check("application/json; a=b; a=c",                 None);
    check("application/json; a=\"b",                    None);
    check("application/json; =b",                       None);
    check("application/json x",                         None);
    check("application/json/x",                         None);
    check("text/plain",                                 None);
    check("application/x-www-form-urlencoded",          None);
    #[track_caller]
    fn check(header: &str, expected: Option<Encoding>) {
        let got = content_type(header);
        if let Err(status) = &got {
            assert_eq!((status.code, status.reason.as_str()), (415, "UnsupportedMediaType"));
            assert!(status.message.ends_with("accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"));
        }
        assert_eq!(got.ok(), expected, "{header}");
    }
}

#[test]
fn failures_are_told_in_a_form_the_client_reads() {
    let not_found = Status::not_found("", "pods", "a");
    let told = |accept: &str, pretty: bool| {
        let response = status(&not_found, accept, pretty);
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (kind, String::from_utf8_lossy(response.body().whole().unwrap()).into_owned())
    };
    let (kind, text) = told("application/json", false);
    assert!(kind == "application/json" && text.lines().count() == 1 && text.ends_with('\n'));
    let (_, pretty) = told("application/json", true);
    assert!(pretty.lines().count() > 5 && pretty.ends_with('}'), "what is for people ends without a line break");
    assert!(told("application/json;pretty=1", false).1.lines().count() > 5);
    assert_eq!(told("application/yaml", false).0, "application/yaml");
    assert_eq!(told("application/vnd.kubernetes.protobuf", false).0, "application/vnd.kubernetes.protobuf");
    // A Table cannot be had of a failure, and neither can HTML: the failure itself must not be lost for that.
    assert_eq!(told(&format!("{TABLE},application/json"), false).1, text);
    for accept in [TABLE, "text/html", "application/json;sv=v1"] {
        let (kind, text) = told(accept, false);
        assert!(kind == "application/json" && text.lines().count() > 5 && !text.ends_with('\n'), "{accept}: {text}");
    }
}

#[test]
fn people_and_those_who_ask_get_indented_json() {
    let pretty = |query: &str, agent: &str| wants_pretty(&Query::parse(query), agent);
    assert!(pretty("pretty=true", "") && pretty("pretty=1", "") && pretty("pretty=t", "") && pretty("", "curl/8"));
    assert!(pretty("pretty=", "Wget/1") && pretty("", "Mozilla/5.0 (X11)"));
    assert!(!pretty("", "") && !pretty("pretty=yes", "curl/8") && !pretty("pretty=false", "curl/8") && !pretty("pretty=0", ""));
}

#[test]
fn actions_have_no_table() {
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(accept(table, Endpoint::Object, false).unwrap().shape, Shape::Table);
    assert_eq!(accept(table, Endpoint::Action, false).unwrap_err().code, 406);
    assert_eq!(accept(&format!("{table},application/json"), Endpoint::Action, false).unwrap().shape, Shape::Whole);
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    assert_eq!(accept(partial, Endpoint::Action, false).unwrap().shape, Shape::Partial);
}
