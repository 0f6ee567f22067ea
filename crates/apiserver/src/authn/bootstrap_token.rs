//! Bootstrap tokens `id.secret`: Secrets of type `bootstrap.kubernetes.io/token` in kube-system, with which a node joins.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::reader::Reader;
use crate::user::User;

const PREFIX: &str = "system:bootstrap:";
const GROUP: &str = "system:bootstrappers";

/// The user of a bootstrap token, if it is one and is good now.
pub(super) fn user(token: &str, reader: &Reader) -> Option<User> {
    let (id, secret) = token.split_once('.').filter(|(id, secret)| is_part(id, 6) && is_part(secret, 16))?;
    let object = reader.document("", "secrets", "kube-system", &format!("bootstrap-token-{id}"))?;
    judge(&object, id, secret, Timestamp::now())
}

fn judge(object: &Value, id: &str, secret: &str, now: Timestamp) -> Option<User> {
    let text = |key: &str| {
        let bytes = STANDARD.decode(object.pointer(&format!("/data/{key}"))?.as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let typed = object["type"] == "bootstrap.kubernetes.io/token" && object.pointer("/metadata/deletionTimestamp").is_none();
    // Compared as digests: the time it takes says nothing about the secret.
    let same = Sha256::digest(text("token-secret")?) == Sha256::digest(secret);
    let lasts = match text("expiration") {
        Some(end) => end.parse::<Timestamp>().is_ok_and(|end| now < end),
        None => true,
    };
    let usable = text("usage-bootstrap-authentication").as_deref() == Some("true");
    if !(typed && same && lasts && usable && text("token-id")? == id) {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in text("auth-extra-groups").unwrap_or_default().split(',').map(str::trim).filter(|group| !group.is_empty()) {
        if !group.starts_with("system:bootstrappers:") {
            return None; // upstream refuses the token as a whole
        }
        groups.push(group.to_owned());
    }
    Some(User { name: format!("{PREFIX}{id}"), groups, ..User::default() })
}

fn is_part(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_good_as_their_secret_says() {
        let make = |change: &dyn Fn(&mut Value)| {
            let mut secret = json!({"type": "bootstrap.kubernetes.io/token", "data": {
                "token-id": STANDARD.encode("abcdef"), "token-secret": STANDARD.encode("0123456789abcdef"),
                "usage-bootstrap-authentication": STANDARD.encode("true"),
                "auth-extra-groups": STANDARD.encode("system:bootstrappers:x"),
            }});
            change(&mut secret);
            judge(&secret, "abcdef", "0123456789abcdef", "2026-01-02T00:00:00Z".parse().unwrap())
        };
        let user = make(&|_| {}).unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("system:bootstrap:abcdef", 2));
        assert!(make(&|s| s["data"]["token-secret"] = STANDARD.encode("x").into()).is_none());
        assert!(make(&|s| s["data"]["expiration"] = STANDARD.encode("2026-01-01T00:00:00Z").into()).is_none());
        assert!(make(&|s| s["data"]["expiration"] = STANDARD.encode("2026-01-03T00:00:00Z").into()).is_some());
        assert!(make(&|s| s["type"] = "Opaque".into()).is_none());
        assert!(make(&|s| s["data"]["auth-extra-groups"] = STANDARD.encode("system:masters").into()).is_none());
    }
}
