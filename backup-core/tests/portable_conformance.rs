//! The portable archive keeps what every archive promises: in every compression and plain, encrypted, in a folder and as one file.
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use async_trait::async_trait;
use backup_core::{
    Archive,
    encryption::{Identities, NewIdentity, Recipients},
    portable::{Compression, PortableArchive, PortableOptions},
};
use backup_testkit::conformance::archive::{ArchiveFixture, Fresh, RawFolder};
use std::sync::Arc;

struct Portable {
    compression: Compression,
    single: bool,
    encrypted: bool,
}

impl Portable {
    fn options(&self) -> PortableOptions {
        let mut options = PortableOptions::default().with_sizes(64 << 10, 128 << 10);
        options.compression = self.compression;
        if self.encrypted {
            let key = NewIdentity::generate();
            options.recipients = Recipients::keys([key.recipient]).unwrap();
            options.identities = Identities::default().key(key.secret);
        }
        options
    }
}

#[async_trait]
impl ArchiveFixture for Portable {
    async fn fresh(&self) -> Fresh {
        let dir = tempfile::tempdir().unwrap();
        let raw = RawFolder::new(dir.path());
        let (path, options, single) = (dir.path().to_owned(), self.options(), self.single);
        let open = move || -> Arc<dyn Archive> {
            let options = options.clone();
            Arc::new(if single {
                let age = if options.recipients.is_empty() { "" } else { ".age" };
                let name = format!("one.{}{age}", options.compression.extension());
                PortableArchive::file(path.join(name), options).unwrap()
            } else {
                PortableArchive::folder(&path, options).unwrap()
            })
        };
        Fresh::new(open).with_raw(raw).keeping(dir)
    }

    fn least_budget(&self) -> usize {
        4 * (64 << 10) + (128 << 10) + (1 << 20)
    }

    fn ranged(&self) -> bool {
        true
    }

    fn single(&self) -> bool {
        self.single
    }

    /// It would have to read what lies beside every backup.
    fn compares_ids(&self) -> bool {
        false
    }

    async fn unreachable(&self) -> Option<Arc<dyn Archive>> {
        let dir = tempfile::tempdir().unwrap();
        Some(Arc::new(PortableArchive::folder(dir.path().join("gone"), self.options()).unwrap()))
    }
}

mod compressed {
    backup_testkit::archive_conformance!(super::Portable {
        compression: super::Compression::Zstd,
        single: false,
        encrypted: false
    });
}

mod gzip {
    backup_testkit::archive_conformance!(super::Portable {
        compression: super::Compression::Gzip,
        single: false,
        encrypted: false
    });
}

mod xz {
    backup_testkit::archive_conformance!(super::Portable {
        compression: super::Compression::Xz,
        single: false,
        encrypted: false
    });
}

mod encrypted {
    backup_testkit::archive_conformance!(super::Portable {
        compression: super::Compression::Zstd,
        single: false,
        encrypted: true
    });
}

mod one_encrypted_file {
    backup_testkit::archive_conformance!(super::Portable {
        compression: super::Compression::None,
        single: true,
        encrypted: true
    });
}

mod plain {
    backup_testkit::archive_conformance!(super::Portable {
        compression: super::Compression::None,
        single: false,
        encrypted: false
    });
}

mod one_file {
    backup_testkit::archive_conformance!(super::Portable {
        compression: super::Compression::Zstd,
        single: true,
        encrypted: false
    });
}
