//! MinIO, with one bucket.

use super::process::{Place, Server, get, program};
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

    /// Its address and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.0.place.port)
    }

    /// A prefix of the bucket, as the command line takes it.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}?endpoint={}", Self::BUCKET, self.endpoint())
    }

    /// The folder that holds the objects, as MinIO keeps them.
    pub fn bucket(&self) -> PathBuf {
        self.0.place.dir.join("data").join(Self::BUCKET)
    }

    /// Uploads that were begun and neither completed nor given up, as they lie on the server's disk.
    pub fn uploads(&self) -> Vec<String> {
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
}
