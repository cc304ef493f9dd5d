//! The tar format as backups use it: pax headers over ustar blocks, written so that GNU tar restores everything
//! (sub-second times, extended attributes, ACLs, sparse files, hard links, names of any bytes), and read without
//! trusting a byte.
//!
//! Nothing here opens files: [`Member::encode`] appends headers to a buffer, [`Member::decode`] reads them from a
//! slice (for ranged reads), [`TarReader`] pulls members out of any [`std::io::Read`]. After a header come
//! [`Member::size`] bytes of data, padded with zeros to [`padded`] bytes; two blocks of zeros end an archive.

mod acl;
mod assemble;
mod error;
mod header;
mod member;
mod number;
mod pax;
mod read;
mod sparse;
mod write;

pub use acl::{AclTextError, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, acl_from_text, acl_to_text};
pub use error::{TarError, TarFault};
pub use member::{BLOCK, Extent, Member, MemberKind, is_safe_path, padded};
pub use read::{Limits, TarReader};
pub use sparse::{SparseMapDecoder, align_extents, decode_sparse_map, encode_sparse_map};
