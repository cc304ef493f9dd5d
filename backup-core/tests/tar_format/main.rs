//! Tar archives against GNU tar, the tar crate, and damage. Needs root and the programs tar, setfattr, setfacl and
//! getfacl (packages tar, attr, acl); without them the tests fail and say so.

// Programs, attributes and devices are those of Linux.
#![cfg(target_os = "linux")]
// The helpers of tests are tests, which clippy.toml does not see.
#![allow(clippy::unwrap_used)]

mod common;
mod damage;
mod hostile;
mod read_by_others;
mod round_trip;
mod written_by_gnu;
