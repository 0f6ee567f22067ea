use serde_json::json;

use super::*;
use crate::field::{Faults, Path};

#[test]
#[rustfmt::skip]
fn label_selectors_match() {
    check("",                    true);
    check("app=web",             true);
    check("app==web",            true);
    check("app!=web",            false);
    check("app in (web,api)",    true);
    check("app notin (web)",     false);
    check("other notin (x)",     true);
    check("app",                 true);
    check("!app",                false);
    check("!other",              true);
    check("n>4",                 true);
    check("n<4",                 false);
    check("app>1",               false); // not a number
    check("in in (in)",          false);
    check("app in (,web)",       true);
    check("empty in ()",         true);
    check("app=web,n=5,!x",      true);
    #[track_caller]
    fn check(selector: &str, expected: bool) {
        let labels = json!({"app": "web", "n": "5", "empty": ""});
        assert_eq!(LabelSelector::parse(selector).unwrap().matches(&labels), expected, "{selector}");
    }
}

#[test]
#[rustfmt::skip]
fn malformed_label_selectors() {
    check("app in web",  "unable to parse requirement: found 'web' expected: '('");
    check("=web",        "found '=', expected: !, identifier, or 'end of string'");
    check("app in (web", "unable to parse requirement: found '', expected: ',' or ')'");
    check("app=we b",    "found 'b', expected: ',' or 'end of string'");
    check("n>abc",       "unable to parse requirement: values[0]: Invalid value: \"abc\": for 'Gt', 'Lt' operators, the value must be an integer");
    check("a,",          "found '', expected: identifier after ','");
    check("a b",         "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
    check("app in",      "unable to parse requirement: found '' expected: '('");
    #[track_caller]
    fn check(selector: &str, expected: &str) {
        assert_eq!(LabelSelector::parse(selector).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_selector_is_written_sorted() {
    let selector = LabelSelector::parse("b notin (y,x), a=1,!c").unwrap();
    assert_eq!(selector.to_string(), "a=1,b notin (x,y),!c");
}

#[test]
fn the_object_form() {
    assert!(LabelSelector::from_object(None).unwrap().is_nothing());
    assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().is_everything());
    let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "In", "values": ["x"]}]});
    let selector = LabelSelector::from_object(Some(&selector)).unwrap();
    assert!(selector.matches(&json!({"a": "1", "b": "x"})));
    assert!(!selector.matches(&json!({"a": "1"})));
}

#[test]
fn faults_of_the_object_form() {
    let selector = json!({"matchExpressions": [
        {"key": "", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["x"]},
        {"key": "a", "operator": "Near"},
    ]});
    let mut faults = Faults::default();
    validate_label_selector(&selector, false, &Path::new("selector"), &mut faults);
    let fields: Vec<_> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "selector.matchExpressions[0].values",
            "selector.matchExpressions[0].key",
            "selector.matchExpressions[0].key",
            "selector.matchExpressions[1].values",
            "selector.matchExpressions[2].operator",
        ]
    );
}

#[test]
#[rustfmt::skip]
fn field_selectors() {
    check("a=b",         Ok("a=b"));
    check("a==b,c!=d",   Ok("a==b,c!=d"));
    check("a=b\\,c",     Ok("a=b\\,c"));
    check("",            Ok(""));
    check("=",           Ok(""));
    check("a",           Err("invalid selector: 'a'; can't understand 'a'"));
    check("a=b\\x",      Err("invalid field selector: invalid escape sequence: \\x"));
    check("a=b=c",       Err("invalid field selector: unescaped character in value: 61"));
    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = FieldSelector::parse(text).map(|selector| selector.to_string()).map_err(|err| err.to_string());
        assert_eq!(found, expected.map(|text| text.replace("==", "=")).map_err(Into::into));
    }
}

#[test]
fn field_selectors_match() {
    let selector = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
    assert!(selector.matches(|field| if field == "spec.nodeName" { "n1" } else { "Running" }));
    assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
}
