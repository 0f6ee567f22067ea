//! Reading the table of types. Two passes: names first, so that fields may refer to types that come later, then fields;
//! inlined structs are flattened at the end, when every type is known.

use std::collections::HashMap;

use super::{Field, Kind, ListType, Member, MemberKind, Slots, Type, TypeId, Types};

/// What a line of the table is wrong about.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct TableError {
    line: usize,
    what: &'static str,
}

/// A type before flattening.
struct Raw {
    name: &'static str,
    atomic: bool,
    union: bool,
    fields: Vec<(u32, Field)>,
    inlined: Vec<(u32, TypeId)>,
}

pub(super) fn types(text: &'static str) -> Result<Types, TableError> {
    let names = text.lines().filter_map(|line| line.strip_prefix("T ")).map(|line| line.split(' ').next().unwrap_or(line));
    let by_name: HashMap<_, _> = names.zip(0..).map(|(name, at)| (name, TypeId(at))).collect();
    let mut raw: Vec<Raw> = Vec::with_capacity(by_name.len());
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let fault = |what| TableError { line: number + 1, what };
        if let Some(head) = line.strip_prefix("T ") {
            let mut words = head.split(' ');
            let name = words.next().unwrap_or(head);
            let (mut atomic, mut union) = (false, false);
            for flag in words {
                match flag {
                    "atomic" => atomic = true,
                    "union" => union = true,
                    _ => return Err(fault("unknown flag of a type")),
                }
            }
            raw.push(Raw { name, atomic, union, fields: Vec::new(), inlined: Vec::new() });
            continue;
        }
        let current = raw.last_mut().ok_or_else(|| fault("a field before the first type"))?;
        field(line, &by_name, current).map_err(fault)?;
    }
    let types = (0..raw.len()).map(|at| flatten(&raw, at)).collect();
    Ok(Types { types, by_name })
}

fn field(line: &'static str, names: &HashMap<&str, TypeId>, into: &mut Raw) -> Result<(), &'static str> {
    let mut words = line.split(' ');
    let (Some(name), Some(ty), Some(number), Some(_wire)) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("a field has a name, a type, a number and a wire type");
    };
    let number = if number == "-" { 0 } else { number.parse().map_err(|_| "the field number is not a number")? };
    let (ty, pointer) = ty.strip_prefix('*').map_or((ty, false), |ty| (ty, true));
    let kind = kind(ty, names)?;
    let mut field = Field {
        name,
        kind,
        pointer,
        omit_empty: false,
        omit_zero: false,
        required: false,
        place: u16::try_from(into.fields.len()).map_err(|_| "too many fields")?,
        discriminator: false,
        list: ListType::Atomic,
        list_said: false,
        keys: Vec::new(),
        atomic: None,
        patch_merge: false,
        patch_retain_keys: false,
        patch_replace: false,
        merge_key: None,
        default: None,
        go: None,
        inlined_from: Vec::new(),
    };
    for flag in words {
        let (flag, value) = flag.split_once('=').unwrap_or((flag, ""));
        field.list_said |= flag == "list";
        match (flag, value) {
            ("inline", _) => {
                let Kind::Struct(id) = field.kind else { return Err("only structs are inlined") };
                into.inlined.push((number, id));
                return Ok(());
            }
            ("omitempty", _) => field.omit_empty = true,
            ("omitzero", _) => field.omit_zero = true,
            ("required", _) => field.required = true,
            ("discriminator", _) => field.discriminator = true,
            ("list", "atomic") => field.list = ListType::Atomic,
            ("list", "set") => field.list = ListType::Set,
            ("list", "map") => field.list = ListType::Map,
            ("map" | "struct", "atomic") => field.atomic = Some(true),
            ("map" | "struct", "granular") => field.atomic = Some(false),
            ("keys", _) => field.keys = value.split('+').collect(),
            ("mergeKey", _) => field.merge_key = Some(value),
            ("default", _) => field.default = Some(value),
            ("go", _) => field.go = Some(value),
            ("patch", _) => {
                for strategy in value.split('+') {
                    match strategy {
                        "merge" => field.patch_merge = true,
                        "retainKeys" => field.patch_retain_keys = true,
                        "replace" => field.patch_replace = true,
                        _ => return Err("unknown patch strategy"),
                    }
                }
            }
            _ => return Err("unknown flag"),
        }
    }
    into.fields.push((number, field));
    Ok(())
}

fn kind(ty: &str, names: &HashMap<&str, TypeId>) -> Result<Kind, &'static str> {
    if ty == "[]byte" {
        return Ok(Kind::Bytes);
    }
    if let Some(item) = ty.strip_prefix("[]") {
        return Ok(Kind::List(Box::new(kind(item.trim_start_matches('*'), names)?)));
    }
    if let Some(item) = ty.strip_prefix("{}") {
        return Ok(Kind::Map(Box::new(kind(item.trim_start_matches('*'), names)?)));
    }
    Ok(match ty {
        "string" => Kind::String,
        "bool" => Kind::Bool,
        "int32" | "int16" | "int8" => Kind::Int32,
        "int64" | "uint32" => Kind::Int64,
        "float64" => Kind::Float64,
        "resource.Quantity" => Kind::Quantity,
        "intstr.IntOrString" => Kind::IntOrString,
        "meta.v1.Time" => Kind::Time,
        "meta.v1.MicroTime" => Kind::MicroTime,
        "meta.v1.Duration" => Kind::Duration,
        "meta.v1.FieldsV1" => Kind::FieldsV1,
        "runtime.RawExtension" | "runtime.Object" => Kind::RawExtension,
        "apiextensions.v1.JSON" | "any" => Kind::Json,
        "apiextensions.v1.JSONSchemaPropsOrBool" => Kind::SchemaOrBool,
        "apiextensions.v1.JSONSchemaPropsOrArray" => Kind::SchemaOrArray,
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => Kind::SchemaOrStrings,
        name => Kind::Struct(*names.get(name).ok_or("unknown type")?),
    })
}

/// The finished type: an outer field wins over an inlined one of the same name, as in Go.
fn flatten(raw: &[Raw], at: usize) -> Type {
    let own = &raw[at];
    let mut fields: Vec<Field> = own.fields.iter().map(|(_, field)| field.clone()).collect();
    let mut pending: Vec<(TypeId, Vec<&'static str>)> = own.inlined.iter().map(|(_, id)| (*id, Vec::new())).collect();
    while let Some((id, mut way)) = pending.pop() {
        let inner = &raw[id.0 as usize];
        way.push(inner.name.rsplit('.').next().unwrap_or(inner.name));
        for (_, field) in &inner.fields {
            if !fields.iter().any(|known| known.name == field.name) {
                fields.push(Field { inlined_from: way.clone(), ..field.clone() });
            }
        }
        pending.extend(inner.inlined.iter().map(|(_, id)| (*id, way.clone())));
    }
    fields.sort_by_key(|field| field.name);
    let place = |name: &str| fields.binary_search_by(|field| field.name.cmp(name)).unwrap_or_default();
    let mut members: Vec<Member> = own
        .fields
        .iter()
        .map(|(number, field)| Member { number: *number, what: MemberKind::Field(place(field.name)) })
        .chain(own.inlined.iter().map(|(number, id)| Member { number: *number, what: MemberKind::Inlined(*id) }))
        .filter(|member| member.number != 0)
        .collect();
    members.sort_by_key(|member| member.number);
    let always = fields.iter().enumerate().filter(|(_, field)| is_always_written(field)).map(|(at, _)| at).collect();
    let slots = Slots::of(&fields);
    let id = TypeId(u32::try_from(at).unwrap_or(u32::MAX));
    Type { name: own.name, id, atomic: own.atomic, union: own.union, fields, always, members, slots }
}

/// Whether the encoder writes a field that is not set: `omitempty` drops empty scalars, lists, maps and pointers, but
/// never a struct that is held by value.
fn is_always_written(field: &Field) -> bool {
    if field.omit_zero {
        return false;
    }
    if !field.omit_empty {
        return true;
    }
    !field.pointer
        && matches!(
            field.kind,
            Kind::Struct(_)
                | Kind::Quantity
                | Kind::IntOrString
                | Kind::Time
                | Kind::MicroTime
                | Kind::Duration
                | Kind::RawExtension
                | Kind::FieldsV1
                | Kind::Json
                | Kind::SchemaOrBool
                | Kind::SchemaOrArray
                | Kind::SchemaOrStrings
        )
}
