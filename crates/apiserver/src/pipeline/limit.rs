//! How long a request may take.

use std::time::Duration;

use corten_api::status::Status;

use crate::duration;
use crate::request::{Query, RequestInfo};

/// The `timeout` parameter, within the server's own limits.
pub(super) fn time_limit(query: &Query, info: &RequestInfo, most: Duration) -> Result<Duration, Status> {
    /// Of writes: whoever asked has often given up by then.
    const MOST_OF_WRITES: Duration = Duration::from_secs(34);
    let most = if is_write(info) { most.min(MOST_OF_WRITES) } else { most };
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(most);
    }
    let asked = duration::parse(text)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    Ok(asked.filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most)))
}

/// Whether it changes one object.
pub(super) fn is_write(info: &RequestInfo) -> bool {
    info.is_resource && matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn requests_have_the_time_they_ask_for_within_limits() {
        //    verb                timeout    seconds
        check("get",              "",        60);
        check("get",              "10s",     10);
        check("get",              "0",       60);
        check("get",              "-1s",     60);
        check("list",             "5m",      60);
        check("deletecollection", "",        60);
        check("create",           "",        34);
        check("patch",            "1m",      34);
        check("delete",           "3s",      3);
        #[track_caller]
        fn check(verb: &str, timeout: &str, seconds: u64) {
            let info = RequestInfo { is_resource: true, verb: verb.into(), ..RequestInfo::default() };
            let query = Query::parse(&format!("timeout={timeout}"));
            let limit = time_limit(&query, &info, Duration::from_secs(60)).unwrap();
            assert_eq!(limit, Duration::from_secs(seconds), "{verb} {timeout}");
        }
    }
}
