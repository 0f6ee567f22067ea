//! A document whose managed fields stay text. No tree is made of them: most writes carry them along and look at little.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Decodes an object; a list of managed fields becomes a string with its text.
pub(super) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    Part::Object.deserialize(&mut serde_json::Deserializer::from_slice(bytes))
}

/// The two objects on the way to managed fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Object,
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = match (self, name.as_str()) {
                (Self::Object, "metadata") => members.next_value_seed(Self::Metadata)?,
                (Self::Metadata, "managedFields") => {
                    let text = members.next_value::<&RawValue>()?.get();
                    if text.len() > "[]".len() && text.starts_with('[') {
                        text.into()
                    } else {
                        serde_json::from_str(text).map_err(A::Error::custom)?
                    }
                }
                _ => members.next_value()?,
            };
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}
