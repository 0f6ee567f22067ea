use super::*;

/// The faults of a policy's expression that is compiled by `with`.
#[track_caller]
fn check(with: fn(&Compiler, &mut Faults, &Path<'_>, &str), text: &str, expected: &[&str]) {
    let mut compiler = Compiler::of_policy(true);
    compiler.declare_variables();
    let mut faults = Faults::default();
    let path = Path::new("e");
    compiler.variable(&mut faults, &path, "count", "object.spec.items.size()");
    compiler.variable(&mut faults, &path, "limit", "quantity('1')");
    with(&compiler, &mut faults, &path, text);
    let found: Vec<&str> = faults.0.iter().map(|fault| fault.message.split_once("\": ").map_or("", |(_, why)| why)).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn expressions_see_what_upstream_declares() {
    check(Compiler::validation, "object.metadata.name != oldObject.metadata.name", &[]);
    check(Compiler::validation, "request.userInfo.groups.exists(g, g == params.group)", &[]);
    check(Compiler::validation, "namespaceObject.metadata.labels['a'] == 'b'", &[]);
    check(Compiler::validation, "authorizer.requestResource.check('get').allowed()", &[]);
    check(Compiler::validation, "variables.count > 3", &[]);
    check(Compiler::validation, "variables.limit.isGreaterThan(quantity('0'))", &[]);
    check(Compiler::message, "'at most ' + string(variables.count)", &[]);
    check(
        Compiler::annotation,
        "variables.count > 3 ? 'many' : null",
        &["compilation failed: ERROR: <input>:1:21: found no matching overload for '_?_:_' applied to '(bool, string, null)'\
         \n | variables.count > 3 ? 'many' : null\n | ....................^"],
    );
    check(
        Compiler::validation,
        "variables.count + 'a' == ''",
        &["compilation failed: ERROR: <input>:1:17: found no matching overload for '_+_' applied to '(int, string)'\
         \n | variables.count + 'a' == ''\n | ................^"],
    );
    check(
        Compiler::validation,
        "variables.nope",
        &["compilation failed: ERROR: <input>:1:10: undefined field 'nope'\n | variables.nope\n | .........^"],
    );
    check(
        Compiler::condition,
        "variables.count > 3",
        &["compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables' (in container '')\
         \n | variables.count > 3\n | ^"],
    );
    check(
        Compiler::message,
        "authorizer.path('/')",
        &["compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')\
         \n | authorizer.path('/')\n | ^"],
    );
}

#[test]
fn results_are_of_the_type_that_is_needed() {
    check(Compiler::validation, "1 + 1", &["must evaluate to bool but got int"]);
    check(Compiler::validation, "object.spec", &["must evaluate to bool but got dyn"]);
    check(Compiler::message, "1", &["must evaluate to string but got int"]);
    check(Compiler::annotation, "1", &["must evaluate to one of [string null_type] but got int"]);
    check(Compiler::annotation, "null", &[]);
    let json = |compiler: &Compiler, faults: &mut Faults, path: &Path<'_>, text: &str| {
        compiler.patch(faults, path, text, "JSONPatch");
    };
    let apply = |compiler: &Compiler, faults: &mut Faults, path: &Path<'_>, text: &str| {
        compiler.patch(faults, path, text, "ApplyConfiguration");
    };
    check(json, "[JSONPatch{op: 'add', path: '/metadata/' + jsonpatch.escapeKey('a/b'), value: {'a': 'b'}}]", &[]);
    check(json, "[]", &["must evaluate to list(JSONPatch) but got list(dyn)"]);
    check(apply, "Object{spec: Object.spec{replicas: 1}}", &[]);
    check(apply, "{'a': 1}", &["must evaluate to Object but got map(string, int)"]);
    check(
        apply,
        "Object{",
        &[
            "compilation failed: ERROR: <input>:1:8: Syntax error: mismatched input '<EOF>' expecting {'}', ',', '?', IDENTIFIER, \
         ESC_IDENTIFIER}\n | Object{\n | .......^",
        ],
    );
}
