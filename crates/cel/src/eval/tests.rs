use serde_json::json;

use super::*;
use crate::{Environment, Type};

/// The value of `text`, or why it has none.
fn run(text: &str) -> String {
    let environment = Environment::base().variable("object", Type::Dyn).bind();
    let checked = environment.compile(text).unwrap_or_else(|issues| panic!("{text}: {issues}"));
    let object = json!({
        "metadata": {"name": "web", "labels": {"app": "a", "tier": "b"}},
        "spec": {"replicas": 3, "ratio": 0.5, "containers": [{"name": "x", "image": "i"}, {"name": "y"}], "none": null},
    });
    let outcome = evaluate(&checked, &|name| (name == "object").then(|| Value::from(&object)), PER_CALL_LIMIT);
    match outcome.value {
        Ok(value) => format!("{value:?}"),
        Err(fault) => format!("fault: {fault}"),
    }
}

#[test]
fn expressions_have_values() {
    let table = [
        ("1 + 2 * 3", "7"),
        ("7 / 2 + 7 % 2", "4"),
        ("-7 / 2", "-3"),
        ("1.0 + 0.5", "1.5"),
        ("1 < 1.5 && 2u > 1 && dyn(1) == 1.0", "true"),
        ("'a' + 'b' == 'ab'", "true"),
        ("object.metadata.name", "\"web\""),
        ("object.spec.replicas > 2", "true"),
        ("object.spec.none == null", "true"),
        ("has(object.spec.nope)", "false"),
        ("has(object.metadata.labels) && 'app' in object.metadata.labels", "true"),
        ("object.nope.deep", "fault: no such key: nope"),
        ("object.nope == 1 || true", "true"),
        ("false && object.nope == 1", "false"),
        ("object.spec.containers.all(c, has(c.image))", "false"),
        ("object.spec.containers.exists(c, c.image == 'i')", "true"),
        ("object.spec.containers.exists(c, c.nope == 'i' || c.name == 'y')", "true"),
        ("object.spec.containers.all(c, c.image == 'i')", "fault: no such key: image"),
        ("object.spec.containers.exists_one(c, c.name == 'x')", "true"),
        ("object.spec.containers.map(c, c.name)", "[\"x\", \"y\"]"),
        ("object.spec.containers.filter(c, !has(c.image)).map(c, c.name)", "[\"y\"]"),
        ("object.metadata.labels.map(k, k)", "[\"app\", \"tier\"]"),
        ("object.metadata.labels.transformMap(k, v, v + '!')", "{\"app\": \"a!\", \"tier\": \"b!\"}"),
        ("[1, 2].transformList(i, v, i * v)", "[0, 2]"),
        ("object.?spec.?nope.orValue(5)", "5"),
        ("object.?spec.?replicas.optMap(x, x + 1).value()", "4"),
        ("[dyn(1), ?object.?nope, dyn(2)]", "[1, 2]"),
        ("cel.bind(x, object.spec.replicas, x + x)", "6"),
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("['bb', 'a'].sortBy(s, s.size())", "[\"a\", \"bb\"]"),
        ("[1, 2, 3].sum() + [4, 5].max() - [4, 5].min()", "7"),
        ("[[1], [2, 3]].flatten().slice(1, 3).reverse()", "[3, 2]"),
        ("[1, 1, 2].distinct().size()", "2"),
        ("sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", "true"),
        ("'a,b,c'.split(',').join('-')", "\"a-b-c\""),
        ("'hello'.substring(1, 3) + 'x'.upperAscii() + ' y '.trim()", "\"elXy\""),
        ("'hello'.indexOf('l') + 'hello'.lastIndexOf('l')", "5"),
        ("'%s is %d of %.2f'.format([dyn('a'), dyn(1), dyn(2.5)])", "\"a is 1 of 2.50\""),
        ("'abc'.matches('^a.c$') && 'x1y22'.findAll('[0-9]+') == ['1', '22']", "true"),
        ("int('12') + int(3.9) + size(b'ab')", "17"),
        ("int('x')", "fault: type conversion error from 'string' to 'int'"),
        ("string(1.5) + string(1e21) + string(true) + string(duration('1m30s'))", "\"1.51e+21true90s\""),
        ("timestamp('2024-02-29T12:30:45.5Z').getDayOfYear()", "59"),
        ("timestamp('2024-02-29T23:30:00Z').getHours('+02:00')", "1"),
        ("timestamp('2024-01-01T00:00:00Z') - timestamp('2023-12-31T23:00:00Z') == duration('1h')", "true"),
        ("string(timestamp(0) + duration('1.5s'))", "\"1970-01-01T00:00:01.5Z\""),
        ("quantity('1Gi').add(quantity('512Mi')).isGreaterThan(quantity('1.4Gi'))", "true"),
        ("quantity('1500m').asApproximateFloat()", "1.5"),
        ("quantity('2k').asInteger()", "2000"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('0.0.0.0/0')", "true"),
        ("string(cidr('10.1.2.3/8').masked())", "\"10.0.0.0/8\""),
        ("ip('fe80::1').isLinkLocalUnicast() && ip('127.0.0.1').isLoopback() && !isIP('1.2.3')", "true"),
        ("url('https://u@example.com:80/a%20b?x=1&x=2').getHostname()", "\"example.com\""),
        ("url('https://example.com:80/a?x=1&x=2').getQuery()", "{\"x\": [\"1\", \"2\"]}"),
        ("semver('1.0.0-rc.1').isLessThan(semver('1.0.0')) && semver('v1.2', true).minor() == 2", "true"),
        ("format.dns1123Label().validate('ok').hasValue()", "false"),
        ("format.named('uuid').value().validate('x').value()", "[\"does not match the UUID format\"]"),
        ("type(1) == int && type('a') != int", "true"),
        ("[1, 2][5]", "fault: index out of bounds: 5"),
        ("{'a': 1}['b']", "fault: no such key: b"),
        ("1 / 0", "fault: division by zero"),
        ("9223372036854775807 + 1", "fault: integer overflow"),
        ("true ? 1 : object.nope", "1"),
    ];
    let found: Vec<(&str, String)> = table.iter().map(|(text, _)| (*text, run(text))).collect();
    let wrong: Vec<_> = found.iter().zip(table).filter(|((_, found), (_, expected))| found != expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn cost_is_limited() {
    let items = vec!["1"; 120].join(", ");
    let text = format!("[{items}].all(a, [{items}].all(b, [{items}].all(c, a == b && b == c)))");
    assert_eq!(run(&text), "fault: operation cancelled: actual cost limit exceeded");
}
