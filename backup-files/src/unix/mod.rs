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

pub(crate) use std::os::fd::{BorrowedFd, OwnedFd};

pub(crate) use attributes::{Attributes, apply_attributes, set_mode, set_owner, set_times};
pub(crate) use beneath::open_parent_beneath;
pub(crate) use create::{
    create_file, exchange, make_device, make_dir, make_fifo, make_hard_link, make_symlink, rename,
    rename_noreplace,
};
pub(crate) use extents::data_extents;
pub(crate) use files::{
    DirNames, change_time, identity, open_dir, open_dir_at, open_file_at, open_for_reading, path_from_bytes,
    path_to_bytes, read_at, read_dir, read_link_at,
};
pub(crate) use filesystem::{
    Space, device_id, free_space, fsync_dir, is_mount_point, is_root, mounts_beneath, sync_filesystem, user,
};
pub(crate) use locks::{
    RangeLock, any_parked, close_database, close_parked, descriptors_on, locked_by_this_process, range_lock,
    take_parked,
};
pub(crate) use remove::remove_tree_beneath;
pub(crate) use stat::{Kind, Stat, birth_at, birth_time_at, stat_at, stat_fd};
pub(crate) use xattr::{Xattr, list_xattrs, list_xattrs_at, remove_acls, set_xattr, set_xattr_at};
