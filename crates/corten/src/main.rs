//! The corten binary.
fn main() {}
