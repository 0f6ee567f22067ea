//! The front proxy (an aggregator before this server) names the user in headers; its certificate proves that it may.

use http::HeaderMap;

use super::Extra;
use crate::user::User;

const EXTRA: &str = "x-remote-extra-";

/// The user that the headers name, if they do.
pub(super) fn user(headers: &HeaderMap) -> Option<User> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
    let mut extra = Extra::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.entry(crate::request::unescape(key, false)).or_default().push(value.to_owned());
        }
    }
    let groups = headers.get_all("x-remote-group").iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    Some(User {
        name: text("x-remote-user")?.to_owned(),
        uid: text("x-remote-uid").unwrap_or_default().to_owned(),
        groups,
        extra,
    })
}
