//! The log: lines on standard error, so that standard output is left to what a user asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts the log. `verbosity` is klog's `--v`: 0 warnings and worse with our own notices, 2 information, 4 debugging, 6 everything.
/// `CORTEN_LOG` overrides it with a filter in `tracing`'s words.
pub fn start(verbosity: u8) {
    let default = match verbosity {
        0..=1 => "warn",
        2..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    let filter = std::env::var("CORTEN_LOG").unwrap_or_else(|_| default.to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        .init();
}
