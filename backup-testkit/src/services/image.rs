//! Which image a server is started from.

use super::container::{docker, on_services};
use crate::Must;

/// The image of a server: what `BACKUP_TEST_IMAGE_<NAME>_<TAG>` says (`BACKUP_TEST_IMAGE_POSTGRES_17`), else the official one if it is
/// here, else the one that `cargo xtask test` builds from packages. Images are not pulled here: a test must not wait for a
/// registry.
pub async fn image(name: &str, tag: &str) -> (String, String) {
    let variable = format!("BACKUP_TEST_IMAGE_{name}_{tag}").to_uppercase().replace(['.', '-'], "_");
    if let Ok(chosen) = std::env::var(&variable) {
        let (name, tag) = chosen.rsplit_once(':').must(&format!("{variable} is NAME:TAG"));
        return (name.to_owned(), tag.to_owned());
    }
    let official = format!("{name}:{tag}");
    let here = on_services(async move { Ok(docker().await?.inspect_image(&official).await.is_ok()) }).await;
    match here {
        Ok(true) => (name.to_owned(), tag.to_owned()),
        _ => (format!("backup-test/{name}"), tag.to_owned()),
    }
}
