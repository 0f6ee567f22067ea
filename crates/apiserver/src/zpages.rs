//! `/flagz` and `/statusz` (KEP-4828, KEP-4827): with which settings the server runs, and what it is. As text for people, or as a
//! `config.k8s.io` document when the client names its kind and version.

mod flags;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderValue, header};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use corten_api::status::Status;

use crate::discovery;
use crate::negotiate::{self, Page};
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

/// What the documents are named.
const COMPONENT: &str = "apiserver";
/// Parts of the API that `/statusz` does not count among the pages for debugging.
const OF_THE_API: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// Answers `/flagz`.
///
/// # Errors
/// None: a refusal is an answer of its own here, as it is not negotiated like others.
pub async fn flagz(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    let flags = flags::of(&state.config);
    answer(call, "Flagz", |_| json!({"flags": flags}), || lines(&flags))
}

/// Answers `/statusz`.
///
/// # Errors
/// None, as for [`flagz`].
pub async fn statusz(state: &Arc<State>, call: &Call) -> Result<Response, Status> {
    let seconds = state.started.elapsed().as_secs();
    let started = jiff::Timestamp::now() - state.started.elapsed();
    let paths = pages(&discovery::paths(&state.catalogue()));
    let version = discovery::VERSION;
    let document = |_: &str| {
        json!({
            "startTime": corten_api::time::seconds(started), "uptimeSeconds": seconds, "goVersion": "",
            "binaryVersion": version, "emulationVersion": version, "paths": paths,
        })
    };
    let text = || {
        let date = started.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S UTC %Y");
        let up = format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let paths = paths.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        format!(
            "\nStarted: {date}\nUp: {up}\nGo version: \nBinary version: {version}\nEmulation version: {version}\nPaths: {paths}\n"
        )
    };
    answer(call, "Statusz", document, text)
}

/// A page in the form that the client takes.
fn answer(
    call: &Call,
    kind: &str,
    document: impl FnOnce(&str) -> Value,
    text: impl FnOnce() -> String,
) -> Result<Response, Status> {
    let accept = call.header(header::ACCEPT);
    let pretty = negotiate::wants_pretty(&call.query, call.header(header::USER_AGENT));
    let page = kind.to_ascii_lowercase();
    let (form, version) = match negotiate::accept_page(accept, kind, pretty) {
        Ok(Page::Structured(form, version)) => (form, version),
        Ok(Page::Text) => {
            let about = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees \
                         and is for debugging purposes only.";
            return Ok(response::text(200, format!("\n{COMPONENT} {page}\n{about}\n{}", text())));
        }
        Err(status) => return Ok(negotiate::status(&status, negotiate::without_protobuf(accept), pretty)),
    };
    let mut object = document(version);
    object["kind"] = kind.into();
    object["apiVersion"] = format!("config.k8s.io/{version}").into();
    object["metadata"] = json!({"name": COMPONENT});
    let media = negotiate::content_type_of(form.encoding);
    let media = format!("{media};g=config.k8s.io;v={version};as={kind}");
    let mut response = response::bytes(200, &media, negotiate::document(&object, form)?);
    if version == "v1alpha1" {
        let text = format!("299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\"");
        response.headers_mut().extend(HeaderValue::from_str(&text).ok().map(|text| (header::WARNING, text)));
    }
    Ok(response)
}

fn lines(flags: &BTreeMap<String, String>) -> String {
    flags.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}");
        text
    })
}

/// The first part of each path that is none of the API's.
fn pages(paths: &[String]) -> BTreeSet<String> {
    let first = paths.iter().filter_map(|path| path.split('/').nth(1)).filter(|part| !part.is_empty());
    first.map(|part| format!("/{part}")).filter(|path| !OF_THE_API.contains(&path.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_named_once_and_the_api_is_none() {
        let paths = ["/", "/api/v1", "/apis", "/healthz", "/healthz/ping", "/flagz", "/openid/v1/jwks"].map(str::to_owned);
        assert_eq!(pages(&paths).into_iter().collect::<Vec<_>>(), ["/flagz", "/healthz"]);
    }
}
