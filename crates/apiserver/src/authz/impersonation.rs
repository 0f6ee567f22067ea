//! Acting as somebody else: `Impersonate-User`, `-Uid`, `-Group` and `-Extra-*`.
//!
//! Constrained impersonation (KEP-5284) comes first: the sender may do *this* as *such* a user. Then the old permission, to
//! impersonate at all. When all refuse, the client reads the first refusal.

use std::time::Instant;

use http::{HeaderMap, HeaderValue};

use corten_api::names;
use corten_api::status::Status;

use super::{Attributes, Authorizer, Decision, forbidden};
use crate::authn::Extra;
use crate::request::{RequestInfo, unescape};
use crate::tokens::service_account_groups;
use crate::user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};

const GROUP: &str = "authentication.k8s.io";
const EXTRA: &str = "impersonate-extra-";
/// From so many on, all are asked for at once before each is by itself.
const MANY: usize = 4;

/// Whom the headers ask for, as they say it; `None` when they ask for nobody.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    // Whatever the bytes are: who is overlooked here is not acted as, and the sender keeps all rights.
    let read = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let text = |name: &str| headers.get(name).map(read).unwrap_or_default();
    let groups = headers.get_all("impersonate-group").iter().map(read).collect();
    let mut extra = Extra::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.entry(unescape(key, false)).or_default().push(read(value));
        }
    }
    let user = User { name: text("impersonate-user"), uid: text("impersonate-uid"), groups, extra };
    match user {
        User { ref name, .. } if !name.is_empty() => Ok(Some(user)),
        user if user == User::default() => Ok(None),
        user => Err(Status::bad_request(format!("requested {} without impersonating a user name", as_go_prints(&user)))),
    }
}

/// The user to act as, when `sender` may, and the mode by which it may.
pub(super) fn check(authorizer: &Authorizer, sender: &User, wanted: &User, info: &RequestInfo) -> Result<(User, Mode), Status> {
    let mut first = None;
    for mode in [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy] {
        if !mode.fits(sender, wanted) {
            continue;
        }
        match (Check { authorizer, sender, mode }).run(wanted, info) {
            Ok(user) => return Ok((user, mode)),
            Err(refused) => drop(first.get_or_insert(refused)),
        }
    }
    Err(first.expect("the old permission is always asked for"))
}

/// The permissions that are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

impl Mode {
    /// The verb of constrained impersonation.
    pub(super) fn verb(self) -> Option<&'static str> {
        match self {
            Self::AssociatedNode => Some("impersonate:associated-node"),
            Self::ArbitraryNode => Some("impersonate:arbitrary-node"),
            Self::ServiceAccount => Some("impersonate:serviceaccount"),
            Self::UserInfo => Some("impersonate:user-info"),
            Self::Legacy => None,
        }
    }

    /// By which metrics name it.
    pub(super) fn label(self) -> &'static str {
        if self == Self::Legacy { "legacy" } else { self.name() }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn fits(self, sender: &User, wanted: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_name(wanted), wanted.service_account());
        match self {
            Self::AssociatedNode => {
                let own = sender.extra.get("authentication.kubernetes.io/node-name").and_then(|names| names.first());
                only_name && sender.service_account().is_some() && node.is_some() && node == own.map(String::as_str)
            }
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

struct Check<'a> {
    authorizer: &'a Authorizer,
    sender: &'a User,
    mode: Mode,
}

impl Check<'_> {
    fn run(&self, wanted: &User, info: &RequestInfo) -> Result<User, Status> {
        let constrained = self.mode != Mode::Legacy;
        let verb = self.mode.verb().unwrap_or("impersonate").to_owned();
        // Names and groups are of the core group in the old permission only.
        let named = if constrained { GROUP } else { "" };
        if constrained {
            let on = format!("impersonate-on:{}:{}", self.mode.name(), info.verb);
            self.allowed(&Attributes { verb: &on, ..Attributes::of(self.sender, info) })?;
        }
        let ask = |group, resource, name| Attributes::resource(self.sender, &verb, group, resource, name);
        let mut user = wanted.clone();
        match (node_name(wanted).filter(|_| constrained), wanted.service_account()) {
            (Some(node), _) => {
                let node = if self.mode == Mode::AssociatedNode { "*" } else { node };
                self.allowed(&ask(named, "nodes", node))?;
                user.groups = vec!["system:nodes".to_owned()];
            }
            (None, Some((namespace, name))) => {
                self.allowed(&Attributes { namespace, ..ask(named, "serviceaccounts", name) })?;
                if wanted.groups.is_empty() {
                    user.groups = service_account_groups(namespace);
                }
            }
            (None, None) => self.allowed(&ask(named, "users", &wanted.name))?,
        }
        if !wanted.uid.is_empty() {
            self.allowed(&ask(GROUP, "uids", &wanted.uid))?;
        }
        if constrained && wanted.groups.iter().any(String::is_empty) {
            return Err(forbidden(&ask(named, "groups", ""), "impersonating the empty string group is not allowed"));
        }
        if constrained && wanted.is_in(MASTERS) {
            return Err(forbidden(&ask(named, "groups", MASTERS), "impersonating the system:masters group is not allowed"));
        }
        let all = constrained && wanted.groups.len() >= MANY && self.allowed(&ask(named, "groups", "*")).is_ok();
        for group in wanted.groups.iter().filter(|_| !all) {
            self.allowed(&ask(named, "groups", group))?;
        }
        if constrained && let Err(why) = check_extra(&wanted.extra) {
            return Err(forbidden(&ask(GROUP, "userextras", ""), &why));
        }
        let many = wanted.extra.len() >= MANY || wanted.extra.values().map(Vec::len).sum::<usize>() >= MANY;
        let any = Attributes { subresource: "*", ..ask(GROUP, "userextras", "*") };
        let all = constrained && many && self.allowed(&any).is_ok();
        for (key, values) in wanted.extra.iter().filter(|_| !all) {
            for value in values {
                self.allowed(&Attributes { subresource: key, ..ask(GROUP, "userextras", value) })?;
            }
        }
        if user.name == "system:anonymous" {
            ensure(&mut user, UNAUTHENTICATED);
        } else if !user.is_in(UNAUTHENTICATED) {
            ensure(&mut user, AUTHENTICATED);
        }
        Ok(user)
    }

    fn allowed(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let started = Instant::now();
        let decision = self.authorizer.decide(attributes);
        let allowed = matches!(decision, Decision::Allow(_));
        self.authorizer.impersonations.checked(self.mode.label(), allowed, started.elapsed());
        match decision {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
        }
    }
}

/// What constrained impersonation does not take for an extra attribute, in upstream's words.
fn check_extra(extra: &Extra) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".to_owned());
        }
        let faults: Vec<String> = names::domain_prefixed_path(key)
            .into_iter()
            .map(|(shown, why)| format!("extra.key: Invalid value: {}: {why}", corten_api::field::quoted(shown)))
            .collect();
        match faults.as_slice() {
            [] => {}
            [one] => return Err(format!("impersonating an invalid key in extra is not allowed: {one}")),
            all => return Err(format!("impersonating an invalid key in extra is not allowed: [{}]", all.join(", "))),
        }
        if *key != key.to_lowercase() {
            let shown = corten_api::field::quoted(key);
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {shown}"));
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".to_owned());
        }
    }
    Ok(())
}

fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|name| !name.is_empty())
}

fn ensure(user: &mut User, group: &str) {
    if !user.is_in(group) {
        user.groups.push(group.to_owned());
    }
}

/// Go's `%#v` of its user type, which upstream's message carries.
fn as_go_prints(user: &User) -> String {
    let list = |list: &[String]| {
        let inner: Vec<_> = list.iter().map(|text| format!("{text:?}")).collect();
        format!("[]string{{{}}}", inner.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let inner: Vec<_> = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        format!("map[string][]string{{{}}}", inner.join(", "))
    };
    format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.name, user.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_is_overlooked_for_its_bytes() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-user", HeaderValue::from_bytes(b"caf\xc3\xa9").unwrap());
        headers.insert("impersonate-group", HeaderValue::from_bytes(b"\xff").unwrap());
        let user = wanted(&headers).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("café", vec!["\u{fffd}".to_owned()]));
        headers.remove("impersonate-user");
        assert_eq!(wanted(&headers).unwrap_err().code, 400);
    }

    #[test]
    fn odd_extra_attributes_are_refused() {
        let check = |key: &str, value: &str| check_extra(&Extra::from([(key.to_owned(), vec![value.to_owned()])]));
        assert_eq!(check("example.com/a", "x"), Ok(()));
        assert!(check("", "x").unwrap_err().contains("empty string key"));
        assert!(check("a", "x").unwrap_err().contains("invalid key in extra"));
        assert!(check("example.com/A", "x").unwrap_err().contains("non-lowercase key"));
        assert!(check("example.com/a", "").unwrap_err().contains("empty string value"));
    }
}
