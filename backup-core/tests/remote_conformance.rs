//! Archives on servers keep what every archive promises: MinIO, Azurite, OpenSSH's SFTP, lighttpd's WebDAV.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use async_trait::async_trait;
use backup_core::{
    Archive, Secret,
    destination::{RemotePlace, RemoteSettings},
    portable::{PortableArchive, PortableOptions},
};
use backup_testkit::{
    conformance::archive::{ArchiveFixture, Fresh, RawFolder},
    run_again_with,
    servers::{Azurite, Minio, ObjectServer, Sshd, Webdav, or_skip},
};
use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

#[derive(Clone, Copy)]
enum Kind {
    S3,
    Azure,
    Sftp,
    Webdav,
}

struct Remote {
    kind: Kind,
}

/// A place of its own on the server: its URL and, if the server keeps files as they are, its folder.
fn place(kind: Kind) -> (String, Option<PathBuf>) {
    static MINIO: OnceLock<Result<Minio, String>> = OnceLock::new();
    static AZURITE: OnceLock<Result<Azurite, String>> = OnceLock::new();
    static SSHD: OnceLock<Result<Sshd, String>> = OnceLock::new();
    static WEBDAV: OnceLock<Result<Webdav, String>> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let made = |files: PathBuf| {
        let path = files.join(&folder);
        std::fs::create_dir_all(&path).unwrap();
        Some(path)
    };
    match kind {
        Kind::S3 => {
            let server = or_skip("minio", MINIO.get_or_init(Minio::start).as_ref().map_err(String::clone));
            (server.url(&folder), None)
        }
        Kind::Azure => {
            let azurite = AZURITE.get_or_init(Azurite::start);
            (or_skip("azurite", azurite.as_ref().map_err(String::clone)).url(&folder), None)
        }
        Kind::Webdav => {
            let server = or_skip("webdav", WEBDAV.get_or_init(Webdav::start).as_ref().map_err(String::clone));
            (server.url(&folder), made(server.files()))
        }
        Kind::Sftp => {
            if let (Ok(url), Ok(files)) = (std::env::var("TEST_SFTP_URL"), std::env::var("TEST_SFTP_FILES")) {
                return (format!("{url}{folder}"), made(files.into()));
            }
            let server = or_skip("sshd", SSHD.get_or_init(Sshd::start).as_ref().map_err(String::clone));
            // The `ssh` that knows this server must be the first in PATH.
            run_again_with(&[
                ("PATH", server.path()),
                ("TEST_SFTP_URL", server.url("").into()),
                ("TEST_SFTP_FILES", server.files().into()),
            ])
        }
    }
}

fn open(url: &str) -> Arc<dyn Archive> {
    let place = RemotePlace::parse(url).unwrap().unwrap();
    let mut settings = RemoteSettings::default();
    if place.is_s3() {
        settings.access_key_id = Some(Minio::KEY.to_owned());
        settings.secret_access_key = Some(Secret::new(Minio::SECRET));
    } else if place.is_azure() {
        // By the key everything else is shown.
        settings.sas_token = Some(Secret::new(Azurite::SAS_TOKEN));
    } else if place.has_password() {
        settings.password = Some(Secret::new(Webdav::PASSWORD));
    }
    let options = PortableOptions::default().with_sizes(64 << 10, 128 << 10);
    Arc::new(PortableArchive::remote(place.configured(settings).unwrap(), options).unwrap())
}

#[async_trait]
impl ArchiveFixture for Remote {
    async fn fresh(&self) -> Fresh {
        let (url, folder) = place(self.kind);
        let fresh = Fresh::new(move || open(&url));
        match folder {
            Some(folder) => fresh.with_raw(RawFolder::new(folder)),
            None => fresh,
        }
    }

    fn least_budget(&self) -> usize {
        4 * (64 << 10) + (128 << 10) + (1 << 20)
    }

    fn ranged(&self) -> bool {
        true
    }

    /// It would have to read what lies beside every backup.
    fn compares_ids(&self) -> bool {
        false
    }

    async fn unreachable(&self) -> Option<Arc<dyn Archive>> {
        let (url, _) = place(self.kind);
        Some(open(&match self.kind {
            Kind::S3 => url.replace("s3://bucket/", "s3://no-such-bucket/"),
            Kind::Azure => url.replace("az://container/", "az://no-such-container/"),
            Kind::Sftp | Kind::Webdav => format!("{url}/gone"),
        }))
    }
}

mod s3 {
    backup_testkit::archive_conformance!(super::Remote { kind: super::Kind::S3 });
}

mod azure {
    backup_testkit::archive_conformance!(super::Remote { kind: super::Kind::Azure });
}

mod sftp {
    backup_testkit::archive_conformance!(super::Remote { kind: super::Kind::Sftp });
}

mod webdav {
    backup_testkit::archive_conformance!(super::Remote { kind: super::Kind::Webdav });
}

/// Processes `ssh` that this one has started and that are not over.
#[cfg(target_os = "linux")]
fn connections() -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = all.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    let is_ours = |stat: &String| {
        let Some((name, rest)) = stat.rsplit_once(") ") else { return false };
        let mut words = rest.split(' ');
        let (state, parent) = (words.next(), words.next());
        name.ends_with("(ssh") && state != Some("Z") && parent == Some(&std::process::id().to_string())
    };
    stats.filter(is_ours).count()
}

#[cfg(target_os = "linux")]
#[test]
fn connections_of_sftp_end_with_the_archive_with_the_runtime_and_with_a_login_that_is_given_up() {
    use backup_core::{Context, ErrorKind};
    use std::time::{Duration, Instant};

    let none_is_left = |when: &str| {
        let begin = Instant::now();
        while connections() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(10), "{when}: {} are left", connections());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    backup_testkit::run("connections end", async {
        let (url, _) = place(Kind::Sftp);
        let cx = Context::default();
        let archive = open(&url);
        assert!(archive.list(&cx).await.unwrap().is_empty());
        assert!(connections() > 0);
        drop(archive);
        none_is_left("the archive was dropped");

        // In the middle of the login, at any time.
        for millis in [1, 5, 20, 60, 100, 150] {
            let archive = open(&url);
            let _ = tokio::time::timeout(Duration::from_millis(millis), archive.list(&cx)).await;
        }
        none_is_left("a login was given up");

        let archive = open(&url);
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(archive.list(&Context::default())).unwrap();
            assert!(connections() > 0);
            runtime.shutdown_background();
            archive
        });
        let archive = other.join().unwrap();
        none_is_left("the runtime was dropped");
        // It works with another one.
        archive.list(&cx).await.unwrap();
        let e = open(&format!("{url}/gone")).list(&cx).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    });
}
