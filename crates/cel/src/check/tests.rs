use crate::{Environment, Type};

fn environment() -> Environment {
    let request = [("name", Type::String), ("kind", Type::structure("test.Kind"))];
    Environment::base()
        .variable("object", Type::Dyn)
        .variable("n", Type::Int)
        .variable("s", Type::String)
        .variable("names", Type::list(Type::String))
        .variable("labels", Type::map(Type::String, Type::String))
        .variable("request", Type::structure("test.Request"))
        .variable("authorizer", Type::structure("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::structure("kubernetes.authorization.ResourceCheck"))
        .message("test.Request", request)
        .message("test.Kind", [("group", Type::String)])
        .bind()
}

#[test]
fn types_are_found() {
    check("1 + 2", "int");
    check("object.spec.replicas", "dyn");
    check("object.spec.replicas > 1", "bool");
    check("request.kind.group", "string");
    check("names.map(x, x.size())", "list(int)");
    check("names.all(x, x.startsWith('a'))", "bool");
    check("labels.exists(k, labels[k] == 'a')", "bool");
    check("names.transformMap(i, v, v + '!')", "map(int, string)");
    check("labels.?a.orValue('b')", "string");
    check("object.?a.b.optMap(x, x + 1)", "optional_type(int)");
    check("names[?0]", "optional_type(string)");
    check("names.sortBy(x, x.size())", "list(string)");
    check("cel.bind(x, 'a', x + x)", "string");
    check("quantity('1').add(quantity('2')).isGreaterThan(quantity('1'))", "bool");
    check("ip('::1').family() + cidr('::/0').prefixLength()", "int");
    check("string(ip('::1'))", "string");
    check("semver('1.0.0').major()", "int");
    check("url('http://a').getQuery()", "map(string, list(string))");
    check("format.dns1123Label().validate(s).hasValue()", "bool");
    check("format.named('uri')", "optional_type(kubernetes.NamedFormat)");
    check("authorizer.group('').resource('pods').namespace('a').check('get').allowed()", "bool");
    check("authorizer.requestResource.check('get').reason()", "string");
    check("sets.contains([1, 2], [1])", "bool");
    check("[1, 2].sum() + [3].max()", "int");
    check("[[1], [2]].flatten()", "list(int)");
    check("'%s %d'.format([dyn('a'), dyn(1)])", "string");
    check("duration('1h') + timestamp('2020-02-29T00:00:00Z')", "google.protobuf.Timestamp");
    check("type(1) == int", "bool");
    check("type(1)", "type(int)");
    check("[]", "list(dyn)");
    check("{}", "map(dyn, dyn)");
    check("null", "null_type");
    check("true ? object : 1", "dyn");
    check("1 < 2.0", "bool");
    check("b'a'", "bytes");
    check("test.Kind{group: 'a'}", "test.Kind");

    #[track_caller]
    fn check(text: &str, expected: &str) {
        match environment().compile(text) {
            Ok(checked) => assert_eq!(checked.output().to_string(), expected, "{text}"),
            Err(issues) => panic!("{text}: {issues}"),
        }
    }
}

#[test]
fn faults_are_those_of_the_reference() {
    check("nope", &["1:1: undeclared reference to 'nope' (in container '')"]);
    check("nope.a.b == 1", &["1:1: undeclared reference to 'nope' (in container '')"]);
    check("nope(1)", &["1:5: undeclared reference to 'nope' (in container '')"]);
    check("s.nope()", &["1:7: undeclared reference to 'nope' (in container '')"]);
    check("request.nope == 1", &["1:8: undefined field 'nope'"]);
    check("s.nope > 1", &["1:2: type 'string' does not support field selection"]);
    check("s + 1", &["1:3: found no matching overload for '_+_' applied to '(string, int)'"]);
    check("s.startsWith(1)", &["1:13: found no matching overload for 'startsWith' applied to 'string.(int)'"]);
    check("size(1)", &["1:5: found no matching overload for 'size' applied to '(int)'"]);
    check("n && true", &["1:1: expected type 'bool' but found 'int'"]);
    check("true ? 1 : 's'", &["1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'"]);
    check("[1, 's']", &["1:5: expected type 'int' but found 'string'"]);
    check("[object, 1]", &["1:10: expected type 'dyn' but found 'int'"]);
    check("{'a': 1, 'b': true}", &["1:15: expected type 'int' but found 'bool'"]);
    check(
        "n.all(x, x > 1)",
        &["1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"],
    );
    check("names.exists(x, x)", &["1:17: expected type 'bool' but found 'string'"]);
    check("test.Kind{group: 1}", &["1:16: expected type of field 'group' is 'string' but provided type is 'int'"]);
    check("test.Kind{nope: 1}", &["1:15: undefined field 'nope'"]);
    check("int{a: 1}.b", &["1:4: 'int' is not a message type", "1:6: unexpected failed resolution of 'int'"]);
    check("quantity('1').nope", &["1:14: unexpected failed resolution of 'kubernetes.Quantity'"]);
    check("ip('::1').nope", &["1:10: type 'net.IP' does not support field selection"]);
    check("duration('1 hour') > duration('1h')", &["1:10: invalid duration argument"]);
    check("timestamp('2021-02-29T00:00:00Z') == timestamp(0)", &["1:11: invalid timestamp argument"]);
    check("s.matches('[')", &["1:11: invalid matches argument"]);
    check(
        "[1].foo(x)",
        &["1:8: undeclared reference to 'foo' (in container '')", "1:9: undeclared reference to 'x' (in container '')"],
    );

    #[track_caller]
    fn check(text: &str, faults: &[&str]) {
        let issues = environment().compile(text).expect_err("the expression is wrong").to_string();
        let found: Vec<&str> = issues.lines().filter_map(|line| line.strip_prefix("ERROR: <input>:")).collect();
        assert_eq!(found, faults, "{text}");
    }
}

#[test]
fn a_fault_is_shown_in_its_line() {
    let issues = environment().compile("s ==\n\t'ü' + nope").expect_err("a name is unknown");
    let expected = "ERROR: <input>:2:8: undeclared reference to 'nope' (in container '')\n |  'ü' + nope\n | ..．....^";
    assert_eq!(issues.to_string(), expected);
}
