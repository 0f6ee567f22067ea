//! The values that expressions have while they run. Documents are not copied: what is selected from them borrows.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use serde_json::Value as Json;

use crate::functions::quantity::Quantity;
use crate::functions::semver::Semver;
use crate::functions::time::Time;
use crate::functions::url::Url;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A key or field that is not there.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A function that takes no such values.
    #[error("no such overload")]
    NoSuchOverload,
    /// Another fault of the function called.
    #[error("{0}")]
    Failed(String),
    /// It cost more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooCostly,
}

impl EvalError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }
}

/// A value that another part of the program provides: fields made when they are needed, or methods.
pub trait Host<'a> {
    /// The field `name`.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be made.
    fn field(&self, name: &str) -> Result<Value<'a>, EvalError> {
        Err(EvalError::NoSuchKey(name.to_owned()))
    }

    /// Calls the method `function`.
    ///
    /// # Errors
    ///
    /// There is none that takes `args`, or it failed.
    fn call(&self, function: &str, args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
        let _ = (function, args);
        Err(EvalError::NoSuchOverload)
    }

    /// The name of its type.
    fn type_name(&self) -> &'static str;
}

/// A value.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`
    Double(f64),
    /// `string`
    String(Cow<'a, str>),
    /// `bytes`
    Bytes(Rc<[u8]>),
    /// `google.protobuf.Duration`, in nanoseconds.
    Duration(i64),
    /// `google.protobuf.Timestamp`
    Timestamp(Time),
    /// `list`
    List(List<'a>),
    /// `map`
    Map(Map<'a>),
    /// `optional_type`
    Optional(Option<Rc<Value<'a>>>),
    /// A type, by its name.
    Type(Cow<'a, str>),
    /// `kubernetes.Quantity`
    Quantity(Quantity),
    /// `net.IP`
    Ip(IpAddr),
    /// `net.CIDR`: an address and the length of its prefix.
    Cidr(IpAddr, u8),
    /// `kubernetes.URL`
    Url(Rc<Url>),
    /// `kubernetes.Semver`
    Semver(Rc<Semver>),
    /// `kubernetes.NamedFormat`, by its name.
    Format(&'static str),
    /// Something of another part of the program.
    Host(Rc<dyn Host<'a> + 'a>),
}

/// A list of a document, or one made by the expression.
#[derive(Clone)]
pub enum List<'a> {
    /// Of a document.
    Json(&'a [Json]),
    /// Made by the expression.
    Made(Rc<Vec<Value<'a>>>),
}

/// A map of a document, or one made by the expression, in the order in which it was made.
#[derive(Clone)]
pub enum Map<'a> {
    /// Of a document.
    Json(&'a serde_json::Map<String, Json>),
    /// Made by the expression.
    Made(Rc<Vec<(Value<'a>, Value<'a>)>>),
}

impl<'a> From<&'a Json> for Value<'a> {
    fn from(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Self::Int(number),
                (_, Some(number)) => Self::Uint(number),
                _ => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Self::String(Cow::Borrowed(text)),
            Json::Array(items) => Self::List(List::Json(items)),
            Json::Object(members) => Self::Map(Map::Json(members)),
        }
    }
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json(items) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items) => items.get(index).map(Value::from),
            Self::Made(items) => items.get(index).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json(members) => members.len(),
            Self::Made(entries) => entries.len(),
        }
    }

    pub(crate) fn get(&self, key: &Value<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Json(members), Value::String(key)) => members.get(key.as_ref()).map(Value::from),
            (Self::Json(_), _) => None,
            (Self::Made(entries), _) => entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()),
        }
    }

    pub(crate) fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Self::Json(members) => {
                members.iter().map(|(key, value)| (Value::String(Cow::Borrowed(key)), Value::from(value))).collect()
            }
            Self::Made(entries) => entries.to_vec(),
        }
    }
}

impl<'a> Value<'a> {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(Cow::Owned(text.into()))
    }

    /// The value as JSON, if it can be written so: keys are texts, times and bytes become texts.
    #[must_use]
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(number) => (*number).into(),
            Self::Uint(number) => (*number).into(),
            Self::Double(number) => serde_json::Number::from_f64(*number)?.into(),
            Self::String(text) => text.as_ref().into(),
            Self::Bytes(_) | Self::Duration(_) | Self::Timestamp(_) | Self::Quantity(_) => {
                let text = crate::functions::call("string", false, std::slice::from_ref(self)).ok()?;
                text.as_str()?.into()
            }
            Self::List(list) => Json::Array(list.iter().map(|item| item.to_json()).collect::<Option<_>>()?),
            Self::Map(map) => {
                let member = |(key, value): (Self, Self)| Some((key.as_str()?.to_owned(), value.to_json()?));
                Json::Object(map.entries().into_iter().map(member).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(List::Made(Rc::new(items)))
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Host(host) => host.type_name(),
        }
    }

    /// The order of two values of comparable types.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::String(left), Self::String(right)) => Some(left.cmp(right)),
            (Self::Bytes(left), Self::Bytes(right)) => Some(left.cmp(right)),
            (Self::Duration(left), Self::Duration(right)) => Some(left.cmp(right)),
            (Self::Timestamp(left), Self::Timestamp(right)) => Some(left.cmp(right)),
            _ => compare_numbers(self, other),
        }
    }

    /// The value that an optional starts from: whether it is the zero of its type.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(value) => *value == 0,
            Self::List(list) => list.len() == 0,
            Self::Map(map) => map.len() == 0,
            Self::Optional(value) => value.is_none(),
            _ => false,
        }
    }
}

fn compare_numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    match (left, right) {
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Double(left), _) => compare_double(*left, whole(right)?),
        (_, Value::Double(right)) => compare_double(*right, whole(left)?).map(Ordering::reverse),
        _ => Some(whole(left)?.cmp(&whole(right)?)),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "numbers out of range are told apart before")]
fn compare_double(left: f64, right: i128) -> Option<Ordering> {
    if left.is_nan() {
        return None;
    }
    // Every 64-bit number is below these bounds, so the whole part of what is left fits.
    if left.abs() > 1e20 {
        return left.partial_cmp(&(right as f64));
    }
    let whole = left.trunc();
    Some((whole as i128).cmp(&right).then_with(|| left.partial_cmp(&whole).unwrap_or(Ordering::Equal)))
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(left), Self::List(right)) => {
                left.len() == right.len() && left.iter().zip(right.iter()).all(|(left, right)| left == right)
            }
            (Self::Map(left), Self::Map(right)) => {
                left.len() == right.len()
                    && left.entries().iter().all(|(key, value)| right.get(key).is_some_and(|other| other == *value))
            }
            (Self::Optional(left), Self::Optional(right)) => left == right,
            (Self::Type(left), Self::Type(right)) => left == right,
            (Self::Quantity(left), Self::Quantity(right)) => left == right,
            (Self::Ip(left), Self::Ip(right)) => left == right,
            (Self::Cidr(left, length), Self::Cidr(right, other)) => left == right && length == other,
            (Self::Url(left), Self::Url(right)) => left == right,
            (Self::Semver(left), Self::Semver(right)) => left.compare(right) == Ordering::Equal,
            (Self::Format(left), Self::Format(right)) => left == right,
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}u"),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::String(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "b{bytes:?}"),
            Self::Duration(value) => write!(f, "{value}ns"),
            Self::Timestamp(time) => write!(f, "{time}"),
            Self::List(list) => f.debug_list().entries(list.iter()).finish(),
            Self::Map(map) => f.debug_map().entries(map.entries()).finish(),
            Self::Optional(None) => f.write_str("none"),
            Self::Optional(Some(value)) => write!(f, "some({value:?})"),
            Self::Type(name) => f.write_str(name),
            Self::Quantity(value) => write!(f, "{value:?}"),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Cidr(address, length) => write!(f, "{address}/{length}"),
            Self::Url(url) => write!(f, "{url:?}"),
            Self::Semver(version) => write!(f, "{version:?}"),
            Self::Format(name) => write!(f, "format {name}"),
            Self::Host(host) => f.write_str(host.type_name()),
        }
    }
}
