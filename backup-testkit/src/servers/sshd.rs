//! OpenSSH's server with its SFTP, and an `ssh` that knows it: keys and known hosts of their own.

use super::process::{Place, Server, get, program};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// A server on a free port of 127.0.0.1.
pub struct Sshd(Server);

fn key(place: &Place, name: &str) -> Result<PathBuf, String> {
    let file = place.dir.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file);
    match command.status() {
        Ok(status) if status.success() => Ok(file),
        Ok(status) => Err(format!("ssh-keygen: {status}")),
        Err(e) => Err(format!("ssh-keygen: {e}")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

impl Sshd {
    /// Starts one.
    pub fn start() -> Result<Self, String> {
        let (sshd, ssh) = (program("sshd")?, program("ssh")?);
        let place = Place::new("sshd")?;
        let (host, user) = (key(&place, "host")?, key(&place, "user")?);
        let allowed = place.write("authorized_keys", &read(&user.with_extension("pub"))?)?;
        place.folder("files")?;
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {allowed}\nStrictModes no\n\
             PasswordAuthentication no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\nMaxStartups 200\nMaxSessions 200\n\
             PermitRootLogin prohibit-password\n",
            port = place.port,
            host = host.display(),
            allowed = allowed.display(),
        );
        let config = place.write("sshd_config", &config)?;
        let known = format!("[127.0.0.1]:{} {}", place.port, read(&host.with_extension("pub"))?);
        let known = place.write("known_hosts", &known)?;
        let client = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n",
            user.display(),
            known.display()
        );
        let client = place.write("ssh_config", &client)?;
        place.folder("bin")?;
        let script = format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", ssh.display(), client.display());
        let script = place.write("bin/ssh", &script)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let executable = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(script, executable).map_err(|e| e.to_string())?;
        }
        // As root it demands this folder, which an init system would make.
        let _ = std::fs::create_dir_all("/run/sshd");
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(config);
        Server::start(place, &mut command, |port| get(port, "/").is_some_and(|a| a.starts_with("SSH-")))
            .map(Sshd)
    }

    /// The folder that is served.
    pub fn files(&self) -> PathBuf {
        self.0.place.dir.join("files")
    }

    /// A folder of the server, as the command line takes it.
    pub fn url(&self, folder: &str) -> String {
        format!("sftp://127.0.0.1:{}{}/{folder}", self.0.place.port, self.files().display())
    }

    /// The PATH in which `ssh` knows this server.
    pub fn path(&self) -> OsString {
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.0.place.dir.join("bin")).chain(std::env::split_paths(&usual));
        std::env::join_paths(all).unwrap_or(usual)
    }
}
