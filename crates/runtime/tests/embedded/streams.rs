//! Exec, attach, terminals, logs and port forwarding.

use std::fs;
use std::time::Duration;

use corten_runtime::*;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::fixture::{Fixture, SOON, log_lines, processes};

type Output = Box<dyn AsyncRead + Send + Unpin>;

/// Reads until `text` has come, and takes it off what was `seen`.
async fn expect(from: &mut Output, seen: &mut String, text: &str) {
    let reading = async {
        while !seen.contains(text) {
            let mut chunk = vec![0; 1024];
            let count = from.read(&mut chunk).await.unwrap();
            assert!(count > 0, "{text:?} never came, only {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap_or_else(|_| panic!("{text:?} comes soon"));
    *seen = seen.split_once(text).unwrap().1.to_owned();
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_runs_as_the_container_does() {
    let fixture = Fixture::new("exec").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod
        .start("busybox", &["sleep", "1000"], |config| {
            config.env = vec![("A".into(), "b c".into())];
            config.working_dir = "/tmp".into();
            config.security.run_as_user = Some(65534);
            config.security.no_new_privs = true;
        })
        .await;
    let output = pod
        .exec(
            &id,
            &["sh", "-c", "echo $A; pwd; id -u; hostname; echo err >&2; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; exit 3"],
        )
        .await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b c\n/tmp\n65534\npod-host\nNoNewPrivs:\t1\nSeccomp:\t2\n");
    assert_eq!((output.stderr.as_slice(), output.exit_code), (&b"err\n"[..], 3));
    let command = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let err = fixture.runtime.exec_sync(&id, &command(&["none"]), None).await.unwrap_err();
    assert_eq!(err.to_string(), "exec: \"none\": executable file not found in $PATH");
    fixture.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let err = fixture.runtime.exec_sync(&id, &command(&["true"]), None).await.unwrap_err();
    assert_eq!(err.to_string(), format!("container {id} is not running"));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_that_takes_too_long_is_killed_with_its_children() {
    let fixture = Fixture::new("timeout").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod.start("busybox", &["sleep", "1000"], |_| {}).await;
    let command: Vec<String> = ["sh", "-c", "sleep 54321 & sleep 54321"].iter().map(ToString::to_string).collect();
    let limit = Duration::from_millis(300);
    let err = fixture.runtime.exec_sync(&id, &command, Some(limit)).await.unwrap_err();
    assert!(matches!(err, RuntimeError::Timeout(after) if after == limit), "{err}");
    let gone = async {
        while processes()
            .iter()
            .any(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == b"sleep\x0054321\x00"))
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("the exec's processes end soon");
    assert_eq!(fixture.runtime.container_status(&id).await.unwrap().state, ContainerState::Running);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_streams_both_ways() {
    let fixture = Fixture::new("execio").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod.start("busybox", &["sleep", "1000"], |_| {}).await;
    let request = ExecRequest { command: vec!["cat".into()], stdin: true, stdout: true, stderr: true, tty: false };
    let mut process = fixture.runtime.exec(&id, &request).await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let big = vec![b'x'; 300_000];
    let mut received = Vec::new();
    let mut stdout = process.stdout.take().unwrap();
    tokio::join!(
        async {
            stdin.write_all(&big).await.unwrap();
            drop(stdin);
        },
        async {
            stdout.read_to_end(&mut received).await.unwrap();
        }
    );
    assert_eq!(received, big);
    assert_eq!(process.exit.await.unwrap(), 0);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_with_a_terminal() {
    let fixture = Fixture::new("exectty").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod.start("busybox", &["sleep", "1000"], |_| {}).await;
    let request = ExecRequest { command: vec!["sh".into()], stdin: true, stdout: true, stderr: false, tty: true };
    let mut process = fixture.runtime.exec(&id, &request).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    let mut seen = String::new();
    process.resize.send(TerminalSize { width: 123, height: 45 }).await.unwrap();
    stdin.write_all(b"tty; until stty size | grep -q 123; do :; done; stty size; echo $TERM\n").await.unwrap();
    expect(&mut stdout, &mut seen, "/dev/pts/0").await;
    expect(&mut stdout, &mut seen, "45 123").await;
    expect(&mut stdout, &mut seen, "xterm").await;
    stdin.write_all(b"exit 5\n").await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, process.exit).await.unwrap().unwrap(), 5);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_to_a_terminal() {
    let fixture = Fixture::new("attachtty").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod
        .start("busybox", &["sh"], |config| {
            config.tty = true;
            config.stdin = true;
        })
        .await;
    let request = AttachRequest { stdin: true, stdout: true, stderr: false, tty: true };
    let mut process = fixture.runtime.attach(&id, &request).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    let mut seen = String::new();
    stdin.write_all(b"echo $((40+2))-yes; test -c /dev/console && echo con-sole\n").await.unwrap();
    expect(&mut stdout, &mut seen, "42-yes").await;
    stdin.write_all(b"exit 9\n").await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, process.exit).await.unwrap().unwrap(), 9);
    let container = pod.exited(&id).await;
    assert!(log_lines(&container.log_path).iter().any(|(stream, _, text)| stream == "stdout" && text.contains("42-yes")));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_copies_output_and_gives_input_once() {
    let fixture = Fixture::new("attach").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod
        .start("busybox", &["sh", "-c", "while read line; do echo got $line; echo bad >&2; done; echo over; exit 4"], |config| {
            config.stdin = true;
            config.stdin_once = true;
        })
        .await;
    let output = AttachRequest { stdin: false, stdout: true, stderr: true, tty: false };
    let mut watcher = fixture.runtime.attach(&id, &output).await.unwrap();
    let mut process = fixture.runtime.attach(&id, &AttachRequest { stdin: true, ..output }).await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).await.unwrap();
    assert_eq!(line, "got one\n");
    drop(stdin);
    let (mut rest, mut watched) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).await.unwrap();
    watcher.stdout.take().unwrap().read_to_string(&mut watched).await.unwrap();
    assert_eq!((rest.as_str(), watched.as_str()), ("over\n", "got one\nover\n"));
    assert_eq!(tokio::time::timeout(SOON, process.exit).await.unwrap().unwrap(), 4);
    let lines = log_lines(&pod.exited(&id).await.log_path);
    assert_eq!(lines.iter().filter(|(stream, _, _)| stream == "stdout").count(), 2);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_is_logged_whole_and_logs_rotate() {
    let fixture = Fixture::new("logs").await;
    let pod = fixture.pod(|_| {}).await;
    let id = pod.start("hello", &["/hello", "flood", "1048576"], |_| {}).await;
    let flooded = pod.exited(&id).await;
    let lines = log_lines(&flooded.log_path);
    assert_eq!(lines.iter().map(|(_, _, text)| text.len() + 1).sum::<usize>(), 1 << 20);

    let id = pod
        .start("busybox", &["sh", "-c", "echo first; until test -e /go; do sleep 0.02; done; echo second"], |config| {
            config.log_path = "rotated/0.log".into();
        })
        .await;
    let path = fixture.runtime.container_status(&id).await.unwrap().log_path;
    let written = async {
        while !fs::read_to_string(&path).unwrap().contains("first") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, written).await.unwrap();
    fs::rename(&path, path.with_extension("old")).unwrap();
    fixture.runtime.reopen_log(&id).await.unwrap();
    pod.exec(&id, &["touch", "/go"]).await;
    pod.exited(&id).await;
    assert_eq!(log_lines(&path).into_iter().map(|(_, _, text)| text).collect::<Vec<_>>(), ["second"]);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_into_the_network_namespace() {
    let fixture = Fixture::new("forward").await;
    let pod = fixture.pod(|_| {}).await;
    // The network is the caller's to set up: here only the loopback.
    let script = "ip link set lo up; echo up; sleep 1000";
    let up =
        pod.start("busybox", &["sh", "-c", script], |config| config.security.add_capabilities = vec!["NET_ADMIN".into()]).await;
    let log = fixture.runtime.container_status(&up).await.unwrap().log_path;
    let ready = async {
        while !fs::read_to_string(&log).unwrap().contains("up") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, ready).await.unwrap();
    let server = pod.start("hello", &[], |config| config.log_path = "hello/0.log".into()).await;
    let log = fixture.runtime.container_status(&server).await.unwrap().log_path;
    let ready = async {
        while !fs::read_to_string(&log).unwrap().contains("listening") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, ready).await.unwrap();
    let mut stream = fixture.runtime.port_forward(&pod.sandbox.id, 8080).await.unwrap();
    stream.write_all(b"GET /hostname HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\npod-host\n"), "{answer}");
    let err = fixture.runtime.port_forward(&pod.sandbox.id, 9).await.err().unwrap();
    assert!(err.to_string().contains("connect to"), "{err}");
    fixture.finish().await;
}
