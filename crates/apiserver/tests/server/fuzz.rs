//! The entry functions of the fuzz targets over their seeds, and over random changes of them for a bounded time, so that a
//! machine without a nightly toolchain tries them too. A failure prints the seed of the random numbers and the input.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[path = "../../../../fuzz/entries.rs"]
mod entries;

/// How long random changes are tried for each target, in seconds; `CORTEN_FUZZ_SECONDS` says otherwise.
const RANDOM: u64 = 2;
/// What no input of some kilobytes may take longer than, unoptimized and on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn bodies() {
    run("body", entries::body);
}

#[test]
fn patches() {
    run("patch", entries::patch);
}

#[test]
fn messages() {
    run("protobuf", entries::protobuf);
}

#[test]
fn selectors() {
    run("selector", entries::selector);
}

#[test]
fn queries() {
    run("query", entries::query);
}

#[test]
fn tokens() {
    run("token", entries::token);
}

/// The inputs in `fuzz/seeds`; what a fuzzer finds is put there too.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    files.map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs a target over the seeds, then over random changes of them.
fn run(name: &str, target: fn(&[u8])) {
    let seeds = seeds(name);
    for seed in &seeds {
        check(seed, target, 0);
    }
    let number = rand::rng().random();
    let mut random = StdRng::seed_from_u64(number);
    let seconds = std::env::var("CORTEN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(RANDOM);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let seed = &seeds[random.random_range(0..seeds.len())];
        let other = &seeds[random.random_range(0..seeds.len())];
        check(&changed(seed, other, &mut random), target, number);
    }
}

fn check(input: &[u8], target: fn(&[u8]), number: u64) {
    let started = Instant::now();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| target(input)));
    let shown = || format!("seed {number}: {:?}", String::from_utf8_lossy(input));
    assert!(outcome.is_ok(), "a panic, {}", shown());
    assert!(started.elapsed() < PATIENCE, "{:?}, {}", started.elapsed(), shown());
}

/// The bytes with a few changes: flipped, doubled, dropped and repeated parts, parts of another seed, and tokens that parsers
/// care about.
fn changed(bytes: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    const TOKENS: [&[u8]; 26] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"null",
        b"1e999",
        b"-0",
        b"0.5",
        b"99999999999999999999",
        b"\\u0000",
        b"\\ud800",
        b"\xff",
        b"\0",
        b"$patch",
        b"~1",
        b"*a",
        b"&a ",
        b"<<: ",
        b"%00",
        b"=",
        b"\x80\x80\x80\x08",
        b"- ",
        b"\n  ",
    ];
    /// Longer inputs say nothing that shorter ones do not.
    const LONGEST: usize = 64 << 10;
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..24)).min(bytes.len());
        match random.random_range(0..6) {
            0 => drop(bytes.splice(at..at, TOKENS[random.random_range(0..TOKENS.len())].iter().copied())),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].repeat(random.random_range(1..100));
                drop(bytes.splice(at..at, part));
            }
            3 if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                let to = (from + random.random_range(0..40)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ => {}
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
