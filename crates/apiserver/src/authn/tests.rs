use http::HeaderValue;

use super::*;

#[test]
fn bearer_tokens_are_read_as_upstream_reads_them() {
    let token = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        bearer_token(&headers).map(Cow::into_owned)
    };
    assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
    assert_eq!(token("bearer abc ").as_deref(), Some("abc"));
    assert_eq!(token("Bearer abc def").as_deref(), Some("abc"));
    assert_eq!(token("Bearer  abc"), None);
    assert_eq!(token("Basic abc"), None);
    assert_eq!(token("Bearer "), None);
    let warned = |value: &'static str| warning(&HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]));
    assert!(warned("Bearer  abc").is_some_and(|text| text.contains("extra space")));
    assert_eq!((warned("Bearer abc"), warned("Basic  abc")), (None, None));
}
