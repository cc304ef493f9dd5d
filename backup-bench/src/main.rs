//! Races against the tools people use today.

fn main() {}
