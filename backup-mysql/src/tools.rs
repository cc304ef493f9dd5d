//! The vendor's own programs: what dumps and the client, in the server's container or on this host. What they know is asked of their
//! `--help`: both vendors have a `mysqldump`.

use crate::{
    address::{Host, Ssl, SslMode},
    catalog::Version,
    server::Server,
};
use backup_core::{
    CommandRunner, ContainerEngine, Content, Error, ErrorKind, HostRunner, Result, Secret, ToolCommand,
    output_of,
};
use std::{sync::Arc, time::Duration};

const HELP_LIMIT: Duration = Duration::from_secs(30);
const LONGEST_HELP: usize = 1 << 20;
/// The end of what both vendors' programs write.
const END_MARKER: &str = "-- Dump completed";

/// A program of one of the vendors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Dump,
    Client,
}

impl Program {
    fn names(self, version: &Version) -> &'static [&'static str] {
        match (self, version.mariadb) {
            (Program::Dump, true) => &["mariadb-dump", "mysqldump"],
            (Program::Dump, false) => &["mysqldump"],
            (Program::Client, true) => &["mariadb", "mysql"],
            (Program::Client, false) => &["mysql"],
        }
    }
}

/// A program that was found, with how it logs in.
pub(crate) struct Tool {
    runner: Arc<dyn CommandRunner>,
    name: &'static str,
    help: String,
    login: Vec<String>,
    password: Option<Secret>,
}

impl Tool {
    /// That of the server's vendor: in the server's container, else on this host.
    pub(crate) async fn find(
        program: Program,
        server: &Server,
        version: &Version,
        engine: &dyn ContainerEngine,
    ) -> Result<Self> {
        let mut places: Vec<(Arc<dyn CommandRunner>, Vec<String>)> = Vec::new();
        if let Some((facts, port)) = server.inside(engine).await {
            // Next door: no certificate is looked at.
            let login =
                login(&server.endpoint.user, &Host::Name("127.0.0.1".into(), port), &Ssl::default(), version);
            places.push((engine.runner(&facts.id), login));
        }
        let endpoint = &server.endpoint;
        let login = login(&endpoint.user, &endpoint.host, &endpoint.ssl, version);
        places.push((Arc::new(HostRunner), login));
        for (runner, login) in places {
            for name in program.names(version) {
                let asked = ToolCommand::new(*name).args(["--no-defaults", "--help"]);
                let help = match output_of(&*runner, asked, LONGEST_HELP, HELP_LIMIT).await {
                    Ok(help) => String::from_utf8_lossy(&help).into_owned(),
                    Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                    // Not there, or not to be run: another one may be.
                    Err(_) => continue,
                };
                if help.contains("MariaDB") == version.mariadb {
                    let password = endpoint.password.clone();
                    return Ok(Tool { runner, name, help, login, password });
                }
            }
        }
        let names = program.names(version).join(" or ");
        let message =
            format!("`{names}` of the server's vendor is neither in its container nor on this host");
        Err(Error::new(ErrorKind::NotFound, "find the vendor's program", message)
            .hint("install it, or name the server's container; `method = \"native\"` needs none"))
    }

    /// Name, version and place, for people.
    pub(crate) fn described(&self) -> String {
        let version = self.help.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
        // "mariadb-dump  Ver 10.19 Distrib 11.8.6-MariaDB, for debian-linux-gnu (x86_64)", some with "from" before the version
        let version =
            version.split_once("Ver ").or_else(|| version.split_once("from ")).map_or("", |(_, v)| v);
        format!("{} {} on {}", self.name, version.trim_end_matches(')'), self.runner)
    }

    /// Whether it knows an option.
    pub(crate) fn knows(&self, option: &str) -> bool {
        self.help.contains(option)
    }

    fn call(&self, words: Vec<String>) -> ToolCommand {
        let mut call = ToolCommand::new(self.name).arg("--no-defaults").args(self.login.clone()).args(words);
        if let Some(password) = &self.password {
            call = call.env("MYSQL_PWD", password.clone());
        }
        call
    }

    /// What it writes of a database. It ends well only with exit status zero and the end marker.
    pub(crate) fn dump(&self, database: &str, options: Vec<String>) -> Content {
        let mut call = self.call(options);
        // After it nothing is an option.
        call = call.args(["--", database]);
        call.end_marker = Some(END_MARKER.into());
        self.runner.run(call)
    }

    /// Runs the statements of a content in a database; before them this one, if any.
    pub(crate) async fn feed(&self, database: &str, before: Option<&str>, statements: Content) -> Result<()> {
        let words = [
            "--batch".to_owned(),
            "--binary-mode".to_owned(),
            "--default-character-set=utf8mb4".to_owned(),
            "--max-allowed-packet=1G".to_owned(),
            format!("--database={database}"),
        ];
        let words = words.into_iter().chain(before.map(|sql| format!("--init-command={sql}")));
        let mut said = self.runner.run(self.call(words.collect()).reading(statements));
        while said.next().await?.is_some() {}
        Ok(())
    }
}

/// Never the password: every user of the host sees arguments.
fn login(user: &str, host: &Host, ssl: &Ssl, version: &Version) -> Vec<String> {
    let mut words = vec![format!("--user={user}")];
    match host {
        Host::Name(name, port) => {
            words.extend([format!("--host={name}"), format!("--port={port}"), "--protocol=tcp".to_owned()]);
        }
        Host::Socket(path) => {
            words.extend([format!("--socket={}", path.display()), "--protocol=socket".to_owned()])
        }
    }
    if matches!(host, Host::Socket(_)) {
        return words;
    }
    match version.mariadb {
        true => words.extend(
            match ssl.mode {
                SslMode::Disabled => ["--skip-ssl"].as_slice(),
                SslMode::Preferred => &["--disable-ssl-verify-server-cert"],
                SslMode::Required => &["--ssl", "--disable-ssl-verify-server-cert"],
                SslMode::VerifyCa | SslMode::VerifyIdentity => &["--ssl", "--ssl-verify-server-cert"],
            }
            .iter()
            .map(|s| (*s).to_owned()),
        ),
        false => words.push(format!("--ssl-mode={}", ssl.mode)),
    }
    if let Some(file) = &ssl.ca {
        words.push(format!("--ssl-ca={}", file.display()));
    }
    if let Some((certificate, key)) = &ssl.identity {
        words.extend([
            format!("--ssl-cert={}", certificate.display()),
            format!("--ssl-key={}", key.display()),
        ]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vendors_program_is_told_how_to_log_in_in_its_own_words() {
        let host = Host::Name("h".into(), 3307);
        let required = Ssl { mode: SslMode::Required, ..Ssl::default() };
        let version = |mariadb| Version { mariadb, number: (11, 8, 6) };
        let words = |ssl: &Ssl, mariadb| login("u", &host, ssl, &version(mariadb)).join(" ");
        let place = "--user=u --host=h --port=3307 --protocol=tcp";
        assert_eq!(words(&required, true), format!("{place} --ssl --disable-ssl-verify-server-cert"));
        assert_eq!(words(&required, false), format!("{place} --ssl-mode=REQUIRED"));
        let socket = login("u", &Host::Socket("/s".into()), &required, &version(true));
        assert_eq!(socket.join(" "), "--user=u --socket=/s --protocol=socket");
    }
}
