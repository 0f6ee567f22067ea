//! Links of a proxied page that begin at its root: they are made to begin at the proxy's.

/// A `Location` that points to the target's root or host, under the proxy's prefix; `None` when it points elsewhere.
pub(super) fn location(location: &str, prefix: &str, authority: &str) -> Option<String> {
    let of_target = |scheme: &str| location.strip_prefix(scheme)?.strip_prefix(authority);
    let path = of_target("http://").or_else(|| of_target("https://")).unwrap_or(location);
    let is_path = path.starts_with('/') && !path.starts_with("//");
    (is_path && !path.starts_with(prefix)).then(|| format!("{prefix}{path}"))
}

/// A page with the links in its attributes changed, those with the target's own host included.
pub(super) fn html(page: &str, prefix: &str, authority: &str) -> String {
    const ATTRIBUTES: [&str; 13] = [
        "href=",
        "src=",
        "action=",
        "formaction=",
        "cite=",
        "data=",
        "background=",
        "poster=",
        "longdesc=",
        "codebase=",
        "icon=",
        "manifest=",
        "classid=",
    ];
    let mut out = String::with_capacity(page.len() + page.len() / 16);
    let mut rest = page;
    while let Some(at) = rest.find('=') {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        rest = tail;
        let lower = head.to_ascii_lowercase();
        let is_link = ATTRIBUTES.iter().any(|attribute| {
            lower.strip_suffix(attribute).is_some_and(|before| before.ends_with(|c: char| c.is_ascii_whitespace()))
        });
        let Some(quote) = rest.chars().next().filter(|c| is_link && matches!(c, '"' | '\'')) else { continue };
        let Some(end) = rest[1..].find(quote) else { continue };
        let value = &rest[1..=end];
        out.push(quote);
        match location(value, prefix, authority) {
            Some(moved) => out.push_str(&moved),
            None => out.push_str(value),
        }
        rest = &rest[1 + end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_from_the_root_are_moved_and_others_stay() {
        let page =
            r#"<a href="/x">1</a><img src='/y'><a href="z"><a href="//h/x"><a data-x="/q"><A HREF="http://h:80/abs"> a=b "#;
        let expected = r#"<a href="/p/x">1</a><img src='/p/y'><a href="z"><a href="//h/x"><a data-x="/q"><A HREF="/p/abs"> a=b "#;
        assert_eq!(html(page, "/p", "h:80"), expected);
    }

    #[test]
    fn redirects_stay_under_the_proxy() {
        assert_eq!(location("/x", "/p", "h:80").as_deref(), Some("/p/x"));
        assert_eq!(location("http://h:80/x", "/p", "h:80").as_deref(), Some("/p/x"));
        assert_eq!(location("http://other/x", "/p", "h:80"), None);
        assert_eq!(location("x", "/p", "h:80"), None);
    }
}
