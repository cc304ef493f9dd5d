//! All that only Unix has, through rustix. `other.rs` has the same names for the rest of the world.
//!
//! Nothing here follows a symbolic link unless it says so. What is restored goes through descriptors of folders
//! opened beneath the root ([`open_parent_beneath`]): a link planted in the tree meanwhile leads nowhere.
#![allow(dead_code, unused_imports, reason = "the walker and the restorer use these")]

mod attributes;
mod beneath;
mod create;
mod extents;
mod files;
mod filesystem;
mod locks;
mod remove;
mod stat;
mod xattr;

#[cfg(test)]
mod tests;

pub(crate) use files::{
    DirNames, change_time, identity, open_dir, open_dir_at, open_file_at, open_for_reading, path_from_bytes,
    path_to_bytes, read_at, read_dir, read_link_at,
};
pub(crate) use locks::{RangeLock, locked_by_this_process, range_lock};
