//! Continue tokens: where the next page of a list begins, and at which revision. The encoding is upstream's
//! (`meta.k8s.io/v1`), so that a client may go on with another server on the same store.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use corten_api::status::Status;

/// A decoded token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    #[serde(rename = "v", default)]
    version: String,
    /// The revision that the pages show; -1 when whatever is newest will do.
    #[serde(rename = "rv", default)]
    pub revision: i64,
    #[serde(rename = "start", default)]
    start: String,
}

impl Token {
    /// The token for what follows `key` (relative to the collection) at `revision`.
    pub(crate) fn after(key: &str, revision: i64) -> Self {
        Self { version: "meta.k8s.io/v1".into(), revision, start: format!("{key}\0") }
    }

    /// The key of the first object that may be on the page, relative to the collection.
    pub(crate) fn start(&self) -> &str {
        &self.start
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
        let token: Self = serde_json::from_slice(&bytes)
            .map_err(|err| refuse(&format!("continue key is not valid: {}", go_json_error(&bytes, &err))))?;
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
        let steps_out = token.start.split('/').enumerate().any(|(i, s)| matches!(s, "." | "..") || (s.is_empty() && i > 0));
        if steps_out {
            return Err(refuse(&format!("continue key is not valid: {}", token.start)));
        }
        Ok(token)
    }
}

/// Decodes as Go does, or tells at which byte it stops.
fn go_decode(text: &str) -> Result<Vec<u8>, usize> {
    // Go does not mind bits that are left over at the end.
    let lenient = base64::engine::GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
    );
    lenient.decode(text).map_err(|err| match err {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        // What is left over is one character.
        _ => text.len().saturating_sub(1),
    })
}

/// What Go's JSON decoder says about bytes that do not even begin like a document.
fn go_json_error(bytes: &[u8], err: &serde_json::Error) -> String {
    let Some(first) = bytes.iter().find(|b| !b.is_ascii_whitespace()) else {
        return "unexpected end of JSON input".into();
    };
    if err.is_eof() {
        return "unexpected end of JSON input".into();
    }
    if err.is_data() {
        return err.to_string();
    }
    let shown = match first {
        0x20..0x7f => char::from(*first).to_string(),
        byte => format!("\\x{byte:02x}"),
    };
    format!("invalid character '{shown}' looking for beginning of value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_were() {
        let token = Token::after("default/web", 17);
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        assert_eq!(token.start(), "default/web\0");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let garbage = Token::decode("garbage").unwrap_err();
        let expected =
            "invalid continue token: continue key is not valid: invalid character '\\x81' looking for beginning of value";
        assert_eq!(garbage.message, expected);
        assert!(Token::decode("abcde").unwrap_err().message.ends_with("at input byte 4"));
        for bad in ["", "####", &Token::after("../x", 1).encode(), &Token::after("a", 0).encode()] {
            assert_eq!(Token::decode(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
