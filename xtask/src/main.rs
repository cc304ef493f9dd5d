//! cargo xtask: test, soak, bench.

fn main() {}
