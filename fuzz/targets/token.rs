//! Fuzzes [`entries::token`].
#![no_main]

#[path = "../entries.rs"]
#[allow(dead_code, reason = "every target runs one of them")]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::token(data));
