//! lighttpd with its WebDAV.

use super::process::{Place, Server, get, program};
use std::{path::PathBuf, process::Command};

/// A server on a free port of 127.0.0.1.
pub struct Webdav(Server);

impl Webdav {
    /// Its user.
    pub const USER: &str = "me";
    /// The password of the user.
    pub const PASSWORD: &str = "p'a\\s\"s $x";

    /// Starts one.
    pub fn start() -> Result<Self, String> {
        let lighttpd = program("lighttpd")?;
        let place = Place::new("webdav")?;
        let files = place.folder("files")?;
        let temporary = place.folder("temporary")?;
        let users = place.write("users", &format!("{}:{}\n", Self::USER, Self::PASSWORD))?;
        let config = format!(
            "server.bind = \"127.0.0.1\"\nserver.port = {port}\nserver.document-root = \"{files}\"\n\
             server.upload-dirs = ( \"{temporary}\" )\nserver.modules = ( \"mod_auth\", \"mod_authn_file\", \"mod_webdav\" )\n\
             server.stream-request-body = 1\nserver.stat-cache-engine = \"disable\"\n\
             webdav.activate = \"enable\"\nwebdav.is-readonly = \"disable\"\n\
             auth.backend = \"plain\"\nauth.backend.plain.userfile = \"{users}\"\n\
             auth.require = ( \"/\" => ( \"method\" => \"basic\", \"realm\" => \"test\", \"require\" => \"valid-user\" ) )\n",
            port = place.port,
            files = files.display(),
            temporary = temporary.display(),
            users = users.display(),
        );
        let config = place.write("lighttpd.conf", &config)?;
        let mut command = Command::new(lighttpd);
        command.args(["-D", "-f"]).arg(config);
        Server::start(place, &mut command, |port| get(port, "/").is_some_and(|a| a.contains(" 401 ")))
            .map(Webdav)
    }

    /// The folder that is served.
    pub fn files(&self) -> PathBuf {
        self.0.place.dir.join("files")
    }

    /// A folder of the server, as the command line takes it.
    pub fn url(&self, folder: &str) -> String {
        format!("webdav://{}@127.0.0.1:{}/{folder}", Self::USER, self.0.place.port)
    }
}
