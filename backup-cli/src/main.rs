//! The program backup: arguments, settings, rendering; everything else is the library.

fn main() {}
