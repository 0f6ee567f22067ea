//! One-shot commands, for init containers, lifecycle hooks, probes and exec.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// Runs `command`; `None` when there is none of that name.
pub fn run(command: &str, args: &[String]) -> Option<ExitCode> {
    let first = args.first().map(String::as_str).unwrap_or_default();
    let done = match command {
        "print" => {
            println!("{}", args.join(" "));
            Ok(())
        }
        "sleep" => first.parse().map_err(|_| format!("{first:?} is no number of seconds")).map(|seconds: f64| {
            std::thread::sleep(Duration::from_secs_f64(seconds.max(0.0)));
        }),
        "exit" => return Some(ExitCode::from(first.parse().unwrap_or(1))),
        "cat" => cat(first),
        "write" => std::fs::write(first, args[1..].join(" ")).map_err(|err| format!("{first}: {err}")),
        "get" => get(first),
        "dns" => dns(first),
        "env" => env(args.first()),
        "user" => user(),
        "flood" => flood(first.parse().unwrap_or(1 << 20)),
        "eat" => eat(first.parse().unwrap_or(64)),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("hello: {why}");
            ExitCode::FAILURE
        }
    })
}

fn cat(file: &str) -> Result<(), String> {
    let copied = match file {
        "" | "-" => std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()),
        file => std::fs::File::open(file).and_then(|mut file| std::io::copy(&mut file, &mut std::io::stdout())),
    };
    copied.map(drop).map_err(|err| format!("{file}: {err}"))
}

/// Prints the body of `http://host[:port]/path`; fails on any status but 2xx.
fn get(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let addresses = target.to_socket_addrs().map_err(|err| format!("resolve {authority}: {err}"))?;
    let mut last = format!("{authority} has no address");
    for address in addresses {
        let mut stream = match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => stream,
            Err(err) => {
                last = format!("connect {address}: {err}");
                continue;
            }
        };
        let mut text = Vec::new();
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")
            .map_err(|err| err.to_string())?;
        stream.read_to_end(&mut text).map_err(|err| format!("read from {address}: {err}"))?;
        let split = text.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no HTTP answer")?;
        let status = String::from_utf8_lossy(&text[..split]).lines().next().unwrap_or_default().to_owned();
        std::io::stdout().write_all(&text[split + 4..]).map_err(|err| err.to_string())?;
        return if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) { Ok(()) } else { Err(status) };
    }
    Err(last)
}

fn dns(name: &str) -> Result<(), String> {
    let addresses = (name, 0).to_socket_addrs().map_err(|err| format!("resolve {name}: {err}"))?;
    let mut texts: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    texts.dedup();
    println!("{}", texts.join("\n"));
    Ok(())
}

fn env(name: Option<&String>) -> Result<(), String> {
    match name {
        Some(name) => std::env::var(name).map(|value| println!("{value}")).map_err(|_| format!("{name} is not set")),
        None => {
            std::env::vars().for_each(|(name, value)| println!("{name}={value}"));
            Ok(())
        }
    }
}

/// Ids, capabilities and seccomp mode, as the kernel has them.
fn user() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|err| err.to_string())?;
    let wanted = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"];
    status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).for_each(|line| println!("{line}"));
    Ok(())
}

/// Writes that many bytes as lines, for log and stream tests.
fn flood(bytes: usize) -> Result<(), String> {
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    let mut out = std::io::stdout().lock();
    for _ in 0..bytes.div_ceil(line.len()) {
        out.write_all(line.as_bytes()).map_err(|err| err.to_string())?;
    }
    Ok(())
}

/// Fills that many mebibytes of memory, for limits and eviction tests, and holds them until killed.
fn eat(megabytes: usize) -> Result<(), String> {
    let mut eaten = Vec::new();
    for count in 1..=megabytes {
        eaten.push(vec![1_u8; 1 << 20]);
        if count % 16 == 0 {
            println!("{count} MiB");
        }
    }
    println!("holding {} MiB", eaten.len());
    loop {
        std::thread::park();
    }
}
