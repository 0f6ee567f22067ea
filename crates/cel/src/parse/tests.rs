use super::*;

/// What `text` is, in prefix notation.
fn shown(expr: &Expr) -> String {
    let all = |args: &[Expr]| args.iter().map(shown).collect::<Vec<_>>().join(" ");
    match &expr.kind {
        ExprKind::Literal(literal) => format!("{literal:?}"),
        ExprKind::Ident(name) => name.clone(),
        ExprKind::Select { operand, field, test } => format!("{}{}{field}", shown(operand), if *test { "?" } else { "." }),
        ExprKind::Call { target: None, function, args } => format!("({function} {})", all(args)),
        ExprKind::Call { target: Some(target), function, args } => format!("({}.{function} {})", shown(target), all(args)),
        ExprKind::List(elements) => {
            let items: Vec<String> = elements.iter().map(|element| shown(&element.value)).collect();
            format!("[{}]", items.join(" "))
        }
        ExprKind::Map(entries) => {
            let items: Vec<String> =
                entries.iter().map(|entry| format!("{}:{}", shown(&entry.key), shown(&entry.value))).collect();
            format!("{{{}}}", items.join(" "))
        }
        ExprKind::Struct { name, fields } => {
            let items: Vec<String> = fields.iter().map(|field| format!("{}:{}", field.name, shown(&field.value))).collect();
            format!("{name}{{{}}}", items.join(" "))
        }
        ExprKind::Comprehension(fold) => format!(
            "(fold {} {} {} {} {} {})",
            fold.variable,
            shown(&fold.range),
            shown(&fold.init),
            shown(&fold.condition),
            shown(&fold.step),
            shown(&fold.result)
        ),
    }
}

#[test]
fn operators_bind_as_the_grammar_says() {
    check("1 + 2 * 3 - 4", "(_-_ (_+_ Int(1) (_*_ Int(2) Int(3))) Int(4))");
    check("a < b == c", "(_==_ (_<_ a b) c)");
    check("a || b && c || d", "(_||_ (_||_ a (_&&_ b c)) d)");
    check("a && b && c && d", "(_&&_ (_&&_ a b) (_&&_ c d))");
    check("a ? b : c ? d : e", "(_?_:_ a b (_?_:_ c d e))");
    check("-1", "Int(-1)");
    check("--1", "Int(1)");
    check("-x", "(-_ x)");
    check("!!!x", "(!_ x)");
    check("-9223372036854775808", "Int(-9223372036854775808)");
    check("0xFF + 1u", "(_+_ Int(255) Uint(1))");
    check("1.5e3 + .5", "(_+_ Double(1500.0) Double(0.5))");
    check("a.b[0].c(1, 2)", "((_[_] a.b Int(0)).c Int(1) Int(2))");
    check("a.?b[?0]", "(_[?_] (_?._ a String(\"b\")) Int(0))");
    check("[1, 2,]", "[Int(1) Int(2)]");
    check("[,]", "[]");
    check("{'a': 1, 2: [3]}", "{String(\"a\"):Int(1) Int(2):[Int(3)]}");
    check("a.B{c: 1}", "a.B{c:Int(1)}");
    check(".a.b", ".a.b");
    check("r'\\n' + '\\n\\x41\\u00e9' + b'\\xff'", "(_+_ (_+_ String(\"\\\\n\") String(\"\\nA\u{e9}\")) Bytes([255]))");
    check("'''a'b\r\n'''", "String(\"a'b\\n\")");
    check("a // b\n", "a");

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let parsed = parse(text, false).unwrap_or_else(|issues| panic!("{text}: {issues}"));
        assert_eq!(shown(&parsed.expr), expected, "{text}");
    }
}

#[test]
fn macros_expand_to_folds() {
    check("has(a.b)", "a?b");
    check("m.all(v, f)", "(fold v m Bool(true) (@not_strictly_false @result) (_&&_ @result f) @result)");
    check("m.map(v, p, f)", "(fold v m [] Bool(true) (_?_:_ p (_+_ @result [f]) @result) @result)");
    check("cel.bind(x, 1, x)", "(fold #unused [] Int(1) Bool(false) x x)");

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let parsed = parse(text, true).unwrap_or_else(|issues| panic!("{text}: {issues}"));
        assert_eq!(shown(&parsed.expr), expected, "{text}");
    }
}

#[test]
fn well_formed_text_may_still_be_wrong() {
    check("0xFFFFFFFFFFFFFFFFF", &["invalid int literal"]);
    check("0xFFFFFFFFFFFFFFFFFu", &["invalid uint literal"]);
    check("1.99e90000009", &["invalid double literal"]);
    check("has(m)", &["invalid argument to has() macro"]);
    check("m.map(__result__, __result__)", &["iteration variable overwrites accumulator variable"]);
    check("m.filter(a.b, false)", &["argument is not an identifier"]);
    check("1.all(2, 3)", &["argument must be a simple name"]);
    check("while", &["reserved identifier: while"]);
    check("'\\udead'", &["invalid unicode code point"]);
    check("a.`b`", &["unsupported syntax: '`'"]);
    check(
        "[1].map(var, var * var)",
        &["reserved identifier: var", "reserved identifier: var", "reserved identifier: var", "argument is not an identifier"],
    );

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let issues = parse(text, false).err().expect("the text is wrong");
        assert_eq!(issues.messages().collect::<Vec<_>>(), expected, "{text}");
    }
}
