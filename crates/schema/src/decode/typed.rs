//! Documents of built-in types, read in one pass over the bytes.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use corten_api::facts::{Field, Kind, Type, Types};
use corten_api::{quantity, time};
use serde_json::{Map, Value};

use super::fields::{kept, kept_as_sent, zero, zero_field, zero_struct};
use super::scan::{After, Scanner, too_deep};
use super::{DecodeError, Decoded, MAX_DEPTH, MAX_STRICT, go, untyped};

pub(super) fn document(bytes: &[u8], ty: &Type, as_sent: bool) -> Result<Decoded, DecodeError> {
    let mut reader = Reader { as_sent, ..Reader::new(bytes) };
    let map = match reader.scanner.peek()? {
        b'{' => reader.structure(ty, &At::Root, 0)?,
        _ => {
            let kind = Kind::Struct(ty.id);
            reader.value(&kind, Name::Kind, &At::Root, 0)?;
            zero_struct(ty)
        }
    };
    reader.finish(Value::Object(map))
}

pub(super) fn custom(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.scanner.peek()? != b'{' {
        let fault = reader.mismatch(None, &|| "map[string]interface {}".into(), &At::Root)?;
        reader.save(fault);
        return reader.finish(Value::Null);
    }
    reader.scanner.eat(b'{')?;
    let meta = reader.types.named("meta.v1.ObjectMeta");
    let mut map = Map::new();
    let mut first = true;
    while let Some(key) = reader.scanner.key(first)? {
        first = false;
        let path = untyped::Path::Key(&untyped::Path::Root, &key);
        if map.contains_key(&*key) {
            reader.strict.duplicate(&path);
        }
        let value = match meta {
            Some(meta) if key == "metadata" && reader.scanner.peek()? == b'{' => {
                let at = At::Field { parent: &At::Root, name: "metadata", owner: None };
                Value::Object(reader.structure(meta, &at, 1)?)
            }
            _ => untyped::value(&mut reader.scanner, 1, Some((&mut reader.strict, &path)))?,
        };
        map.insert(key.into_owned(), value);
    }
    reader.finish(Value::Object(map))
}

/// Reads a value that stands for itself, and says what is wrong with it.
pub(super) fn alone(bytes: &[u8], kind: &Kind) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.value(kind, Name::Kind, &At::Root, 0)?;
    reader.wrong.map_or(Ok(()), |wrong| Err(DecodeError::Value(wrong.converted())))
}

/// Faults of strict decoding: each once, and not too many.
#[derive(Default)]
pub(super) struct Strict {
    pub faults: Vec<String>,
    seen: HashSet<String>,
    /// Inside of a value that upstream reads with a decoder that is not strict.
    muted: usize,
}

impl Strict {
    pub(super) fn duplicate(&mut self, path: &dyn std::fmt::Display) {
        self.note(|| format!("duplicate field \"{path}\""));
    }

    fn note(&mut self, fault: impl FnOnce() -> String) {
        if self.muted > 0 || self.faults.len() >= MAX_STRICT {
            return;
        }
        let fault = fault();
        if self.seen.insert(fault.clone()) {
            self.faults.push(fault);
        }
    }
}

/// Where a value is. Text is made of it only when there is a fault to report.
enum At<'p> {
    Root,
    Field { parent: &'p At<'p>, name: &'p str, owner: Option<&'p Type> },
    Key { parent: &'p At<'p>, key: &'p str },
    Index { parent: &'p At<'p>, index: usize },
}

/// `spec.containers[0].name`, as unknown fields are reported.
impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Field { parent: At::Root, name, .. } | At::Key { parent: At::Root, key: name } => f.write_str(name),
            At::Field { parent, name, .. } | At::Key { parent, key: name } => write!(f, "{parent}.{name}"),
            At::Index { parent, index } => write!(f, "{parent}[{index}]"),
        }
    }
}

impl At<'_> {
    /// `Go struct field Container.spec.containers.name`, or `Go value`, as type errors tell it: without indices and keys, but with
    /// the names of inlined structs.
    fn go_field(&self) -> String {
        let (mut names, mut owner, mut at) = (Vec::new(), None, self);
        loop {
            at = match at {
                At::Root => break,
                At::Field { parent, name, owner: of } => {
                    names.push(*name);
                    let inlined = of.and_then(|of| of.field(name)).map_or(&[][..], |field| &field.inlined_from);
                    names.extend(inlined.iter().rev());
                    owner = owner.or(*of);
                    parent
                }
                At::Key { parent, .. } | At::Index { parent, .. } => parent,
            };
        }
        names.reverse();
        match owner {
            None => "Go value".into(),
            Some(owner) => format!("Go struct field {}.{}", owner.short_name(), names.join(".")),
        }
    }
}

/// How the Go type of a value is named.
#[derive(Clone, Copy)]
enum Name<'p> {
    Field(&'p Field),
    Item(&'p Field),
    Kind,
}

impl<'p> Name<'p> {
    fn item(self) -> Self {
        match self {
            Name::Field(field) => Name::Item(field),
            Name::Item(_) | Name::Kind => Name::Kind,
        }
    }

    fn of(self, kind: &Kind, types: &Types) -> String {
        match self {
            Name::Field(field) => field.go_name(types),
            Name::Item(field) => field.go_item_name(types),
            Name::Kind => kind.go_name(types),
        }
    }
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    types: &'static Types,
    strict: Strict,
    /// The first value of a wrong type: decoding goes on after it, and fails at the end.
    wrong: Option<DecodeError>,
    /// Empty lists are kept.
    as_sent: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { scanner: Scanner::new(bytes), types: Types::get(), strict: Strict::default(), wrong: None, as_sent: false }
    }

    fn finish(mut self, document: Value) -> Result<Decoded, DecodeError> {
        self.scanner.end()?;
        match self.wrong {
            Some(wrong) => Err(wrong),
            None => Ok(Decoded { document, strict: self.strict.faults }),
        }
    }

    fn structure(&mut self, ty: &Type, at: &At<'_>, depth: usize) -> Result<Map<String, Value>, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        self.scanner.eat(b'{')?;
        let mut map = Map::new();
        let (mut seen, mut set, mut first) = (Bits::default(), Bits::default(), true);
        while let Some(key) = self.scanner.key(first)? {
            first = false;
            let Some(position) = ty.position(&key) else {
                let name = &*key;
                self.strict.note(|| format!("unknown field \"{}\"", At::Field { parent: at, name, owner: None }));
                self.scanner.skip()?;
                continue;
            };
            let field = &ty.fields[position];
            let at = At::Field { parent: at, name: field.name, owner: Some(ty) };
            let mut before = None;
            if seen.put(position) {
                self.strict.duplicate(&at);
                before = map.remove(field.name);
            }
            let value = self.value(&field.kind, Name::Field(field), &at, depth + 1)?;
            let value = match before {
                Some(before) => doubled(&field.kind, before, value, self.types),
                None => value,
            };
            let value = if self.as_sent { kept_as_sent(field, value) } else { kept(field, value) };
            if let Some(value) = value {
                set.put(position);
                map.insert(field.name.into(), value);
            }
        }
        for position in &ty.always {
            if !set.has(*position) || !map.contains_key(ty.fields[*position].name) {
                let field = &ty.fields[*position];
                map.insert(field.name.into(), zero_field(field));
            }
        }
        Ok(map)
    }

    /// Reads a value; nothing when it is null or of a wrong type.
    fn value(&mut self, kind: &Kind, name: Name<'_>, at: &At<'_>, depth: usize) -> Result<Option<Value>, DecodeError> {
        let byte = self.scanner.peek()?;
        if byte == b'n' {
            self.scanner.literal("null")?;
            return Ok(None);
        }
        let value = match (kind, byte) {
            (Kind::String, b'"') => self.scanner.string()?.into_owned().into(),
            (Kind::Bool, b't') => {
                self.scanner.literal("true")?;
                true.into()
            }
            (Kind::Bool, b'f') => {
                self.scanner.literal("false")?;
                false.into()
            }
            (Kind::Int32 | Kind::Int64 | Kind::Float64, b'-' | b'0'..=b'9') => {
                let text = self.scanner.number()?;
                match number(kind, text) {
                    Some(value) => value,
                    None => {
                        let (field, go) = (at.go_field(), name.of(kind, self.types));
                        let told = format!("json: cannot unmarshal number {text} into {field} of type {go}");
                        self.save(DecodeError::Mismatch { told, converted: format!("cannot convert float64 to {go}") });
                        return Ok(None);
                    }
                }
            }
            (Kind::Bytes, b'"') => {
                let text = self.scanner.string()?;
                match go::base64(&text) {
                    Ok(None) => text.into_owned().into(),
                    Ok(Some(canonical)) => canonical.into(),
                    Err(err) => {
                        self.save(err);
                        return Ok(None);
                    }
                }
            }
            (Kind::Bytes, b'[') => self.bytes_of_numbers(at, depth)?,
            (Kind::Struct(id), b'{') => Value::Object(self.structure(self.types.of(*id), at, depth)?),
            (Kind::List(item), b'[') => self.list(item, name.item(), at, depth)?,
            (Kind::Map(item), b'{') => self.map(item, name.item(), at, depth)?,
            (Kind::Quantity, _) => return self.quantity(byte),
            (Kind::IntOrString, b'"') => self.scanner.string()?.into_owned().into(),
            (Kind::IntOrString, b'-' | b'0'..=b'9') => {
                let text = self.scanner.number()?;
                number(&Kind::Int32, text).ok_or_else(|| DecodeError::Mismatch {
                    told: format!("json: cannot unmarshal number {text} into {} of type int32", at.go_field()),
                    converted: format!("json: cannot unmarshal number {text} into Go value of type int32"),
                })?
            }
            (Kind::IntOrString, _) => return Err(self.mismatch(None, &|| "int32".into(), at)?),
            (Kind::Time | Kind::MicroTime | Kind::Duration, b'"') => self.time(kind)?,
            (Kind::Time | Kind::MicroTime | Kind::Duration, _) => return Err(self.mismatch(None, &|| "string".into(), at)?),
            (Kind::FieldsV1 | Kind::RawExtension | Kind::Json, _) => untyped::value(&mut self.scanner, depth, None)?,
            (Kind::SchemaOrBool | Kind::SchemaOrArray | Kind::SchemaOrStrings, _) => {
                self.strict.muted += 1;
                let value = self.schema_or(kind, byte, at, depth);
                self.strict.muted -= 1;
                return value;
            }
            _ => {
                let types = self.types;
                let fault = self.mismatch(Some(kind), &|| name.of(kind, types), at)?;
                self.save(fault);
                return Ok(None);
            }
        };
        Ok(Some(value))
    }

    fn list(&mut self, item: &Kind, name: Name<'_>, at: &At<'_>, depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        self.scanner.eat(b'[')?;
        let mut list = Vec::new();
        while self.scanner.item(list.is_empty())? {
            let at = At::Index { parent: at, index: list.len() };
            let value = self.value(item, name, &at, depth + 1)?;
            list.push(value.unwrap_or_else(|| zero(item)));
        }
        Ok(Value::Array(list))
    }

    fn map(&mut self, item: &Kind, name: Name<'_>, at: &At<'_>, depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        self.scanner.eat(b'{')?;
        let mut map = Map::new();
        let mut first = true;
        while let Some(key) = self.scanner.key(first)? {
            first = false;
            let at = At::Key { parent: at, key: &key };
            if map.contains_key(&*key) {
                self.strict.duplicate(&at);
            }
            let value = match self.value(item, name, &at, depth + 1)? {
                Some(value) => value,
                // Stored bytes are never null: protobuf knows no such thing in a map.
                None if *item == Kind::Bytes => "".into(),
                None => zero(item),
            };
            map.insert(key.into_owned(), value);
        }
        Ok(Value::Object(map))
    }

    /// Go takes a list of small numbers for bytes.
    fn bytes_of_numbers(&mut self, at: &At<'_>, depth: usize) -> Result<Value, DecodeError> {
        let list = self.list(&Kind::Int64, Name::Kind, at, depth)?;
        let mut bytes = Vec::new();
        for number in list.as_array().into_iter().flatten() {
            match number.as_u64().and_then(|number| u8::try_from(number).ok()) {
                Some(byte) => bytes.push(byte),
                None => {
                    let fault = format!("json: cannot unmarshal number {number} into {} of type uint8", at.go_field());
                    self.save(DecodeError::Value(fault));
                }
            }
        }
        Ok(base64::engine::general_purpose::STANDARD.encode(bytes).into())
    }

    fn quantity(&mut self, byte: u8) -> Result<Option<Value>, DecodeError> {
        let raw = if byte == b'"' {
            self.scanner.raw_string()?
        } else {
            let start = self.scanner.position();
            self.scanner.skip()?;
            self.scanner.since(start)
        };
        let text = String::from_utf8_lossy(raw);
        match quantity::canonical(&text) {
            Ok(canonical) => Ok(Some(Cow::into_owned(canonical).into())),
            Err(err) => Err(DecodeError::Value(err.to_string())),
        }
    }

    fn time(&mut self, kind: &Kind) -> Result<Value, DecodeError> {
        let text = self.scanner.string()?;
        let canonical = match kind {
            Kind::Time => time::canonical(&text),
            Kind::MicroTime => time::canonical_micros(&text),
            _ => time::parse_duration(&text).map(|nanos| Some(time::format_duration(nanos))),
        };
        let canonical = canonical.map_err(|err| DecodeError::Value(err.to_string()))?;
        let value = canonical.unwrap_or_else(|| text.into_owned());
        // Go's zero time is no time.
        Ok(if value.starts_with("0001-01-01T00:00:00") { Value::Null } else { value.into() })
    }

    fn schema_or(&mut self, kind: &Kind, byte: u8, at: &At<'_>, depth: usize) -> Result<Option<Value>, DecodeError> {
        let Some(schema) = self.types.named("apiextensions.v1.JSONSchemaProps") else { return Ok(None) };
        match (kind, byte) {
            (_, b'{') => Ok(Some(Value::Object(self.structure(schema, at, depth)?))),
            (Kind::SchemaOrBool, b't' | b'f') => self.value(&Kind::Bool, Name::Kind, at, depth),
            (Kind::SchemaOrBool, _) => {
                self.scanner.skip()?;
                Err(DecodeError::Value("boolean or JSON schema expected".into()))
            }
            (Kind::SchemaOrArray, b'[') => Ok(Some(self.list(&Kind::Struct(schema.id), Name::Kind, at, depth)?)),
            (Kind::SchemaOrStrings, b'[') => Ok(Some(self.list(&Kind::String, Name::Kind, at, depth)?)),
            _ => {
                self.scanner.skip()?;
                Ok(None)
            }
        }
    }

    /// Takes a value of a wrong type and says so. Without a `wanted` kind the type reads itself.
    fn mismatch(&mut self, wanted: Option<&Kind>, go: &dyn Fn() -> String, at: &At<'_>) -> Result<DecodeError, DecodeError> {
        let kind = match self.scanner.peek()? {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "bool",
            b'-' | b'0'..=b'9' => "number",
            _ => return Err(self.scanner.unexpected(After::Value)),
        };
        let start = self.scanner.position();
        self.scanner.skip()?;
        let is_whole = !self.scanner.since(start).iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
        let go = go();
        let told = format!("json: cannot unmarshal {kind} into {} of type {go}", at.go_field());
        let converted = match wanted {
            Some(wanted) => not_converted(wanted, kind, is_whole, &go),
            None => format!("json: cannot unmarshal {kind} into Go value of type {go}"),
        };
        Ok(DecodeError::Mismatch { told, converted })
    }

    fn save(&mut self, fault: DecodeError) {
        self.wrong.get_or_insert(fault);
    }
}

/// The words of upstream's converter for a value that does not fit: by the kinds of Go's values, whatever they are called.
fn not_converted(wanted: &Kind, found: &str, is_whole: bool, go: &str) -> String {
    let found = match found {
        "object" => "map",
        "array" => "slice",
        "number" if is_whole => "int64",
        "number" => "float64",
        other => other,
    };
    match wanted {
        Kind::List(_) | Kind::Bytes => format!("cannot restore slice from {found}"),
        Kind::Map(_) => format!("cannot restore map from {found}"),
        Kind::Struct(_) => format!("cannot restore struct from: {found}"),
        Kind::String if found == "int64" => format!("cannot convert int64 to {go}"),
        Kind::String => "unrecognized type: string".into(),
        Kind::Bool => "unrecognized type: bool".into(),
        Kind::Int32 => "unrecognized type: int32".into(),
        Kind::Int64 => "unrecognized type: int64".into(),
        Kind::Float64 => "unrecognized type: float64".into(),
        _ => format!("unrecognized type: {go}"),
    }
}

/// What becomes of a field that is there twice: Go decodes the second value into what the first one left.
fn doubled(kind: &Kind, before: Value, value: Option<Value>, types: &Types) -> Option<Value> {
    match (kind, before, value) {
        (Kind::Struct(_), before, None) => Some(before),
        (Kind::Map(_), Value::Object(mut before), Some(Value::Object(value))) => {
            before.extend(value);
            Some(before.into())
        }
        (Kind::Struct(id), Value::Object(mut before), Some(Value::Object(value))) => {
            let ty = types.of(*id);
            for (name, value) in value {
                let merged = match (ty.field(&name), before.remove(&name)) {
                    (Some(field), Some(was)) => doubled(&field.kind, was, Some(value), types),
                    _ => Some(value),
                };
                before.extend(merged.map(|merged| (name, merged)));
            }
            Some(before.into())
        }
        (_, _, value) => value,
    }
}

fn number(kind: &Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Int32 => text.parse::<i32>().ok().map(Value::from),
        Kind::Int64 => text.parse::<i64>().ok().map(Value::from),
        _ => go::float(text),
    }
}

/// Which fields of a struct were met; no struct of the API has more than 128.
#[derive(Clone, Copy, Default)]
struct Bits(u128);

impl Bits {
    /// Puts a field in; whether it was in already.
    fn put(&mut self, position: usize) -> bool {
        let bit = 1_u128.checked_shl(u32::try_from(position).unwrap_or(u32::MAX)).unwrap_or(0);
        let was = self.0 & bit != 0;
        self.0 |= bit;
        was
    }

    fn has(self, position: usize) -> bool {
        let bit = 1_u128.checked_shl(u32::try_from(position).unwrap_or(u32::MAX)).unwrap_or(0);
        self.0 & bit != 0
    }
}
