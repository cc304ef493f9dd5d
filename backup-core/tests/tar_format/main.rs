//! Tar archives against GNU tar, the tar crate, and damage. Needs root and the programs tar, setfattr, setfacl and
//! getfacl (packages tar, attr, acl); without them the tests fail and say so.

mod common;
mod damage;
mod hostile;
mod read_by_others;
mod round_trip;
mod written_by_gnu;
