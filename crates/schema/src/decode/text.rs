//! Small texts about bodies.

use std::fmt::Write as _;

/// Longest body that is shown.
const SHOWN: usize = 30;

/// As upstream's `summarizeData`: JSON is shown as text, something else as hexadecimal.
pub(super) fn summary(bytes: &[u8]) -> String {
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => {
            if bytes.len() > SHOWN {
                format!("{} ...", String::from_utf8_lossy(&bytes[..SHOWN]))
            } else {
                String::from_utf8_lossy(bytes).into_owned()
            }
        }
        Some(_) => {
            let mut out = String::new();
            for byte in bytes.iter().take(SHOWN) {
                let _ = write!(out, "{byte:02x}");
            }
            if bytes.len() > SHOWN {
                out.push_str(" ...");
            }
            out
        }
    }
}
