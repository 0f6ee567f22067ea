//! The workload that Corten's tests run in pods: an HTTP server that shows what the container sees (host name,
//! environment, files, headers, client address), plus one-shot commands for init containers, hooks and exec.
//!
//! It is one static binary without an image below it, so that no test needs the internet. Only `nix` is used, and
//! only for signals: a container's first process has no default signal actions, so SIGTERM must be handled.
#![forbid(unsafe_code)]

mod commands;
mod http;
mod pages;

use std::net::{Ipv6Addr, TcpListener};
use std::process::ExitCode;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "usage: hello [serve] [--port PORT]
       hello print TEXT... | sleep SECONDS | exit CODE | cat FILE | write FILE TEXT | get URL | dns NAME | env [NAME]
             | user | flood BYTES | eat MEGABYTES";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        None | Some("serve") => serve(&args),
        Some(flag) if flag.starts_with("--port") => serve(&args),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some(command) => commands::run(command, &args[1..]).unwrap_or_else(|| {
            eprintln!("hello: unknown command {command:?}\n{USAGE}");
            ExitCode::from(2)
        }),
    }
}

/// Serves until SIGTERM or SIGINT, then says so and exits with 0.
fn serve(args: &[String]) -> ExitCode {
    let Some(port) = port(args, std::env::var("PORT").ok()) else {
        eprintln!("hello: --port needs a number\n{USAGE}");
        return ExitCode::from(2);
    };
    // Blocked before any thread exists, so that only the waiting below ever sees them.
    let mut ending = SigSet::empty();
    ending.add(Signal::SIGTERM);
    ending.add(Signal::SIGINT);
    if let Err(err) = ending.thread_block() {
        eprintln!("hello: block signals: {err}");
        return ExitCode::FAILURE;
    }
    // Dual stack where the kernel has IPv6, otherwise IPv4 alone.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = match listener {
        Ok(listener) => listener,
        Err(err) => {
            eprintln!("hello: listen on port {port}: {err}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on port {port}");
    thread::spawn(move || {
        let state = pages::State::default();
        for connection in listener.incoming().flatten() {
            let state = state.clone();
            thread::spawn(move || http::converse(connection, |request| pages::answer(&state, request)));
        }
    });
    match ending.wait() {
        Ok(signal) => println!("got {signal}, bye"),
        Err(err) => eprintln!("hello: wait for signals: {err}"),
    }
    ExitCode::SUCCESS
}

/// The port from the flag, the environment, or 8080; `None` when it is no number.
fn port(args: &[String], environment: Option<String>) -> Option<u16> {
    let flag = args.iter().position(|arg| arg.starts_with("--port"));
    let text = match flag {
        Some(at) => match args[at].split_once('=') {
            Some((_, value)) => Some(value.to_owned()),
            None => Some(args.get(at + 1)?.clone()),
        },
        None => environment,
    };
    match text {
        Some(text) => text.parse().ok(),
        None => Some(8080),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_comes_from_flag_then_environment() {
        check(&[], None, Some(8080));
        check(&[], Some("81"), Some(81));
        check(&["--port", "82"], Some("81"), Some(82));
        check(&["serve", "--port=83"], None, Some(83));
        check(&["--port"], None, None);
        check(&["--port", "x"], None, None);
        #[track_caller]
        fn check(args: &[&str], environment: Option<&str>, expected: Option<u16>) {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            assert_eq!(port(&args, environment.map(str::to_owned)), expected);
        }
    }
}
