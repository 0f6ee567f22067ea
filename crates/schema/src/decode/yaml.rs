//! YAML as upstream reads it: converted to JSON first, with the scalars of YAML 1.1 (`yes` is a boolean, `0644` is octal),
//! which is what manifests written for Kubernetes rely on.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

use super::{DecodeError, MAX_DEPTH, go};

mod scalar;
mod words;

use words::Place;

/// Most bytes that aliases may unfold to, counting each value and its text: a document of a few bytes must not become one
/// of gigabytes.
const MAX_UNFOLDED: usize = 8 * 1024 * 1024;
/// What a value costs besides its text.
const VALUE_COST: usize = 32;

/// A body converted to JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The JSON.
    pub json: Vec<u8>,
    /// The fault of a strict reader when keys are doubled, in upstream's words: `yaml: unmarshal errors: …`.
    pub duplicates: Option<String>,
}

/// Converts the first document of a YAML stream. An empty stream is `null`.
///
/// # Errors
///
/// [`DecodeError::Yaml`].
pub fn to_json(bytes: &[u8]) -> Result<Converted, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Yaml("yaml: invalid leading UTF-8 octet".into()))?;
    words::check_start(text)?;
    let mut reader =
        Reader { text, parser: Parser::new_from_str(text), anchors: HashMap::new(), doubled: Vec::new(), unfolded: 0 };
    let value = reader.document()?;
    let duplicates = (!reader.doubled.is_empty()).then(|| format!("yaml: unmarshal errors:\n{}", reader.doubled.join("\n")));
    Ok(Converted { json: crate::encode::go_json(&value), duplicates })
}

/// Whether a plain scalar is text.
pub(super) fn reads_as_text(text: &str) -> bool {
    scalar::resolve(text, true, None).is_ok_and(|value| value.is_string())
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Value, usize)>,
    doubled: Vec<String>,
    unfolded: usize,
}

/// An event that begins or is a node, or ends a collection.
enum Node {
    Value(Value),
    Mapping(usize),
    Sequence(usize),
    End,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Value, DecodeError> {
        loop {
            match self.event()? {
                (Event::DocumentStart(..), _) => break,
                (Event::StreamEnd, _) => return Ok(Value::Null),
                _ => {}
            }
        }
        let value = self.node(0)?.map_or(Value::Null, |(value, _)| value);
        // What follows is nobody's business, but for a key that turns out to have been read as the document.
        match self.event() {
            Err(DecodeError::Yaml(why)) if why.contains("mapping values are not allowed") => Err(DecodeError::Yaml(why)),
            _ => Ok(value),
        }
    }

    fn event(&mut self) -> Result<(Event<'_>, Place), DecodeError> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Place::default())),
            Some(Ok((event, span))) => Ok((event, Place { line: span.start.line(), column: span.start.col() })),
            Some(Err(err)) => {
                let place = Place { line: err.marker().line(), column: err.marker().col() };
                Err(words::told(self.text, place, &err.info()))
            }
        }
    }

    /// One node with its cost, or nothing at the end of a collection or document.
    fn node(&mut self, depth: usize) -> Result<Option<(Value, usize)>, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::Yaml("yaml: exceeded max depth".into()));
        }
        let mut known = None;
        let next = loop {
            let text_of_stream = self.text;
            let (event, place) = self.event()?;
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain;
                    if let Some(name) = scalar::unsupported(&text).filter(|_| plain && tag.is_none()) {
                        return Err(DecodeError::Yaml(format!("json: unsupported value: {name}")));
                    }
                    let tag = tag.as_ref().and_then(|tag| {
                        // Of the language's repository of types, but not of its core.
                        let binary = (tag.handle() == "tag:yaml.org,2002:" && tag.suffix() == "binary").then_some("binary");
                        tag.core_suffix().or(binary).map(str::to_owned)
                    });
                    let value = scalar::resolve(&text, plain, tag.as_deref()).map_err(|what| fault(&what))?;
                    known = Some((anchor, VALUE_COST + text.len()));
                    break Node::Value(value);
                }
                Event::MappingStart(_, anchor, _) => break Node::Mapping(anchor),
                Event::SequenceStart(_, anchor, _) => break Node::Sequence(anchor),
                Event::Alias(id) => {
                    let Some((value, size)) = self.anchors.get(&id).cloned() else {
                        let name = words::alias(text_of_stream, place);
                        return Err(fault(&format!("anchor '{name}' value contains itself")));
                    };
                    self.unfolded += size;
                    if self.unfolded > MAX_UNFOLDED {
                        return Err(fault("document contains excessive aliasing"));
                    }
                    return Ok(Some((value, size)));
                }
                Event::MappingEnd | Event::SequenceEnd | Event::DocumentEnd | Event::StreamEnd => break Node::End,
                _ => {}
            }
        };
        let (value, anchor, size) = match next {
            Node::End => return Ok(None),
            Node::Value(value) => {
                let (anchor, size) = known.unwrap_or_default();
                (value, anchor, size)
            }
            Node::Mapping(anchor) => {
                let (map, size) = self.mapping(depth)?;
                (Value::Object(map), anchor, size)
            }
            Node::Sequence(anchor) => {
                let (mut list, mut size) = (Vec::new(), VALUE_COST);
                while let Some((item, inner)) = self.node(depth + 1)? {
                    list.push(item);
                    size += inner;
                }
                (Value::Array(list), anchor, size)
            }
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), size));
        }
        Ok(Some((value, size)))
    }

    fn mapping(&mut self, depth: usize) -> Result<(Map<String, Value>, usize), DecodeError> {
        let (mut map, mut merged, mut size) = (Map::new(), Map::new(), VALUE_COST);
        loop {
            let line = match self.parser.peek() {
                Some(Ok((_, span))) => span.start.line(),
                _ => 0,
            };
            let is_merge =
                matches!(self.parser.peek(), Some(Ok((Event::Scalar(text, ScalarStyle::Plain, _, None), _))) if text == "<<");
            let Some((key, key_size)) = self.node(depth + 1)? else { break };
            let Some((value, inner)) = self.node(depth + 1)? else {
                return Err(fault("did not find expected key"));
            };
            size += key_size + inner;
            if is_merge {
                merge(&mut merged, value).map_err(fault)?;
                continue;
            }
            let shown = go::syntax(&key, "interface {}");
            let Some(key) = key_text(key) else {
                return Err(DecodeError::Yaml(format!("yaml: invalid map key: {shown}")));
            };
            if map.contains_key(&key) {
                self.doubled.push(format!("  line {line}: key {shown} already set in map"));
            }
            map.insert(key, value);
        }
        for (key, value) in merged {
            map.entry(key).or_insert(value);
        }
        Ok((map, size))
    }
}

/// `<<: *anchor`: own keys win, earlier maps win over later ones.
fn merge(into: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(list) => list.into_iter().try_for_each(|value| merge(into, value)),
        _ => Err("map merge requires map or sequence of maps as the value"),
    }
}

/// JSON keys are strings: other scalars are written as such.
fn key_text(key: Value) -> Option<String> {
    match key {
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Number(_) | Value::Null => Some(key.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn fault(what: &str) -> DecodeError {
    DecodeError::Yaml(format!("yaml: {what}"))
}
