//! What upstream's converter of untyped documents does with numbers, and which value it stumbles over first. Strategic merge
//! patches and applied configurations do not pass through its decoder: a number that is too large is cut to the bits of its
//! field, one that is whole is an integer however it is written, and the fields of a struct are looked at in the order of their
//! declaration.
//!
//! Documents that fit, which is nearly all, are read by the decoder alone.

use corten_api::facts::{Field, Kind, Type, Types};
use serde_json::{Map, Value};

use super::{DecodeError, typed};

pub(super) fn structure(map: &mut Map<String, Value>, ty: &Type) -> Result<(), DecodeError> {
    let mut fields: Vec<&Field> = map.keys().filter_map(|name| ty.field(name)).collect();
    fields.sort_by_key(|field| field.place);
    for field in fields {
        if let Some(found) = map.get_mut(field.name) {
            value(found, &field.kind, &|| field.go_name(Types::get()), &|| field.go_item_name(Types::get()))?;
        }
    }
    Ok(())
}

type Name<'n> = &'n dyn Fn() -> String;

fn value(found: &mut Value, kind: &Kind, name: Name<'_>, item_name: Name<'_>) -> Result<(), DecodeError> {
    match (kind, found) {
        (_, Value::Null) | (Kind::String, Value::String(_)) | (Kind::Bool, Value::Bool(_)) => Ok(()),
        (Kind::Int32 | Kind::Int64 | Kind::Float64, found @ Value::Number(_)) => number(found, kind, name),
        (Kind::Struct(id), Value::Object(map)) => structure(map, Types::get().of(*id)),
        (Kind::List(item), Value::Array(list)) => {
            list.iter_mut().try_for_each(|found| value(found, item, item_name, &|| of_items(item)))
        }
        (Kind::Map(item), Value::Object(map)) => {
            map.values_mut().try_for_each(|found| value(found, item, item_name, &|| of_items(item)))
        }
        (Kind::FieldsV1 | Kind::RawExtension | Kind::Json, _)
        | (Kind::SchemaOrBool | Kind::SchemaOrArray | Kind::SchemaOrStrings, _) => Ok(()),
        (Kind::Quantity | Kind::IntOrString | Kind::Time | Kind::MicroTime | Kind::Duration | Kind::Bytes, found) => {
            let text = crate::encode::go_json(found);
            typed::alone(&text, kind)?;
            // A double is a quantity by the text that Go gives it.
            if *kind == Kind::Quantity && found.is_f64() {
                *found = String::from_utf8_lossy(&text).into_owned().into();
            }
            Ok(())
        }
        (kind, found) => Err(DecodeError::Value(misfit(kind, found, &name()))),
    }
}

fn of_items(kind: &Kind) -> String {
    kind.item().map_or_else(String::new, |item| item.go_name(Types::get()))
}

/// Cuts a number to the bits of its field.
#[expect(clippy::cast_possible_truncation, reason = "that is what the converter does")]
fn number(found: &mut Value, kind: &Kind, name: Name<'_>) -> Result<(), DecodeError> {
    if *kind == Kind::Float64 {
        return Ok(());
    }
    let whole = match (found.as_i64(), found.as_f64()) {
        (Some(whole), _) => whole,
        (None, Some(float)) if float.fract() == 0.0 => float_to_int(float),
        _ => return Err(DecodeError::Value(format!("cannot convert float64 to {}", name()))),
    };
    *found = if *kind == Kind::Int32 { (whole as i32).into() } else { whole.into() };
    Ok(())
}

/// What the processor makes of a double that is out of range: the smallest integer.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn float_to_int(float: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float) { float as i64 } else { i64::MIN }
}

fn misfit(kind: &Kind, found: &Value, name: &str) -> String {
    let kind_of_value = match found {
        Value::Object(_) => "map",
        Value::Array(_) => "slice",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Null => "invalid",
    };
    match kind {
        Kind::List(_) => format!("cannot restore slice from {kind_of_value}"),
        Kind::Map(_) => format!("cannot restore map from {kind_of_value}"),
        Kind::Struct(_) => format!("cannot restore struct from: {kind_of_value}"),
        // Go converts integers to strings, so this one is refused with other words.
        Kind::String if kind_of_value == "int64" => format!("cannot convert int64 to {name}"),
        Kind::String => "unrecognized type: string".into(),
        Kind::Bool => "unrecognized type: bool".into(),
        Kind::Int32 => "unrecognized type: int32".into(),
        Kind::Int64 => "unrecognized type: int64".into(),
        Kind::Float64 => "unrecognized type: float64".into(),
        _ => format!("unrecognized type: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_double_is_a_quantity_by_the_text_that_go_gives_it() {
        let ty = Types::get().named("core.v1.ResourceQuota").unwrap();
        let of = |amount: Value| json!({ "spec": { "hard": { "memory": amount } } });
        for (amount, text) in [(json!(1e18), "1000000000000000000"), (json!(9_223_372_036_854_775_808.0), "9223372036854776000")]
        {
            let mut document = of(amount);
            structure(document.as_object_mut().unwrap(), ty).unwrap();
            assert_eq!(document, of(text.into()));
        }
    }

    #[test]
    #[rustfmt::skip]
    fn numbers_are_cut_and_the_first_misfit_is_told() {
        let spec = |spec: Value| json!({ "spec": spec });
        check(spec(json!({ "replicas": 2_147_483_648_i64 })), Ok(spec(json!({ "replicas": -2_147_483_648_i64 }))));
        check(spec(json!({ "replicas": i64::MAX })), Ok(spec(json!({ "replicas": -1 }))));
        check(spec(json!({ "replicas": 3.0 })), Ok(spec(json!({ "replicas": 3 }))));
        check(spec(json!({ "replicas": 1.5 })), Err("cannot convert float64 to int32"));
        check(spec(json!({ "replicas": "1" })), Err("unrecognized type: int32"));
        check(spec(json!({ "paused": 1 })), Err("unrecognized type: bool"));
        check(spec(json!({ "selector": [] })), Err("cannot restore struct from: slice"));
        check(spec(json!({ "template": { "spec": { "restartPolicy": 1 } } })), Err("cannot convert int64 to v1.RestartPolicy"));
        // The strategy is declared behind the template.
        check(spec(json!({ "strategy": 1, "template": 1.5 })), Err("cannot restore struct from: float64"));
        check(spec(json!({ "strategy": { "rollingUpdate": { "maxSurge": 2_147_483_648_i64 } } })),
            Err("json: cannot unmarshal number 2147483648 into Go value of type int32"));

        #[track_caller]
        fn check(mut document: Value, expected: Result<Value, &str>) {
            let ty = Types::get().named("apps.v1.Deployment").unwrap();
            let outcome = structure(document.as_object_mut().unwrap(), ty).map_err(|err| err.to_string());
            assert_eq!(outcome.map(|()| document), expected.map_err(str::to_owned));
        }
    }
}
