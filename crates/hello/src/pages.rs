//! What each path answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::http::{Request, Response};

/// Switches that requests flip and probes see.
#[derive(Clone, Default)]
pub struct State {
    unhealthy: Arc<AtomicBool>,
    unready: Arc<AtomicBool>,
}

/// Answers one request. Never fails: what goes wrong is a status.
pub fn answer(state: &State, request: &Request) -> Response {
    let path = request.path.as_str();
    if let Some(file) = path.strip_prefix("/files") {
        return match std::fs::read(file) {
            Ok(body) => Response { status: 200, body },
            Err(err) => Response::new(404, format!("{file}: {err}")),
        };
    }
    match path {
        "/" => Response::ok(format!("Hello from {}!", hostname())),
        "/hostname" => Response::ok(hostname()),
        "/env" => env(request.parameter("name")),
        "/headers" => Response::ok(request.headers.iter().map(|(k, v)| format!("{k}: {v}\n")).collect::<String>()),
        "/client-ip" => Response::ok(client_ip(&request.client)),
        "/echo" if request.method == "POST" => Response { status: 200, body: request.body.clone() },
        "/echo" => Response::new(405, "POST something"),
        "/delay" => {
            std::thread::sleep(Duration::from_millis(number(request, "ms").unwrap_or(0)));
            Response::ok("done")
        }
        "/crash" => {
            let code = number(request, "code").unwrap_or(1);
            println!("crashing with {code}");
            std::process::exit(i32::try_from(code & 0xff).unwrap_or(1));
        }
        "/healthz" | "/livez" => probe(&state.unhealthy),
        "/ready" | "/readyz" => match request.parameter("on") {
            Some(on) => switch(&state.unready, &on),
            None => probe(&state.unready),
        },
        "/fail-probe" => switch(&state.unhealthy, &request.parameter("on").unwrap_or_default()),
        "/fail-ready" => switch(&state.unready, &request.parameter("on").unwrap_or_default()),
        _ => Response::new(404, format!("no page {path}")),
    }
}

/// The container's host name, as the kernel has it.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

fn env(name: Option<String>) -> Response {
    match name {
        Some(name) => match std::env::var(&name) {
            Ok(value) => Response::ok(value),
            Err(_) => Response::new(404, format!("{name} is not set")),
        },
        None => Response::ok(std::env::vars().map(|(k, v)| format!("{k}={v}\n")).collect::<String>()),
    }
}

fn client_ip(client: &str) -> String {
    let host = client.rsplit_once(':').map_or(client, |(host, _)| host);
    // A dual-stack socket shows IPv4 peers as mapped addresses.
    host.trim_matches(['[', ']']).trim_start_matches("::ffff:").to_owned()
}

fn probe(failing: &AtomicBool) -> Response {
    if failing.load(Ordering::SeqCst) { Response::new(500, "failing") } else { Response::ok("ok") }
}

/// `on=1` makes the probe fail, `on=0` lets it pass again.
fn switch(failing: &AtomicBool, on: &str) -> Response {
    failing.store(matches!(on, "1" | "true" | "yes"), Ordering::SeqCst);
    Response::ok("switched")
}

fn number(request: &Request, name: &str) -> Option<u64> {
    request.parameter(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(state: &State, target: &str) -> (u16, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            method: "GET".into(),
            path: path.into(),
            query: query.into(),
            headers: Vec::new(),
            body: Vec::new(),
            client: "[::ffff:10.0.0.7]:4711".into(),
        };
        let response = answer(state, &request);
        (response.status, String::from_utf8(response.body).unwrap())
    }

    #[test]
    fn probes_follow_their_switches() {
        let state = State::default();
        assert_eq!(get(&state, "/healthz").0, 200);
        get(&state, "/fail-probe?on=1");
        assert_eq!(get(&state, "/healthz").0, 500);
        assert_eq!(get(&state, "/ready").0, 200);
        get(&state, "/fail-probe?on=0");
        assert_eq!(get(&state, "/healthz").0, 200);
    }

    #[test]
    fn client_address_is_shown_unmapped() {
        assert_eq!(get(&State::default(), "/client-ip"), (200, "10.0.0.7\n".into()));
    }
}
