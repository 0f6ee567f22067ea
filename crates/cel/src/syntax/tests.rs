use crate::Environment;

const ANY: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// `faults` are `line:column: message` of what is wrong with `text`, ANY standing for the start of an expression.
#[track_caller]
fn check(text: &str, faults: &[&str]) {
    let issues = Environment::base().compile(text).expect_err("the text is malformed").to_string();
    let found: Vec<String> =
        issues.lines().filter_map(|line| line.strip_prefix("ERROR: <input>:")).map(|line| line.replace(ANY, "ANY")).collect();
    assert_eq!(found, faults, "{text}");
}

#[test]
fn faults_are_those_of_the_reference() {
    check("object.metadata.name ==", &["1:24: Syntax error: mismatched input '<EOF>' expecting ANY"]);
    check("1 +", &["1:4: Syntax error: mismatched input '<EOF>' expecting ANY"]);
    check("object.", &["1:8: Syntax error: no viable alternative at input '.'"]);
    check("Object{", &["1:8: Syntax error: mismatched input '<EOF>' expecting {'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}"]);
    check("self.true == 1", &["1:6: Syntax error: mismatched input 'true' expecting IDENTIFIER"]);
    check(
        "*@a | b",
        &[
            "1:1: Syntax error: extraneous input '*' expecting ANY",
            "1:2: Syntax error: token recognition error at: '@'",
            "1:5: Syntax error: token recognition error at: '| '",
            "1:7: Syntax error: extraneous input 'b' expecting <EOF>",
        ],
    );
    check(
        "a | b",
        &["1:3: Syntax error: token recognition error at: '| '", "1:5: Syntax error: extraneous input 'b' expecting <EOF>"],
    );
    check(
        "{",
        &[
            "1:2: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', \
             'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ],
    );
    check("TestAllTypes(){}", &["1:15: Syntax error: mismatched input '{' expecting <EOF>"]);
    check("TestAllTypes{}()", &["1:15: Syntax error: mismatched input '(' expecting <EOF>"]);
    check(
        "1 + $",
        &["1:5: Syntax error: token recognition error at: '$'", "1:6: Syntax error: mismatched input '<EOF>' expecting ANY"],
    );
    check("1 + 2\n3 +", &["2:1: Syntax error: mismatched input '3' expecting <EOF>"]);
    check(
        "1 + +",
        &["1:5: Syntax error: mismatched input '+' expecting ANY", "1:6: Syntax error: mismatched input '<EOF>' expecting ANY"],
    );
    check("{\"a\": 1}.\"a\"", &["1:10: Syntax error: no viable alternative at input '.\"a\"'"]);
    check(
        "\"\\xFh\"",
        &[
            "1:1: Syntax error: token recognition error at: '\"\\xFh'",
            "1:6: Syntax error: token recognition error at: '\"'",
            "1:7: Syntax error: mismatched input '<EOF>' expecting ANY",
        ],
    );
    check(
        "      '😁' in ['😁', '😑', '😦']\n\t\t\t&& in.😁",
        &[
            "2:7: Syntax error: extraneous input 'in' expecting ANY",
            "2:10: Syntax error: token recognition error at: '😁'",
            "2:11: Syntax error: no viable alternative at input '.'",
        ],
    );
    check(
        "in",
        &["1:1: Syntax error: mismatched input 'in' expecting ANY", "1:3: Syntax error: mismatched input '<EOF>' expecting ANY"],
    );
    check(
        "func{{a}}",
        &[
            "1:6: Syntax error: extraneous input '{' expecting {'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}",
            "1:8: Syntax error: mismatched input '}' expecting ':'",
            "1:9: Syntax error: extraneous input '}' expecting <EOF>",
        ],
    );
    check(
        "msg{:a}",
        &[
            "1:5: Syntax error: extraneous input ':' expecting {'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}",
            "1:7: Syntax error: mismatched input '}' expecting ':'",
        ],
    );
    check("{a}", &["1:3: Syntax error: mismatched input '}' expecting ':'"]);
    check("ind[a{b}]", &["1:8: Syntax error: mismatched input '}' expecting ':'"]);
    check(
        "--",
        &["1:3: Syntax error: no viable alternative at input '-'", "1:3: Syntax error: mismatched input '<EOF>' expecting ANY"],
    );
    check(
        "?",
        &["1:1: Syntax error: mismatched input '?' expecting ANY", "1:2: Syntax error: mismatched input '<EOF>' expecting ANY"],
    );
    check("x{?.", &["1:4: Syntax error: mismatched input '.' expecting {IDENTIFIER, ESC_IDENTIFIER}"]);
    check("x{.", &["1:3: Syntax error: mismatched input '.' expecting {'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}"]);
}

#[test]
fn nesting_is_limited() {
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    check(&deep, &["-1:0: expression recursion limit exceeded: 250"]);
    check(&vec!["a"; 300].join("."), &["-1:0: max recursion depth exceeded"]);
    check(&vec!["1"; 300].join(" + "), &["-1:0: max recursion depth exceeded"]);
    let long = vec!["true"; 3000].join(" && ");
    assert!(Environment::base().compile(&long).is_ok(), "a chain is not nested");
    let size = format!("'{}'", "a".repeat(100_000));
    check(&size, &["-1:0: expression code point size exceeds limit: size: 100002, limit 100000"]);
}

#[test]
fn hostile_text_is_refused_and_no_more() {
    let starts =
        ["a ", "[", "1+", "-", "!", "a?", "{a:", "a.b(", "a.", "a,", "(-", "'a' ", "a{", "has(a.b).", "\\", "a[?", "1 in "];
    for text in starts.into_iter().map(|start| start.repeat(4_000 / start.len())) {
        assert!(Environment::base().compile(&text).is_err(), "{}", &text[..8]);
    }
}
