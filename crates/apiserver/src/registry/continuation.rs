//! Continue tokens: where the next page of a list begins, and at which revision. The encoding is upstream's
//! (`meta.k8s.io/v1`), so that a client may go on with another server on the same store.

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use corten_api::status::Status;
use corten_schema::decode::{self, Format};

/// A decoded token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Token {
    #[serde(rename = "v")]
    version: String,
    /// The revision that the pages show; -1 when whatever is newest will do.
    #[serde(rename = "rv")]
    pub revision: i64,
    start: String,
}

impl Token {
    /// The token for what follows `key` (relative to the collection) at `revision`.
    pub(crate) fn after(key: &str, revision: i64) -> Self {
        Self { version: "meta.k8s.io/v1".into(), revision, start: format!("{key}\0") }
    }

    /// The key from which on objects may be on the page. The token has it relative to `scope`, the collection of the request,
    /// with or without a slash before it.
    pub(crate) fn start(&self, scope: &str) -> Bound<Arc<str>> {
        let start = self.start.strip_prefix('/').unwrap_or(&self.start);
        match start.strip_suffix('\0') {
            Some(before) => Bound::Excluded(format!("{scope}{before}").into()),
            None => Bound::Included(format!("{scope}{start}").into()),
        }
    }

    /// The same place in whatever state is newest.
    pub(crate) fn on_newest(&self) -> Self {
        Self { revision: -1, ..self.clone() }
    }

    /// As the client sees it.
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("three plain fields are always JSON"))
    }

    /// Reads what a client sent.
    pub(crate) fn decode(text: &str) -> Result<Self, Status> {
        let refuse = |why: &str| Status::bad_request(format!("invalid continue token: {why}"));
        let bytes = go_decode(text)
            .map_err(|at| refuse(&format!("continue key is not valid: illegal base64 data at input byte {at}")))?;
        let token = Self::from_json(&bytes).map_err(|why| refuse(&format!("continue key is not valid: {why}")))?;
        if token.version != "meta.k8s.io/v1" {
            let why = format!("server does not recognize this encoded version {}", token.version);
            return Err(refuse(&format!("continue key is not valid: {why}")));
        }
        if token.revision == 0 {
            let why = "incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
            return Err(refuse(&format!("continue key is not valid: {why}")));
        }
        if token.start.is_empty() {
            return Err(refuse("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"));
        }
        let is_odd = |(at, segment): (usize, &str)| matches!(segment, "." | "..") || (segment.is_empty() && at > 0);
        if token.start != "/" && token.start.split('/').enumerate().any(is_odd) {
            return Err(refuse(&format!("continue key is not valid: {}", token.start)));
        }
        Ok(token)
    }

    /// Reads the JSON of a token as Go does: keys in any case, null for nothing.
    fn from_json(bytes: &[u8]) -> Result<Self, String> {
        // What is no text is shown as bytes.
        if let Some(first) = bytes.first().filter(|byte| !byte.is_ascii()) {
            return Err(format!("invalid character '\\x{first:02x}' looking for beginning of value"));
        }
        let document = decode::decode_any(bytes, Format::Json).map_err(|err| err.to_string())?.document;
        let mut token = Self { version: String::new(), revision: 0, start: String::new() };
        let members = match &document {
            Value::Null => return Ok(token),
            Value::Object(members) => members,
            other => {
                let kind = kind_of(other);
                return Err(format!("json: cannot unmarshal {kind} into Go value of type storage.continueToken"));
            }
        };
        for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let field = key.to_lowercase();
            let misfit = |wanted: &str| {
                let shown = match value {
                    Value::Number(number) if wanted == "int64" => format!("number {number}"),
                    other => kind_of(other).to_owned(),
                };
                format!("json: cannot unmarshal {shown} into Go struct field continueToken.{field} of type {wanted}")
            };
            match field.as_str() {
                "v" => token.version = value.as_str().ok_or_else(|| misfit("string"))?.to_owned(),
                "rv" => token.revision = value.as_i64().ok_or_else(|| misfit("int64"))?,
                "start" => token.start = value.as_str().ok_or_else(|| misfit("string"))?.to_owned(),
                _ => {}
            }
        }
        Ok(token)
    }
}

/// What Go calls a kind of JSON value.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Decodes as Go does, or tells at which byte it stops.
fn go_decode(text: &str) -> Result<Vec<u8>, usize> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'\r' | b'\n');
    if let Some(at) = text.bytes().position(|byte| !is_known(byte)) {
        return Err(at);
    }
    let text = text.replace(['\r', '\n'], "");
    // Go does not mind bits that are left over at the end.
    let lenient = base64::engine::GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
    );
    lenient.decode(&text).map_err(|err| match err {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        // What is left over is one character.
        _ => text.len().saturating_sub(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_were() {
        let token = Token::after("default/web", 17);
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        assert_eq!(token.start(""), Bound::Excluded("default/web".into()));
    }

    #[test]
    fn a_page_begins_at_the_key_of_its_token_or_behind_it() {
        let start = |start: &str| Token { version: String::new(), revision: 1, start: start.into() }.start("ns/");
        assert_eq!(start("a\0"), Bound::Excluded("ns/a".into()));
        assert_eq!(start("/a\0"), Bound::Excluded("ns/a".into()));
        assert_eq!(start("a"), Bound::Included("ns/a".into()));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let garbage = Token::decode("garbage").unwrap_err();
        let expected =
            "invalid continue token: continue key is not valid: invalid character '\\x81' looking for beginning of value";
        assert_eq!(garbage.message, expected);
        assert!(Token::decode("abcde").unwrap_err().message.ends_with("at input byte 4"));
        for (text, told) in [
            ("[]", "json: cannot unmarshal array into Go value of type storage.continueToken"),
            (r#"{"rv":1.5}"#, "json: cannot unmarshal number 1.5 into Go struct field continueToken.rv of type int64"),
            (r#"{"V":1}"#, "json: cannot unmarshal number into Go struct field continueToken.v of type string"),
            ("null", "server does not recognize this encoded version "),
        ] {
            let fault = Token::decode(&URL_SAFE_NO_PAD.encode(text)).unwrap_err().message;
            assert_eq!(fault, format!("invalid continue token: continue key is not valid: {told}"));
        }
        for bad in ["", "####", &Token::after("../x", 1).encode(), &Token::after("a", 0).encode()] {
            assert_eq!(Token::decode(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
