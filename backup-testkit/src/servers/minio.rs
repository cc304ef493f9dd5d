//! MinIO, with one bucket.

use super::{
    ObjectServer,
    process::{Place, Server, get, program},
};
use crate::Must;
use backup_core::{Secret, destination::RemoteSettings};
use std::{path::PathBuf, process::Command};

/// A MinIO server on a free port of 127.0.0.1.
pub struct Minio(Server);

impl Minio {
    /// Its access key.
    pub const KEY: &str = "backup-test-key";
    /// The secret of the key.
    pub const SECRET: &str = "backup-test-secret";
    /// Its bucket.
    pub const BUCKET: &str = "bucket";

    /// Starts one.
    pub fn start() -> Result<Self, String> {
        let place = Place::new("minio")?;
        let up = |port| get(port, "/minio/health/cluster").is_some_and(|a| a.contains(" 200 "));
        Self::start_in(place, &[], up)
    }

    /// Starts one that speaks TLS, with a certificate that only `ca_file` vouches for.
    ///
    /// `authority`: whether it is marked as that of an authority, as openssl does it of itself.
    pub fn start_tls(authority: bool) -> Result<Self, String> {
        let place = Place::new("minio")?;
        let certificates = place.folder("certs")?;
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=backup test", "-addext", "subjectAltName=IP:127.0.0.1"]);
        if !authority {
            openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        }
        openssl.arg("-keyout").arg(certificates.join("private.key"));
        openssl.arg("-out").arg(certificates.join("public.crt"));
        let made = openssl.output().map_err(|e| format!("openssl: {e}"))?;
        if !made.status.success() {
            return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let arguments = ["--certs-dir".to_owned(), certificates.display().to_string()];
        // It tells who does not speak TLS so.
        Self::start_in(place, &arguments, |port| get(port, "/").is_some_and(|a| a.contains(" 400 ")))
    }

    /// The certificate of one that speaks TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.0.place.dir.join("certs/public.crt")
    }

    fn start_in(place: Place, arguments: &[String], up: impl Fn(u16) -> bool) -> Result<Self, String> {
        let program = program("minio")?;
        let data = place.folder("data")?;
        // A folder of the data is a bucket.
        place.folder("data/bucket")?;
        let mut command = Command::new(program);
        command
            .args(["server", "--quiet", "--address", &format!("127.0.0.1:{}", place.port)])
            .args(arguments)
            .arg(&data)
            .env("HOME", &place.dir)
            .env("MINIO_ROOT_USER", Self::KEY)
            .env("MINIO_ROOT_PASSWORD", Self::SECRET);
        Server::start(place, &mut command, up).map(Minio)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.place.port)
    }

    /// The folder that holds the objects, as MinIO keeps them: each is a folder.
    fn bucket(&self) -> PathBuf {
        self.0.place.dir.join("data").join(Self::BUCKET)
    }
}

impl ObjectServer for Minio {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.0.place.port)
    }

    fn url_at(&self, endpoint: &str, prefix: &str) -> String {
        format!("s3://{}/{prefix}?endpoint={endpoint}", Self::BUCKET)
    }

    fn credentials(&self) -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", Self::KEY), ("AWS_SECRET_ACCESS_KEY", Self::SECRET)]
    }

    fn settings(&self) -> RemoteSettings {
        let mut settings = RemoteSettings::default();
        settings.access_key_id = Some(Self::KEY.to_owned());
        settings.secret_access_key = Some(Secret::new(Self::SECRET));
        settings
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let list = std::fs::read_dir(self.bucket().join(folder)).into_iter().flatten().flatten();
        list.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    fn remove(&self, folder: &str, name: &str) {
        std::fs::remove_dir_all(self.bucket().join(folder).join(name)).must("remove an object from the disk");
    }

    /// As they lie on the server's disk.
    fn uploads(&self) -> Vec<String> {
        let below = |folder: PathBuf| {
            let list = std::fs::read_dir(folder).into_iter().flatten().flatten();
            list.filter(|e| e.path().is_dir()).map(|e| e.path()).collect::<Vec<_>>()
        };
        below(self.0.place.dir.join("data/.minio.sys/multipart"))
            .into_iter()
            .flat_map(below)
            .map(|upload| upload.display().to_string())
            .collect()
    }

    fn sends_part(&self, line: &str, number: usize) -> bool {
        line.contains(&format!("partNumber={number}&"))
    }

    fn completes(&self, line: &str) -> bool {
        line.starts_with("POST") && line.contains("uploadId=")
    }

    fn lists(&self, line: &str) -> bool {
        line.contains("list-type=2")
    }
}
