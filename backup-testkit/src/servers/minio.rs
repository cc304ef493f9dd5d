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
        let program = program("minio")?;
        let place = Place::new("minio")?;
        let data = place.folder("data")?;
        // A folder of the data is a bucket.
        place.folder("data/bucket")?;
        let mut command = Command::new(program);
        command
            .args(["server", "--quiet", "--address", &format!("127.0.0.1:{}", place.port)])
            .arg(&data)
            .env("HOME", &place.dir)
            .env("MINIO_ROOT_USER", Self::KEY)
            .env("MINIO_ROOT_PASSWORD", Self::SECRET);
        let up = |port| get(port, "/minio/health/cluster").is_some_and(|a| a.contains(" 200 "));
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
