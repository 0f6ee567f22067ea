//! What ends a request that takes too long, and what keeps too many from running at one time.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use corten_apiserver::User;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::running::{Running, admin, request};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A write of `user` whose body never ends. `begun` is told when the server reads it, which it does once there is a seat.
async fn endless(running: &Running, user: User, path: &str, begun: oneshot::Sender<()>) -> (u16, serde_json::Value) {
    let body = stream::once(async move {
        let _ = begun.send(());
        std::future::pending::<Result<Frame<Bytes>, Infallible>>().await
    });
    let request = request("POST", path, "application/json").body(StreamBody::new(body)).unwrap();
    let answer = running.server.local(user).oneshot(request).await.unwrap();
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    // The server's own limit is also that of the requests by which it makes its first objects.
    for (path, limit) in [(format!("{MAPS}?timeout=20ms"), Duration::from_secs(60)), (MAPS.to_owned(), Duration::from_secs(3))] {
        let running = Running::start(|_, config| config.request_timeout = limit).await;
        let (begun, _reading) = oneshot::channel();
        let (code, status) = endless(&running, admin(), &path, begun).await;
        assert_eq!((code, status["reason"].as_str()), (504, Some("Timeout")), "{path}");
        let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        assert_eq!(status["message"], why, "{path}");
        running.stop().await;
    }
}

#[tokio::test]
async fn too_many_requests_at_one_time_are_rejected_with_and_without_fairness() {
    for fair in [true, false] {
        let running = Running::start(|_, config| {
            config.enable_priority_and_fairness = fair;
            config.authorization_mode = vec!["AlwaysAllow".into()];
            (config.max_requests_inflight, config.max_mutating_requests_inflight) = (1, 1);
        })
        .await;
        if fair {
            // One seat for whom nothing else is said of, and no queue.
            let flow = "/apis/flowcontrol.apiserver.k8s.io/v1";
            for (kind, object) in [
                (
                    "prioritylevelconfigurations",
                    r#"{"metadata":{"name":"one"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":1,"limitResponse":{"type":"Reject"},"borrowingLimitPercent":0}}}"#,
                ),
                (
                    "flowschemas",
                    r#"{"metadata":{"name":"one"},"spec":{"priorityLevelConfiguration":{"name":"one"},"matchingPrecedence":9,"rules":[{"subjects":[{"kind":"User","user":{"name":"eve"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"namespaces":["*"]}]}]}}"#,
                ),
            ] {
                let made = running.ask(admin(), request("POST", &format!("{flow}/{kind}"), "application/json"), object).await;
                assert_eq!(made.status(), 201, "{made:?}");
            }
        }
        let eve = || User::new("eve", &["system:authenticated"]);
        let (begun, reading) = oneshot::channel();
        let held = endless(&running, eve(), MAPS, begun);
        let others = async {
            reading.await.unwrap();
            let body = r#"{"metadata":{"name":"m"}}"#;
            let refused = running.ask(eve(), request("POST", MAPS, "application/json"), body).await;
            assert_eq!(refused.status(), 429, "{refused:?}");
            assert_eq!(refused.headers()["retry-after"], "1");
            assert_eq!(refused.headers().contains_key("x-kubernetes-pf-flowschema-uid"), fair);
            assert_eq!(refused.body(), "Too many requests, please try again later.\n");
            let made = running.ask(admin(), request("POST", MAPS, "application/json"), body).await;
            assert_eq!(made.status(), 201, "administrators are not kept out");
        };
        tokio::select! {
            answer = held => panic!("a body without an end was answered: {answer:?}"),
            () = others => {}
        }
        // Who went has given up the seat.
        let after = running.ask(eve(), request("GET", MAPS, ""), "").await;
        assert_eq!(after.status(), 200);
        running.stop().await;
    }
}
