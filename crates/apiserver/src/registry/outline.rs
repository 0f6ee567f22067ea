//! A document without its bulk: what the selectable fields of built-in kinds are read from at every write. Decoding a pod
//! as a whole only to look at its phase would be most of the cost of taking it into the watch cache.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Members that no selectable field of a built-in kind lies in, wherever they are.
const LEFT_OUT: [&str; 12] = [
    "annotations",
    "binaryData",
    "conditions",
    "containerStatuses",
    "containers",
    "data",
    "images",
    "initContainers",
    "managedFields",
    "ownerReferences",
    "template",
    "volumes",
];

/// Decodes all but [`LEFT_OUT`].
pub(super) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    Outline.deserialize(&mut serde_json::Deserializer::from_slice(bytes))
}

struct Outline;

impl<'de> DeserializeSeed<'de> for Outline {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Outline {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Outline)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key_seed(Name)? {
            match name {
                Some(name) => drop(map.insert(name, members.next_value_seed(Outline)?)),
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(map.into())
    }
}

/// The name of a member; nothing when it is left out.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<String>, E> {
        Ok((!LEFT_OUT.contains(&name)).then(|| name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use corten_api::catalogue::Catalogue;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_bulk_is_left_out() {
        let document = json!({"metadata": {"name": "a", "managedFields": [{"f:x": {}}]},
            "spec": {"nodeName": "n", "hostNetwork": true, "containers": [{"name": "c"}]}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        let expected = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "hostNetwork": true},
            "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        assert_eq!(read(document.to_string().as_bytes()).unwrap(), expected);
        assert!(read(b"{").is_err());
    }

    #[test]
    fn no_selectable_field_is_in_the_bulk() {
        for resource in Catalogue::builtin().all() {
            for field in resource.versions.iter().flat_map(|version| &version.fields) {
                assert!(!field.split('.').any(|step| LEFT_OUT.contains(&step)), "{field} of {}", resource.plural);
            }
        }
    }
}
