//! For those who try what comes from outside: the parsers of options and tokens, without a server around them.

use super::continuation::Token;
use super::options::{DeleteOptions, ListOptions, WriteOptions};
use crate::negotiate::{self, Endpoint};
use crate::request::{Query, RequestInfo};

/// Reads the options of every verb, and media types as well, from a query.
pub fn options(query: &Query, info: &RequestInfo) {
    let _ = ListOptions::parse(query, info);
    let _ = DeleteOptions::from_query(query);
    for kind in ["CreateOptions", "UpdateOptions", "PatchOptions"] {
        if let Ok(options) = WriteOptions::parse(query, kind, false) {
            let _ = options.manager(query.text("fieldManager"));
        }
    }
    for header in query.all("accept") {
        let _ = negotiate::content_type(header);
        for endpoint in [Endpoint::Object, Endpoint::Action, Endpoint::List, Endpoint::Watch, Endpoint::Deletion] {
            let _ = negotiate::accept(header, endpoint, false);
        }
    }
    let _ = crate::duration::parse(query.text("timeout"));
}

/// Reads a continue token.
///
/// # Panics
/// When a good token does not come back as it was.
pub fn continuation(text: &str) {
    if let Ok(token) = Token::decode(text) {
        let again = Token::decode(&token.encode());
        assert_eq!(again.ok(), Some(token), "a token changes on its way");
    }
}
