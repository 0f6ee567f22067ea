//! A shim as a program of its own, for tests and for whoever embeds the runtime without being one binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    corten_runtime::embedded::shim::main(std::env::args_os().skip(1))
}
