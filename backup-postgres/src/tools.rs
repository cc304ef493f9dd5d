//! The vendor's own tools: `pg_dump` and `pg_restore`, here or in the server's container.

use crate::{
    address::{Host, Ssl},
    server::Server,
};
use backup_core::{
    CommandRunner, Content, Error, ErrorKind, HostRunner, Result, Secret, ToolCommand, output_of,
};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

const VERSION_LIMIT: Duration = Duration::from_secs(30);
/// For listing an archive of definitions, and the longest list: a line for each of some hundred thousand objects.
const LIST_LIMIT: Duration = Duration::from_secs(600);
const LONGEST_LIST: usize = 64 << 20;

/// The archive goes through the standard input into a file of the container, because parallel work needs one.
const INSIDE: &str = "f=$(mktemp) && trap 'rm -f \"$f\"' EXIT && cat >\"$f\" && pg_restore \"$@\" \"$f\"";
/// Before it comes the list of its items, up to an empty line: `read` takes no byte more than the line.
const LISTED_INSIDE: &str = "f=$(mktemp) && l=$(mktemp) && trap 'rm -f \"$f\" \"$l\"' EXIT && \
    while IFS= read -r item && [ -n \"$item\" ]; do echo \"$item\"; done >\"$l\" && cat >\"$f\" && pg_restore --use-list=\"$l\" \"$@\" \"$f\"";

/// `pg_dump` and `pg_restore` of one version, in one place, for one server.
#[derive(Clone)]
pub(crate) struct Tools {
    runner: Arc<dyn CommandRunner>,
    folder: Option<PathBuf>,
    in_container: bool,
    /// Their major version.
    pub(crate) major: u32,
    minor: u32,
    environment: Vec<(String, Secret)>,
}

impl Tools {
    /// Those of the server's own version: on this host, else in the server's container; else newer ones of this host. Of two of the same
    /// major version the older minor one comes second: servers keep what only their own tools know how to leave out.
    pub(crate) async fn find(server: &Server, (major, minor): (u32, u32)) -> Result<Self> {
        let mut found: Vec<Tools> = Vec::new();
        let is_enough = |tools: &Tools| tools.major == major && tools.minor >= minor;
        let of_container = server.inside.as_ref().filter(|_| server.config.tools.is_none());
        let of_container = of_container.map(|(facts, port)| Tools {
            runner: server.engine.runner(&facts.id),
            folder: None,
            in_container: true,
            major: 0,
            minor: 0,
            environment: environment(server, "127.0.0.1", *port, true),
        });
        let ask =
            || of_container.clone().map(|tools| AbortOnDropHandle::new(tokio::spawn(tools.versioned())));
        let mut asked = None;
        let folders = match &server.config.tools {
            // Those of this host do not reach the server.
            _ if matches!(server.endpoint.host, Host::Inside(_)) => Vec::new(),
            Some(folder) => vec![Some(folder.clone())],
            // Debian keeps several versions side by side; Red Hat has its own place for that.
            None => vec![
                Some(format!("/usr/lib/postgresql/{major}/bin").into()),
                Some(format!("/usr/pgsql-{major}/bin").into()),
                None,
            ],
        };
        for folder in folders {
            // Neither is quick to answer: the second is asked while the first makes up its mind.
            asked = if folder.is_none() { ask() } else { None };
            let tools = Tools {
                runner: Arc::new(HostRunner),
                folder,
                in_container: false,
                major: 0,
                minor: 0,
                environment: environment(server, &server.endpoint.host.text(), server.endpoint.port, false),
            };
            found.extend(tools.versioned().await?);
            if found.last().is_some_and(is_enough) {
                break;
            }
        }
        if !found.iter().any(is_enough)
            && let Some(asked) = asked.or_else(ask)
        {
            found.extend(
                asked.await.map_err(|e| Error::new(ErrorKind::Panicked, "find pg_dump", e.to_string()))??,
            );
        }
        let same = found.iter().enumerate().filter(|(_, tools)| tools.major == major);
        let exact = same.max_by_key(|(_, tools)| tools.minor).map(|(at, _)| at);
        let newer = found.iter().position(|tools| tools.major > major);
        if let Some(at) = exact.or(newer) {
            return Ok(found.swap_remove(at));
        }
        let older =
            found.first().map_or("none was found".to_owned(), |tools| format!("{} is here", tools.major));
        let message = format!("pg_dump {major} is needed, because the server is PostgreSQL {major}; {older}");
        Err(Error::new(ErrorKind::Usage, "find pg_dump", message).on(server.place()).hint(format!(
            "install postgresql-client-{major}, set `tools` to the folder that it is in, or name the server's container"
        )))
    }

    /// Those of the server's own major version alone, for a restore.
    pub(crate) async fn find_exactly(server: &Server, (major, minor): (u32, u32)) -> Result<Self> {
        let tools = Self::find(server, (major, minor)).await?;
        if tools.major == major {
            return Ok(tools);
        }
        let message = format!("pg_restore {major} is needed, as the server has, and {} is here", tools.major);
        let e = Error::new(ErrorKind::Usage, "find pg_restore", message).on(server.place());
        Err(e.hint(format!("install postgresql-client-{major}, or name the server's container")))
    }

    /// With the version they say they have; `None` if they are not there.
    async fn versioned(mut self) -> Result<Option<Self>> {
        let asked = self.call("pg_dump").arg("--version");
        let said = match output_of(&*self.runner, asked, 4096, VERSION_LIMIT).await {
            Ok(said) => String::from_utf8_lossy(&said).into_owned(),
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            // Not there, or not to be run: another one may be.
            Err(_) => return Ok(None),
        };
        // "pg_dump (PostgreSQL) 17.11 (Debian …)"
        let version = said.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
        let mut numbers = version.unwrap_or_default().split('.').map(|n| n.parse().unwrap_or(0));
        self.major = numbers.next().unwrap_or(0);
        self.minor = numbers.next().unwrap_or(0);
        Ok((self.major > 0).then_some(self))
    }

    fn call(&self, program: &str) -> ToolCommand {
        let path = match &self.folder {
            Some(folder) => folder.join(program).to_string_lossy().into_owned(),
            None => program.to_owned(),
        };
        ToolCommand { environment: self.environment.clone(), ..ToolCommand::new(path) }
    }

    /// The output of a `pg_dump` of this database.
    pub(crate) fn dump(&self, database: &str, arguments: &[&str]) -> Content {
        let call = self.call("pg_dump").args(arguments.iter().copied()).arg("--no-password");
        self.runner.run(call.env("PGDATABASE", Secret::new(database)))
    }

    /// Lets `pg_restore` put `archive`, as `pg_dump -Fc` wrote it, into a database: all that `arguments` choose, or only the items of
    /// these numbers. `jobs` above one need it as a file.
    pub(crate) async fn restore(
        &self,
        database: &str,
        archive: &Path,
        arguments: &[&str],
        items: Option<&[u32]>,
        (jobs, settings): (usize, &str),
    ) -> Result<()> {
        let database = database_argument(database);
        let mut words: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        words.extend(["--no-password".into(), "--exit-on-error".into(), format!("--dbname={database}")]);
        if jobs > 1 {
            words.push(format!("--jobs={jobs}"));
        }
        let (call, list_file) = self.reading(archive, words, items).await?;
        let mut said = self.runner.run(call.env("PGOPTIONS", Secret::new(settings)));
        while said.next().await?.is_some() {}
        drop(list_file);
        Ok(())
    }

    /// A call of `pg_restore` with these arguments on an archive, or on these items of it; and the file that lists them.
    async fn reading(
        &self,
        archive: &Path,
        mut words: Vec<String>,
        items: Option<&[u32]>,
    ) -> Result<(ToolCommand, Option<tempfile::NamedTempFile>)> {
        let list = items.map(|items| items.iter().map(|item| format!("{item};\n")).collect::<String>());
        if self.in_container {
            let script = if list.is_some() { LISTED_INSIDE } else { INSIDE };
            let mut call = self.call("sh").args(["-c", script, "sh"]).args(words);
            let list = list.map(|list| format!("{list}\n")).unwrap_or_default();
            call.input = Some(file_content(list, archive).await?);
            return Ok((call, None));
        }
        let mut list_file = None;
        if let Some(list) = list {
            let file = written(list).await?;
            words.push(format!("--use-list={}", file.path().to_string_lossy()));
            list_file = Some(file);
        }
        Ok((self.call("pg_restore").args(words).arg(archive.to_string_lossy()), list_file))
    }

    /// The statements that make these items of an archive.
    pub(crate) async fn script(&self, archive: &Path, items: &[u32], no_owner: bool) -> Result<String> {
        let mut words = vec!["--file=-".to_owned()];
        if no_owner {
            words.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
        }
        let (call, list_file) = self.reading(archive, words, Some(items)).await?;
        let said = output_of(&*self.runner, call, LONGEST_LIST, LIST_LIMIT).await?;
        drop(list_file);
        String::from_utf8(said.to_vec()).map_err(|_| {
            let message = "they are in another encoding than UTF-8, and not in ASCII";
            Error::new(ErrorKind::Unsupported, "read the definitions of single tables", message)
        })
    }

    /// What is in an archive of `pg_dump -Fc`, of a section of it, as `pg_restore --list` says it.
    pub(crate) async fn list(&self, archive: &Path, section: &str) -> Result<String> {
        let call = self.call("pg_restore").args(["--list", section]);
        let call = call.reading(file_content(String::new(), archive).await?);
        let said = output_of(&*self.runner, call, LONGEST_LIST, LIST_LIMIT).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// The same of an archive that flows, by one session.
    pub(crate) async fn restore_stream(
        &self,
        database: &str,
        archive: Content,
        arguments: &[&str],
        no_owner: bool,
        settings: &str,
    ) -> Result<()> {
        let mut call = self.call("pg_restore").args(["--no-password", "--exit-on-error"]);
        call = call.args(arguments.iter().copied()).env("PGOPTIONS", Secret::new(settings));
        call = call.arg(format!("--dbname={}", database_argument(database)));
        if no_owner {
            call = call.args(["--no-owner", "--no-privileges"]);
        }
        let mut said = self.runner.run(call.reading(archive));
        while said.next().await?.is_some() {}
        Ok(())
    }
}

/// As a connection string, in which nothing of the name means anything else.
fn database_argument(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// This text, and the file after it.
async fn file_content(text: String, file: &Path) -> Result<Content> {
    let file = file.to_owned();
    let read = move || {
        let mut all = text.into_bytes();
        std::fs::File::open(file)?.read_to_end(&mut all)?;
        Ok(all)
    };
    let read = tokio::task::spawn_blocking(read).await;
    let failed = |e: std::io::Error| Error::io(ErrorKind::Target, "read the definitions", e);
    read.map_err(|e| failed(std::io::Error::other(e)))?.map(Content::whole).map_err(failed)
}

async fn written(text: String) -> Result<tempfile::NamedTempFile> {
    let write = move || {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    let written = tokio::task::spawn_blocking(write).await;
    let failed = |e: std::io::Error| Error::io(ErrorKind::Target, "write a list of definitions", e);
    written.map_err(|e| failed(std::io::Error::other(e)))?.map_err(failed)
}

/// In the container the server is next door: no certificate is looked at.
fn environment(server: &Server, host: &str, port: u16, in_container: bool) -> Vec<(String, Secret)> {
    let endpoint = &server.endpoint;
    let ssl = if in_container { Ssl::default() } else { endpoint.ssl.clone() };
    let mut list = vec![
        ("PGHOST", host.to_owned()),
        ("PGPORT", port.to_string()),
        ("PGUSER", endpoint.user.clone()),
        ("PGAPPNAME", endpoint.application.clone()),
        ("PGSSLMODE", ssl.mode.name().to_owned()),
        ("PGCONNECT_TIMEOUT", "20".to_owned()),
        ("LC_ALL", "C".to_owned()),
    ];
    if let Some(file) = &ssl.root_certificate {
        list.push(("PGSSLROOTCERT", file.to_string_lossy().into_owned()));
    }
    let mut list: Vec<_> =
        list.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value))).collect();
    if let Some(password) = &endpoint.password {
        list.push(("PGPASSWORD".to_owned(), password.clone()));
    }
    list
}
