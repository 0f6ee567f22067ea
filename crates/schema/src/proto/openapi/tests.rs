use serde_json::json;

use super::*;

/// Fields of a message as `number: text`, nested ones in braces: enough to read an expectation.
fn fields(bytes: &[u8]) -> String {
    use super::super::wire::{Reader, Wire};
    let mut reader = Reader::new(bytes, "test");
    let mut out = Vec::new();
    while let Some((number, wire)) = reader.field().unwrap() {
        out.push(match wire {
            Wire::Varint(value) => format!("{number}:{value}"),
            Wire::Fixed64(bits) => format!("{number}:{}", f64::from_bits(bits)),
            Wire::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if text.chars().all(|c| !c.is_control()) => format!("{number}:'{text}'"),
                Ok(text) if text.ends_with('\n') && text.trim_end().chars().all(|c| !c.is_control()) => {
                    format!("{number}:yaml({})", text.trim_end())
                }
                _ => format!("{number}{{{}}}", fields(bytes)),
            },
            Wire::Fixed32 => panic!("no such field is written"),
        });
    }
    out.join(" ")
}

#[test]
fn version_2_follows_the_messages() {
    let schema = json!({"type": "object", "x-kubernetes-list-type": "map", "required": ["a"],
        "properties": {"x-y": {"$ref": "#/d"}, "n": {"type": "integer", "maximum": 5, "default": 0}}});
    assert_eq!(
        fields(&message_of(&schema, entry("definitions"))),
        "19:'a' 22{1:'object'} \
         25{1{1:'n' 2{5{2:yaml(0)} 7:5 22{1:'integer'}}} 1{1:'x-y' 2{1:'#/d'}}} 31{1:'x-kubernetes-list-type' 2{2:yaml(map)}}"
    );
}

/// The message of the entries of a map in a document of version 2.
fn entry(key: &str) -> &'static Message {
    let (.., Shape::Message(map)) = v2::DOCUMENT.fields.iter().find(|(name, ..)| *name == key).unwrap() else {
        panic!("{key} is no message")
    };
    match map.pairs {
        Some((_, Shape::Message(message))) => message,
        _ => panic!("{key} is no map of messages"),
    }
}

#[test]
fn a_choice_is_made_by_the_value() {
    let path = json!({"parameters": [{"$ref": "#/p"}, {"in": "body", "name": "b"}, {"in": "query", "name": "q", "required": false}],
        "get": {"responses": {"200": {"description": "OK", "schema": {"type": "string"}}}}});
    assert_eq!(
        fields(&message_of(&path, entry("paths"))),
        "2{9{1{1:'200' 2{1{1:'OK' 2{1{22{1:'string'}}}}}}}} \
         9{2{1:'#/p'}} 9{1{1{2:'b' 3:'body'}}} 9{1{2{3{2:'query' 4:'q'}}}}"
    );
}

#[test]
fn version_3_keeps_the_kind_of_a_default() {
    #[track_caller]
    fn check(default: Value, expected: &str) {
        let document = json!({"components": {"schemas": {"T": {"default": default}}}});
        assert_eq!(fields(&encode_v3(&document)), format!("5{{1{{1{{1:'T' 2{{1{{{expected}}}}}}}}}}}"));
    }
    check(json!(""), "33{3:''}");
    check(json!(false), "33{2:0}");
    check(json!(80), "33{1:80}");
    check(json!({}), "33:''");
}
