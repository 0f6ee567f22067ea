//! The conversation between the runtime and a pod's shim: one JSON document a line over a Unix socket, descriptors
//! attached to the reply that speaks of them. A connection carries one request; `Subscribe`, `Exec` and `Attach` keep
//! theirs open for what follows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::{ProcessRecord, ShimRecord, Status};

/// From the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Everything now ([`Reply::All`]), then each change.
    Subscribe,
    /// Creates and starts the container whose record and specification are on disk.
    Start {
        /// Its id.
        container: String,
    },
    /// Signals the main process, or with `all` kills every process of the container.
    Signal {
        /// Its id.
        container: String,
        /// Signal number.
        signal: i32,
        /// Every process.
        all: bool,
    },
    /// Runs a process in a container. When the connection ends before the process, it is killed.
    Exec {
        /// The container's id.
        container: String,
        /// What to run.
        process: ProcessRecord,
        /// With a terminal.
        tty: bool,
        /// Wants its input.
        stdin: bool,
    },
    /// Streams of the main process.
    Attach {
        /// The container's id.
        container: String,
        /// Wants its input.
        stdin: bool,
        /// Wants its output.
        stdout: bool,
        /// Wants its error output.
        stderr: bool,
    },
    /// Opens the log file again.
    ReopenLog {
        /// The container's id.
        container: String,
    },
    /// Two unconnected TCP sockets in the sandbox's network namespace, IPv4 and IPv6.
    Sockets,
    /// Forgets an exited container.
    Forget {
        /// Its id.
        container: String,
    },
    /// Kills everything and ends.
    Shutdown,
}

/// From the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The sandbox stands.
    Ready(ReadyShim),
    /// Done.
    Done,
    /// Not done, and why.
    Failed(String),
    /// All containers.
    All(BTreeMap<String, Status>),
    /// One container has changed.
    Changed {
        /// Its id.
        container: String,
        /// Its state now.
        status: Status,
    },
    /// Descriptors come along, in this order.
    Streams(Vec<Stream>),
    /// The process ended.
    Exited(i32),
}

/// A shim that is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyShim {
    /// Its process.
    pub pid: i32,
    /// Holder of the pod's PID namespace.
    pub init: Option<i32>,
}

impl From<&ShimRecord> for ReadyShim {
    fn from(record: &ShimRecord) -> Self {
        Self { pid: record.pid, init: record.init }
    }
}

/// What a passed descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Write end of standard input.
    Stdin,
    /// Read end of standard output.
    Stdout,
    /// Read end of standard error.
    Stderr,
    /// Terminal, both directions.
    Terminal,
    /// A socket.
    Socket,
}

/// Takes the first whole line off `buffer` and decodes it.
pub fn take<T: for<'a> Deserialize<'a>>(buffer: &mut Vec<u8>) -> Option<Result<T, serde_json::Error>> {
    let end = buffer.iter().position(|&byte| byte == b'\n')?;
    let line: Vec<u8> = buffer.drain(..=end).collect();
    Some(serde_json::from_slice(&line[..end]))
}

/// One message as a line.
pub fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(message).expect("messages hold strings and numbers, which always encode");
    bytes.push(b'\n');
    bytes
}
