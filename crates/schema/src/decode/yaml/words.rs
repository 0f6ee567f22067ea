//! What Go's reader says where this one gives up. People know these words, and tools look for them.

use super::super::DecodeError;

/// Where something is in a stream: its line, counted from one, and its column, counted from zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Whose fault it is. Go's scanner counts lines from one and its parser from zero; both leave out the first line.
enum By {
    Scanner,
    Parser,
}

const NO_TOKEN: &str = "found character that cannot start any token";

/// Refuses what this reader would take before the first document and Go's does not: unknown directives, and a tab.
pub(super) fn check_start(text: &str) -> Result<(), DecodeError> {
    for (at, line) in text.trim_start_matches('\u{feff}').split('\n').enumerate() {
        let mut words = line.split_whitespace();
        match words.next() {
            None => {}
            Some(word) if word.starts_with('#') => {}
            Some("%TAG") if line.starts_with('%') => {}
            Some("%YAML") if line.starts_with('%') => match words.next() {
                None | Some("1.1") => {}
                Some(_) => return Err(say(By::Parser, at + 1, "found incompatible YAML document")),
            },
            Some(_) if line.starts_with('%') => return Err(say(By::Scanner, at + 1, "found unknown directive name")),
            Some(_) if line.starts_with('\t') => return Err(say(By::Scanner, at + 1, NO_TOKEN)),
            Some(_) => return Ok(()),
        }
    }
    Ok(())
}

/// The words for a fault that this reader's parser found.
pub(super) fn told(text: &str, place: Place, info: &str) -> DecodeError {
    let (doing, problem) = match info.strip_prefix("while ").and_then(|rest| rest.split_once(", ")) {
        Some((doing, problem)) => (doing, problem),
        None => ("", info),
    };
    // The line behind the last one, where Go's reader notices that something is missing.
    let end = text.matches('\n').count() + 1;
    let line = place.line;
    match problem {
        _ if problem.contains("tabs disallowed") => say(By::Scanner, line, NO_TOKEN),
        "found a tab" => say(By::Scanner, line + 1, "found a tab character that violates indentation"),
        _ if problem.starts_with("unexpected character") => {
            // Some may not begin a value; all others may not be in a document.
            if ["`@'", "``'", "`%'"].iter().any(|shown| problem.ends_with(shown)) {
                say(By::Scanner, line, NO_TOKEN)
            } else {
                DecodeError::Yaml("yaml: control characters are not allowed".into())
            }
        }
        _ if problem.contains("surrogate") => say(By::Scanner, line, "found invalid Unicode character escape code"),
        _ if problem.contains("hexadecimal") => say(By::Scanner, line, "did not find expected hexdecimal number"),
        "invalid indentation in multiline quoted scalar" | "unclosed quote" => {
            say(By::Scanner, end, "found unexpected end of stream")
        }
        _ if problem.contains("EOF while parsing") => say(By::Parser, line, "did not find expected node content"),
        "unclosed bracket '['" => say(By::Parser, end, "did not find expected ',' or ']'"),
        "unclosed bracket '{'" => say(By::Parser, end, "did not find expected ',' or '}'"),
        "illegal placement of ':' indicator" => say(By::Parser, line, "did not find expected ',' or ']'"),
        _ if problem.starts_with("mismatched bracket '['") => say(By::Parser, line, "did not find expected ',' or ']'"),
        _ if problem.starts_with("mismatched bracket '{'") => say(By::Parser, line, "did not find expected ',' or '}'"),
        "misplaced bracket" => {
            // It stands for a value, or it is one too many.
            let before: String =
                text.lines().nth(line.saturating_sub(1)).unwrap_or_default().chars().take(place.column).collect();
            let is_value = before.trim_end().is_empty() || before.trim_end().ends_with([':', '-', '?', ',']);
            say(By::Parser, line, if is_value { "did not find expected node content" } else { "did not find expected key" })
        }
        _ if problem.starts_with("invalid trailing content after") => say(By::Parser, line, "did not find expected key"),
        "found unknown anchor" => DecodeError::Yaml(format!("yaml: unknown anchor '{}' referenced", alias(text, place))),
        "the handle wasn't declared" => say(By::Parser, line, "found undefined tag handle"),
        "unsupported YAML major version" => say(By::Parser, line, "found incompatible YAML document"),
        "simple key expected ':'" => say(By::Scanner, line + 1, "could not find expected ':'"),
        _ if doing.starts_with("parsing") => say(By::Parser, line, problem),
        _ => say(By::Scanner, line, problem),
    }
}

/// The name of the alias at a place.
pub(super) fn alias(text: &str, place: Place) -> String {
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    let from: String = line.chars().skip(place.column).collect();
    let name = from.split_once('*').map_or("", |(_, name)| name);
    name.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

fn say(by: By, line: usize, problem: &str) -> DecodeError {
    let shown = match by {
        By::Scanner if line > 1 => line,
        By::Scanner => 0,
        By::Parser => line.saturating_sub(1),
    };
    match shown {
        0 => DecodeError::Yaml(format!("yaml: {problem}")),
        line => DecodeError::Yaml(format!("yaml: line {line}: {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::to_json;

    #[test]
    #[rustfmt::skip]
    fn common_mistakes_are_told_in_gos_words() {
        check("a:\n\tb: c\n",                "line 2: found character that cannot start any token");
        check("a:\n  b: c\n\td: e\n",       "line 3: found a tab character that violates indentation");
        check("\ta: b\n",                    "found character that cannot start any token");
        check("a: @b\n",                     "found character that cannot start any token");
        check("a:\n  b: \"c\n",              "line 3: found unexpected end of stream");
        check("a:\n  b: 'c\n",               "line 3: found unexpected end of stream");
        check("a: b\nc: {d: e\n",            "line 2: did not find expected ',' or '}'");
        check("a: [b, c\nd: e\n",            "line 1: did not find expected ',' or ']'");
        check("a: [b]]\n",                   "did not find expected key");
        check("a: }\n",                      "did not find expected node content");
        check("a: *b\n",                     "unknown anchor 'b' referenced");
        check("a: &a\n  b: *a\n",            "anchor 'a' value contains itself");
        check("a: !x!foo b\n",               "found undefined tag handle");
        check("a: b\nc d\ne: f\n",           "line 3: could not find expected ':'");
        check("a\nb: c\n",                   "line 2: mapping values are not allowed in this context");
        check("a: b\n c: d\n",               "line 2: mapping values are not allowed in this context");
        check("a: \"b\" c\n",                "did not find expected key");
        check("%FOO bar\n---\na: b\n",       "found unknown directive name");
        check("%YAML 1.2\n---\na: b\n",      "found incompatible YAML document");
        check("a: !!int b\n",                "cannot decode !!str `b` as a !!int");
        check("a: !!int 1.5\n",              "cannot decode !!float `1.5` as a !!int");
        check("a: !!binary a\n",             "!!binary value contains invalid base64 data");
        check("a:\n  <<: b\n",               "map merge requires map or sequence of maps as the value");
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(to_json(text.as_bytes()).unwrap_err().to_string(), format!("yaml: {expected}"), "{text:?}");
        }
        // What follows a document is not looked at.
        for text in ["{a: b} c\n", "a: b\n...\nc\n", "a: b\n---\n{{{\n", "a: b\n--- d\n"] {
            assert_eq!(to_json(text.as_bytes()).unwrap().json, b"{\"a\":\"b\"}", "{text:?}");
        }
    }
}
