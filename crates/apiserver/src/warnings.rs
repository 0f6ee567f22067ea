//! What a client is told beside the answer: `Warning` headers (RFC 7234, 5.5). They are gathered while a request is worked on, and
//! sent whatever becomes of it: who sends an unknown field wants to know of it also when the object is refused.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;

/// The warnings of one request.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text, once.
    pub fn add(&self, text: String) {
        let mut texts = self.0.lock();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// Writes the headers. Long texts are cut when all together are too long (upstream's limits).
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        const ALL: usize = 4096;
        const ONE: usize = 256;
        let texts = self.0.lock();
        let length: usize = texts.iter().map(|text| text.chars().count()).sum();
        let mut written = 0;
        for text in texts.iter() {
            if length > ALL && written >= ALL {
                break;
            }
            let most = if length > ALL { ONE } else { usize::MAX };
            let shown: String = text.chars().take(most).collect();
            written += shown.chars().count();
            // Such a text is none for a header, and nobody learns of it.
            if shown.chars().any(char::is_control) {
                continue;
            }
            let escaped = shown.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
                headers.append(header::WARNING, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_once_quoted_and_cut_when_there_are_many() {
        let sent = |texts: &[String]| {
            let warnings = Warnings::default();
            texts.iter().for_each(|text| warnings.add(text.clone()));
            let mut headers = HeaderMap::new();
            warnings.write(&mut headers);
            headers.get_all(header::WARNING).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let texts = ["unknown field \"a\"", "b\\", "c\n", "unknown field \"a\"", ""].map(str::to_owned);
        assert_eq!(sent(&texts), [r#"299 - "unknown field \"a\"""#, r#"299 - "b\\""#]);
        let long: Vec<_> = (0..30).map(|n| format!("{n:0300}")).collect();
        let shown = sent(&long);
        assert_eq!((shown.len(), shown[0].len()), (16, 256 + "299 - \"\"".len()));
    }
}
