//! Exec and attach over the newest WebSocket protocol. Upstream's server speaks it itself and asks the kubelet in the name of
//! the client, which therefore is connected before anything is known of the kubelet: what goes wrong there is told over the
//! connection, in the channel of errors. Here the kubelet speaks the protocol, and only the failures are the server's to tell.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};

use corten_api::status::Status;

use super::target::Target;
use super::{For, forward};
use crate::pipeline::Call;
use crate::request::Query;
use crate::response::{self, Response};
use crate::socket::{Framing, Wish};
use crate::state::State;

/// The protocol, with closing of single streams.
pub(super) const PROTOCOL: &str = "v5.channel.k8s.io";
/// The channel of the outcome.
const ERRORS: u8 = 3;
/// Most of what a kubelet says about its refusal.
const MOST: usize = 64 << 10;

/// Connects the client with the kubelet, or tells it over its connection why not.
pub(super) async fn serve(state: &Arc<State>, call: Call, target: &Target, socket: Wish) -> Result<Response, Status> {
    if call.method != Method::GET {
        return Ok(response::plain(405, "bad method"));
    }
    let first = first_channel(&call.query);
    let status = match forward(state, call, target, For::Translated).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => return Ok(response),
        Ok(response) => refusal(response).await,
        Err(status) => status,
    };
    let messages = [Bytes::from(vec![first]), outcome(&status)];
    Ok(socket.fulfil(state, Framing::Channels, futures::stream::iter(messages.map(Ok))))
}

/// The channel whose empty message tells the client that it is connected: the first one that is written to.
fn first_channel(query: &Query) -> u8 {
    match (query.flag("stdout"), query.flag("stderr")) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => ERRORS,
    }
}

/// What a kubelet said instead of connecting: its own status, or its words.
async fn refusal(response: Response) -> Status {
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), MOST).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    said(code, &body)
}

fn said(code: u16, body: &[u8]) -> Status {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    if document["kind"] == "Status" && document["apiVersion"] == "v1" {
        let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
        let code = document["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(code);
        return Status::failure(code, &text("reason"), text("message"));
    }
    Status::internal(format!("unable to upgrade connection: {}", String::from_utf8_lossy(body)))
}

/// A message with a status in the channel of errors.
fn outcome(status: &Status) -> Bytes {
    let mut document = status.to_document();
    if let Some(document) = document.as_object_mut() {
        document.remove("kind");
        document.remove("apiVersion");
    }
    let mut message = vec![ERRORS];
    corten_schema::encode::go_raw(&mut message, &document);
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_the_channel_of_errors() {
        let message = outcome(&Status::internal("error sending request"));
        let expected = br#"{"code":500,"details":{"causes":[{"message":"error sending request"}]},"message":"Internal error occurred: error sending request","metadata":{},"reason":"InternalError","status":"Failure"}"#;
        assert_eq!((message[0], std::str::from_utf8(&message[1..])), (3, std::str::from_utf8(expected)));
        for (query, channel) in [("stdin=1&stdout=1&stderr=1", 1), ("stderr=true", 2), ("command=ls", 3)] {
            assert_eq!(first_channel(&Query::parse(query)), channel, "{query}");
        }
    }

    #[test]
    fn a_kubelets_words_are_passed_on() {
        let status = said(500, b"container not found (\"c\")");
        assert_eq!(status.message, "Internal error occurred: unable to upgrade connection: container not found (\"c\")");
        let own = br#"{"kind":"Status","apiVersion":"v1","code":403,"reason":"Forbidden","message":"no"}"#;
        let status = said(500, own);
        assert_eq!((status.code, &*status.reason, &*status.message), (403, "Forbidden", "no"));
    }
}
