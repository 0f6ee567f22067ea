//! Documents without a type.

use serde_json::{Map, Value};

use super::scan::{After, Scanner, too_deep};
use super::typed::Strict;
use super::{DecodeError, Decoded, MAX_DEPTH, TypeMeta, go};

pub(super) fn document(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    read(Scanner::new(bytes))
}

/// [`document`] with numbers as they are written.
pub(super) fn as_written(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut scanner = Scanner::new(bytes);
    scanner.keeps_doubles = true;
    read(scanner)
}

fn read(mut scanner: Scanner<'_>) -> Result<Decoded, DecodeError> {
    let mut strict = Strict::default();
    let document = value(&mut scanner, 0, Some((&mut strict, &Path::Root)))?;
    scanner.end()?;
    Ok(Decoded { document, strict: strict.faults })
}

/// Kind and version. Go's plain decoder is used here upstream, which does not mind the case of names.
pub(super) fn type_meta(bytes: &[u8]) -> Result<TypeMeta, DecodeError> {
    let meta = |err: DecodeError| DecodeError::Meta(err.to_string());
    // The whole body is checked first: a fault of syntax anywhere is the answer.
    let mut scanner = Scanner::new(bytes);
    scanner.skip().and_then(|()| scanner.end()).map_err(meta)?;
    let mut scanner = Scanner::new(bytes);
    let mut found = TypeMeta::default();
    let target = "Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let kind_of_value = match scanner.peek().map_err(meta)? {
        b'{' => None,
        b'[' => Some("array"),
        b'"' => Some("string"),
        b't' | b'f' => Some("bool"),
        b'n' => return Ok(found),
        _ => Some("number"),
    };
    if let Some(kind) = kind_of_value {
        return Err(DecodeError::Meta(format!("json: cannot unmarshal {kind} into {target}")));
    }
    scanner.eat(b'{').map_err(meta)?;
    let mut first = true;
    let mut fault = None;
    while let Some(key) = scanner.key(first).map_err(meta)? {
        first = false;
        let field = if key.eq_ignore_ascii_case("kind") {
            ("kind", &mut found.kind)
        } else if key.eq_ignore_ascii_case("apiVersion") {
            ("apiVersion", &mut found.api_version)
        } else {
            scanner.skip().map_err(meta)?;
            continue;
        };
        let kind = match scanner.peek().map_err(meta)? {
            b'"' => {
                *field.1 = scanner.string().map_err(meta)?.into_owned();
                continue;
            }
            b'n' => None,
            b'{' => Some("object"),
            b'[' => Some("array"),
            b't' | b'f' => Some("bool"),
            _ => Some("number"),
        };
        scanner.skip().map_err(meta)?;
        if let (Some(kind), None) = (kind, &fault) {
            fault = Some(format!("json: cannot unmarshal {kind} into Go struct field .{} of type string", field.0));
        }
    }
    fault.map_or(Ok(found), |fault| Err(DecodeError::Meta(fault)))
}

/// Where a value is, for the names of duplicate fields.
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Path::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

/// Reads any value; duplicate fields are noted when somebody wants to know.
pub(super) fn value(
    scanner: &mut Scanner<'_>,
    depth: usize,
    mut strict: Option<(&mut Strict, &Path<'_>)>,
) -> Result<Value, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    Ok(match scanner.peek()? {
        b'{' => {
            scanner.eat(b'{')?;
            let mut map = Map::new();
            let mut first = true;
            while let Some(key) = scanner.key(first)? {
                first = false;
                let inner = match &mut strict {
                    None => value(scanner, depth + 1, None)?,
                    Some((strict, path)) => {
                        let path = Path::Key(path, &key);
                        if map.contains_key(&*key) {
                            strict.duplicate(&path);
                        }
                        value(scanner, depth + 1, Some((strict, &path)))?
                    }
                };
                map.insert(key.into_owned(), inner);
            }
            Value::Object(map)
        }
        b'[' => {
            scanner.eat(b'[')?;
            let mut list = Vec::new();
            while scanner.item(list.is_empty())? {
                let inner = match &mut strict {
                    None => value(scanner, depth + 1, None)?,
                    Some((strict, path)) => {
                        let path = Path::Index(path, list.len());
                        value(scanner, depth + 1, Some((strict, &path)))?
                    }
                };
                list.push(inner);
            }
            Value::Array(list)
        }
        b'"' => Value::String(scanner.string()?.into_owned()),
        b't' => {
            scanner.literal("true")?;
            Value::Bool(true)
        }
        b'f' => {
            scanner.literal("false")?;
            Value::Bool(false)
        }
        b'n' => {
            scanner.literal("null")?;
            Value::Null
        }
        b'-' | b'0'..=b'9' => {
            let text = scanner.number()?;
            match text.parse::<f64>() {
                Ok(double) if scanner.keeps_doubles && text.contains(['.', 'e', 'E']) && double.is_finite() => double.into(),
                _ => go::number(text)?,
            }
        }
        _ => return Err(scanner.unexpected(After::Value)),
    })
}
