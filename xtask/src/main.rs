//! What a developer runs: `cargo xtask test`.

fn main() {}
