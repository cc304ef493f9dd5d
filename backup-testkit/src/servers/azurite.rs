//! Azurite, Microsoft's emulator of Azure Storage, with one container.

use super::{
    ObjectServer,
    process::{Place, Server, get, path_of_scripts, program, request},
};
use crate::Must;
use backup_core::{Secret, destination::RemoteSettings};
use std::process::Command;

/// A blob service on a free port of 127.0.0.1.
pub struct Azurite(Server);

impl Azurite {
    /// Its storage account.
    pub const ACCOUNT: &str = "backuptest";
    /// The key of the account.
    pub const ACCOUNT_KEY: &str = "dGhlIGtleSBvZiBhbiBlbXVsYXRvciBpcyBubyBzZWNyZXQ=";
    /// A token, signed with the key, that allows everything in the account.
    pub const SAS_TOKEN: &str = "sv=2021-12-02&ss=b&srt=sco&sp=rwdlac&se=2099-12-31T00%3A00%3A00Z\
                                 &sig=i%2BzysgJaDgKILwOXnavwztsTSpvRF%2B396xkZzmCy%2BLQ%3D";
    /// Its container.
    pub const CONTAINER: &str = "container";

    /// Starts one.
    pub fn start() -> Result<Self, String> {
        let place = Place::new("azurite")?;
        let data = place.folder("data")?;
        let mut command = Command::new(program("azurite-blob")?);
        command
            .args(["--silent", "--disableTelemetry", "--disableProductStyleUrl", "--blobHost", "127.0.0.1"])
            .args(["--blobPort", &place.port.to_string(), "--location"])
            .arg(data)
            .env("PATH", path_of_scripts())
            .env("AZURITE_ACCOUNTS", format!("{}:{}", Self::ACCOUNT, Self::ACCOUNT_KEY));
        let up = |port| get(port, "/").is_some_and(|a| a.starts_with("HTTP/1."));
        let azurite = Azurite(Server::start(place, &mut command, up)?);
        match azurite.ask("PUT", "?restype=container") {
            Ok((201, _)) => Ok(azurite),
            Ok((status, body)) => Err(format!("no container can be made: {status} {body}")),
            Err(e) => Err(format!("no container can be made: {e}")),
        }
    }

    /// Asks something of the container: status and body.
    fn ask(&self, method: &str, path_and_query: &str) -> std::io::Result<(u16, String)> {
        let (account, container) = (Self::ACCOUNT, Self::CONTAINER);
        let more = if path_and_query.contains('?') { '&' } else { '?' };
        let path = format!("/{account}/{container}{path_and_query}{more}{}", Self::SAS_TOKEN);
        request(self.0.place.port, method, &path)
    }

    /// Keys of the blobs whose keys begin so.
    fn keys(&self, prefix: &str, include: &str) -> Vec<String> {
        let path = format!("?restype=container&comp=list&prefix={}{include}", prefix.replace(' ', "%20"));
        let (status, body) = self.ask("GET", &path).must("list the container");
        assert_eq!(status, 200, "{body}");
        let names = body.split("<Name>").skip(1).filter_map(|rest| rest.split("</Name>").next());
        names.map(str::to_owned).collect()
    }
}

impl ObjectServer for Azurite {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.0.place.port)
    }

    fn url_at(&self, endpoint: &str, prefix: &str) -> String {
        format!("az://{}/{prefix}?endpoint={endpoint}/{}", Self::CONTAINER, Self::ACCOUNT)
    }

    fn credentials(&self) -> [(&'static str, &'static str); 2] {
        [("AZURE_STORAGE_ACCOUNT", Self::ACCOUNT), ("AZURE_STORAGE_KEY", Self::ACCOUNT_KEY)]
    }

    fn settings(&self) -> RemoteSettings {
        let mut settings = RemoteSettings::default();
        settings.account_key = Some(Secret::new(Self::ACCOUNT_KEY));
        settings
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let prefix = format!("{folder}/");
        self.keys(&prefix, "").iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    fn remove(&self, folder: &str, name: &str) {
        let (status, body) = self.ask("DELETE", &format!("/{folder}/{name}")).must("remove a blob");
        assert_eq!(status, 202, "{body}");
    }

    /// Names under which blocks lie and no blob.
    fn uploads(&self) -> Vec<String> {
        let whole = self.keys("", "");
        let mut all = self.keys("", "&include=uncommittedblobs");
        // What was written between the two listings is no upload.
        all.retain(|key| {
            let path = format!("/{}?comp=blocklist&blocklisttype=uncommitted", key.replace(' ', "%20"));
            !whole.contains(key) && self.ask("GET", &path).must("ask for blocks").1.contains("<Block>")
        });
        all
    }

    /// The number is the end of a block's name, which is in base64.
    fn sends_part(&self, line: &str, number: usize) -> bool {
        const DIGITS: [&str; 4] = ["MDAwMDAw", "MDAwMDAx", "MDAwMDAy", "MDAwMDAz"];
        line.contains("comp=block&") && DIGITS.get(number).is_some_and(|digits| line.contains(digits))
    }

    fn completes(&self, line: &str) -> bool {
        line.starts_with("PUT") && line.contains("comp=blocklist")
    }

    fn lists(&self, line: &str) -> bool {
        line.contains("comp=list")
    }
}
