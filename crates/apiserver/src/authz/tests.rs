use super::rules::{describe, missing};
use super::*;

fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    PolicyRule {
        verbs: owned(verbs),
        api_groups: owned(groups),
        resources: owned(resources),
        resource_names: owned(names),
        non_resource_urls: Vec::new(),
    }
}

#[test]
#[rustfmt::skip]
fn rules_allow_what_they_say() {
    let user = User::new("alice", &[]);
    //    groups   resources         names    verbs     group  resource       sub       name  verb     allowed
    check(&[""],   &["pods"],        &[],     &["get"], "",     "pods",        "",       "p", "get",    true);
    check(&[""],   &["pods"],        &[],     &["get"], "",     "pods",        "log",    "p", "get",    false);
    check(&[""],   &["pods/log"],    &[],     &["get"], "",     "pods",        "log",    "p", "get",    true);
    check(&[""],   &["*/log"],       &[],     &["*"],   "",     "pods",        "log",    "p", "get",    true);
    check(&[""],   &["*"],           &[],     &["*"],   "",     "pods",        "log",    "p", "get",    true);
    check(&["*"],  &["pods/*"],      &[],     &["*"],   "",     "pods",        "log",    "p", "get",    false);
    check(&[""],   &["pods"],        &["p"],  &["get"], "",     "pods",        "",       "p", "get",    true);
    check(&[""],   &["pods"],        &["p"],  &["list"],"",     "pods",        "",       "",  "list",   false);
    check(&["apps"],&["deployments"],&[],     &["get"], "",     "deployments", "",       "d", "get",    false);
    let check = |resource, subresource| Attributes { subresource, ..Attributes::resource(&user, "get", "", resource, "x") };
    assert!(PolicyRule::everything()[0].allows(&check("nodes", "proxy")));

    #[track_caller]
    #[expect(clippy::too_many_arguments, reason = "one column each")]
    fn check(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str], group: &str, resource: &str, sub: &str, name: &str, verb: &str, allowed: bool) {
        let user = User::new("alice", &[]);
        let asked = Attributes { subresource: sub, ..Attributes::resource(&user, verb, group, resource, name) };
        assert_eq!(rule(groups, resources, names, verbs).allows(&asked), allowed);
    }
}

#[test]
fn paths_match_to_their_star() {
    let user = User::new("alice", &[]);
    let rule = PolicyRule {
        verbs: vec!["get".into()],
        non_resource_urls: vec!["/logs".into(), "/custom/*".into()],
        ..PolicyRule::default()
    };
    let asked = |path| Attributes { is_resource: false, path, ..Attributes::resource(&user, "get", "", "", "") };
    for (path, allowed) in [("/logs", true), ("/logs/x", false), ("/custom/x/y", true), ("/custom", false)] {
        assert_eq!(rule.allows(&asked(path)), allowed, "{path}");
    }
}

#[test]
fn what_is_missing_is_printed_as_upstream_prints_it() {
    let held = [rule(&[""], &["pods"], &[], &["get"])];
    let wanted = [rule(&[""], &["pods", "secrets"], &[], &["get", "list"]), rule(&["apps"], &["deployments"], &["d"], &["get"])];
    let expected = "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n\
                    {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}\n\
                    {APIGroups:[\"apps\"], Resources:[\"deployments\"], ResourceNames:[\"d\"], Verbs:[\"get\"]}";
    assert_eq!(describe(&missing(&held, &wanted)), expected);
    assert!(missing(&PolicyRule::everything(), &wanted).is_empty());
    assert!(!missing(&[rule(&[""], &["pods"], &["p"], &["get"])], &held).is_empty(), "a named right is not the whole right");
}

#[test]
fn refusals_are_upstreams() {
    let user = User::new("a<b", &[]);
    let asked = Attributes { namespace: "x", subresource: "log", ..Attributes::resource(&user, "get", "", "pods", "p") };
    let status = forbidden(&asked, "because");
    let expected = "pods \"p\" is forbidden: User \"a&lt;b\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"x\": because";
    assert_eq!(status.message, expected);
    let path = Attributes { is_resource: false, path: "/metrics", ..asked };
    assert_eq!(forbidden(&path, "").message, "forbidden: User \"a&lt;b\" cannot get path \"/metrics\"");
}

#[test]
fn selectors_are_read_exactly() {
    let user = User::new("n", &[]);
    let asked = |field_selector| Attributes { field_selector, ..Attributes::resource(&user, "list", "", "pods", "") };
    for (selector, selects) in [
        ("spec.nodeName=n", true),
        ("status.phase=Running,spec.nodeName==n", true),
        ("spec.nodeName!=n", false),
        ("spec.nodeName=nn", false),
        ("", false),
    ] {
        assert_eq!(asked(selector).selects("spec.nodeName", "n"), selects, "{selector}");
    }
}
