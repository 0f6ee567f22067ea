//! What may be asked of a log (`PodLogOptions`).

use corten_api::field::{Faults, Path};
use corten_api::status::Status;

use crate::pipeline::Call;

/// Refuses options that make no sense, in upstream's words.
pub(super) fn check_options(call: &Call) -> Result<(), Status> {
    for name in ["tailLines", "limitBytes", "sinceSeconds"] {
        crate::registry::integer(&call.query, name)?;
    }
    let since = call.query.text("sinceTime");
    if !since.is_empty() {
        corten_api::time::canonical(since).map_err(|err| Status::bad_request(err.to_string()))?;
    }
    let faults = faults(|name| call.query.text(name));
    if faults.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "PodLogOptions", &call.info().name, &faults))
}

fn faults<'q>(option: impl Fn(&'static str) -> &'q str) -> Faults {
    let mut faults = Faults::default();
    let number = |name| option(name).parse::<i64>().ok();
    if let Some(lines) = number("tailLines").filter(|lines| *lines < 0) {
        faults.invalid_int(&Path::new("tailLines"), lines, "must be greater than or equal to 0");
    }
    if let Some(limit) = number("limitBytes").filter(|limit| *limit < 1) {
        faults.invalid_int(&Path::new("limitBytes"), limit, "must be greater than 0");
    }
    if !option("stream").is_empty() {
        faults.forbidden(&Path::new("stream"), "may not be specified");
    }
    match number("sinceSeconds") {
        // Upstream prints a path of one empty name as an index.
        Some(_) if !option("sinceTime").is_empty() => {
            faults.forbidden(&Path::new("[]"), "at most one of `sinceTime` or `sinceSeconds` may be specified");
        }
        Some(seconds) if seconds < 1 => {
            faults.invalid_int(&Path::new("sinceSeconds"), seconds, "must be greater than 0");
        }
        _ => {}
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_in_upstreams_words() {
        let told = |options: &[(&str, &'static str)]| {
            let option = |name: &'static str| options.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
            faults(option).aggregate()
        };
        assert_eq!(told(&[("tailLines", "0"), ("limitBytes", "1"), ("sinceSeconds", "1")]), "[]");
        assert_eq!(told(&[("tailLines", "-1")]), "tailLines: Invalid value: -1: must be greater than or equal to 0");
        assert_eq!(told(&[("limitBytes", "0")]), "limitBytes: Invalid value: 0: must be greater than 0");
        assert_eq!(told(&[("sinceSeconds", "0")]), "sinceSeconds: Invalid value: 0: must be greater than 0");
        let both = told(&[("sinceSeconds", "1"), ("sinceTime", "2020-01-01T00:00:00Z")]);
        assert_eq!(both, "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
}
