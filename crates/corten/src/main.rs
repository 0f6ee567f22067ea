//! The corten binary: a whole cluster (`up`), or one part of it, and the tools around it.
//!
//! `main` decides which program this process is and nothing else; each program is a module.
#![forbid(unsafe_code)]

mod cli;
mod components;
mod down;
mod flags;
mod host;
mod image;
mod logging;
mod node;
mod paths;
mod running;
mod up;

use std::process::ExitCode;

/// A third of the API server's time went to glibc's allocator: documents are trees of small allocations, made and dropped by
/// different threads for every write.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    corten_sys::allocator::return_free_memory_soon();
    let mut args = std::env::args_os().skip(1);
    let first = args.next();
    // The shim of a pod is this binary too. It must stay tiny and single-threaded: nothing else may run before it.
    let shim = first.as_deref() == Some("runtime-shim".as_ref());
    allow_huge_pages(shim);
    if shim {
        return corten_runtime::embedded::shim::main(args);
    }
    match cli::run(first, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("corten: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Transparent huge pages would double the memory of an idle cluster: a heap of small documents touches a little of every
/// page. Containers inherit the switch from their shim and shall have them. A kernel without huge pages has nothing to switch.
fn allow_huge_pages(allowed: bool) {
    let _ = nix::sys::prctl::set_thp_disable(!allowed);
}
