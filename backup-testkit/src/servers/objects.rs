//! What the suites ask of a server that keeps objects, whatever language it speaks.

use backup_core::destination::RemoteSettings;

/// A server with one bucket or container.
pub trait ObjectServer: Send + Sync {
    /// Its address and port.
    fn address(&self) -> String;

    /// A prefix, as the command line takes it, at another endpoint (`http://address:port`) that leads to this server.
    fn url_at(&self, endpoint: &str, prefix: &str) -> String;

    /// Variables of the environment that open it.
    fn credentials(&self) -> [(&'static str, &'static str); 2];

    /// The same, for the library.
    fn settings(&self) -> RemoteSettings;

    /// Names of all objects in a folder, as they are kept.
    fn names(&self, folder: &str) -> Vec<String>;

    /// Removes an object behind everybody's back.
    fn remove(&self, folder: &str, name: &str);

    /// Uploads that were begun and neither completed nor given up.
    fn uploads(&self) -> Vec<String>;

    /// Whether this first line of a request is about a part of an upload, of this number.
    fn sends_part(&self, line: &str, number: usize) -> bool;

    /// Whether it is the completion of an upload.
    fn completes(&self, line: &str) -> bool;

    /// Whether it lists objects.
    fn lists(&self, line: &str) -> bool;

    /// A prefix, as the command line takes it.
    fn url(&self, prefix: &str) -> String {
        self.url_at(&format!("http://{}", self.address()), prefix)
    }
}
