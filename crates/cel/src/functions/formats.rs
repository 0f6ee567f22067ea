//! Named formats, and the escape of JSON pointers. A text that does not fit gets the messages of API validation.

use std::rc::Rc;

use super::{Call, time::Time, url::Url};
use crate::value::Value;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
                     with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                         start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                          character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                          validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                           start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
                           for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<super::Result<Value<'a>>> {
    let named = |wanted: &str| NAMES.into_iter().find(|name| *name == wanted);
    let known: Call<'a> = match (function, args) {
        ("format.named", [Value::String(name)]) => {
            Some(Ok(Value::Optional(named(name).map(|name| Rc::new(Value::Format(name))))))
        }
        ("validate", [Value::Format(name), Value::String(text)]) => {
            let faults: Vec<Value<'a>> = faults(name, text).into_iter().map(Value::text).collect();
            Some(Ok(Value::Optional((!faults.is_empty()).then(|| Rc::new(Value::list(faults))))))
        }
        ("jsonpatch.escapeKey", [Value::String(key)]) => Some(Ok(Value::text(key.replace('~', "~0").replace('/', "~1")))),
        _ => None,
    };
    known.or_else(|| {
        function.strip_prefix("format.").filter(|_| args.is_empty()).and_then(named).map(|name| Ok(Value::Format(name)))
    })
}

/// What is wrong with `text` as `format`.
fn faults(format: &str, text: &str) -> Vec<String> {
    let one = |fits: bool, message: &str| if fits { Vec::new() } else { vec![message.to_owned()] };
    // A prefix of a name may end where another part is to follow.
    let prefix = |text: &str| text.strip_suffix('-').map_or_else(|| text.to_owned(), |rest| format!("{rest}a"));
    match format {
        "dns1123Label" => named(text, 63, is_label, LABEL),
        "dns1123LabelPrefix" => named(&prefix(text), 63, is_label, LABEL),
        "dns1123Subdomain" => named(text, 253, is_subdomain, SUBDOMAIN),
        "dns1123SubdomainPrefix" => named(&prefix(text), 253, is_subdomain, SUBDOMAIN),
        "dns1035Label" => named(text, 63, is_label_1035, LABEL_1035),
        "dns1035LabelPrefix" => named(&prefix(text), 63, is_label_1035, LABEL_1035),
        "labelValue" => named(text, 63, |text| text.is_empty() || is_name(text), LABEL_VALUE),
        "qualifiedName" => qualified(text),
        "uri" => one(Url::parse(text).is_some(), "invalid URI"),
        "uuid" => one(is_uuid(text), "does not match the UUID format"),
        "byte" => one(is_base64(text), "invalid base64"),
        "date" => one(text.len() == 10 && Time::parse(&format!("{text}T00:00:00Z")).is_some(), "invalid date"),
        "datetime" => one(Time::parse(text).is_some(), "invalid datetime"),
        _ => Vec::new(),
    }
}

fn named(text: &str, most: usize, fits: fn(&str) -> bool, message: &str) -> Vec<String> {
    let long = (text.len() > most).then(|| format!("must be no more than {most} bytes"));
    long.into_iter().chain((!fits(text)).then(|| message.to_owned())).collect()
}

fn qualified(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let mut found = Vec::new();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                found.push("prefix part must be non-empty".to_owned());
            } else {
                found.extend(named(prefix, 253, is_subdomain, SUBDOMAIN).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        found.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name(name) {
        found.push(QUALIFIED.to_owned());
    }
    found
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte == b'-' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_label_1035(text: &str) -> bool {
    is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_name(text: &str) -> bool {
    let outer = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(outer) && text.ends_with(outer) && text.chars().all(|c| outer(c) || matches!(c, '-' | '_' | '.'))
}

fn is_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
    digits == 32 && (text.len() == 32 || dashed)
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
