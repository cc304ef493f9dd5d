//! Real servers as plain processes of this machine, for the tests of destinations. Each has a folder and a free port of its own,
//! and ends with whoever started it, however that ends.

mod azurite;
mod faulty;
mod minio;
mod objects;
mod process;
mod sshd;
mod webdav;

pub use azurite::Azurite;
pub use faulty::{Fault, Faulty, Seen};
pub use minio::Minio;
pub use objects::ObjectServer;
pub use sshd::Sshd;
pub use webdav::Webdav;

use crate::run::skip;

/// The server, or the end of the test: skipped with a word, or failed where `BACKUP_TEST_REQUIRE` names it.
pub fn or_skip<T>(name: &str, started: Result<T, String>) -> T {
    match started {
        Ok(server) => server,
        Err(why) => {
            let required = std::env::var("BACKUP_TEST_REQUIRE").unwrap_or_default();
            let needed = required.split(',').any(|word| word.trim() == name);
            assert!(!needed, "BACKUP_TEST_REQUIRE names {name}: {why}");
            skip(&format!("no {name}: {why}"))
        }
    }
}
