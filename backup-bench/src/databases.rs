//! Databases into archives and back, against their vendors' tools.
//!
//! What is the same for every server is here; what a server is called, filled and raced by is in a file of its own, behind
//! [`Store`].

mod dump;
mod mariadb;
mod postgres;
mod restore;
mod rows;
mod server;

use crate::archive::{Track, conclude};
use crate::args::{DatabaseOptions, DatabaseServer};
use crate::failure::{Doing, Failure, Result};
use crate::machine::{self, Machine};
use crate::measure::{Job, Sample};
use crate::program;
use crate::report::Report;
use crate::verdict::{Check, Limit, Spread};
use server::Server;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The database that is raced on, and one of a tenth of it.
const DATABASE: &str = "race";
const TENTH: &str = "tenth";
/// Module and component of our side.
const MODULE: &str = "race";
const COMPONENT: &str = "db";

/// MB (10⁶ bytes).
const MEMORY: f64 = 150.0;
/// "The same" with ten times the data: within the noise of an allocator and of a few threads.
const SAME_MEMORY: f64 = 1.10;

/// A server that can be raced on: started, with nothing in it.
trait Store {
    /// As reports name it, with its version.
    fn title(&self) -> String;

    fn server(&self) -> &Server;

    /// The source as it is configured.
    fn source(&self, database: &str) -> String;

    /// Makes a database with the four tables.
    fn fill(&self, database: &str, megabytes: u64) -> Result<()>;

    /// Drops it, with whatever restores have left beside it.
    fn drop_database(&self, database: &str) -> Result<()>;

    /// Lets the server write what it has put off: that is no work of the side that comes next.
    fn come_to_rest(&self) -> Result<()>;

    /// Text that is the same for the same contents.
    fn fingerprint(&self, database: &str) -> Result<String>;

    /// Those who dump [`DATABASE`].
    fn dumps(&self) -> &'static [Rival];

    /// Those who restore it from what one of `dumps` has written; it is not there.
    fn restores(&self) -> &'static [Rival];

    /// Of the best rival's wall time: bar and aim, for the dump and for the restore.
    fn limits(&self) -> [(f64, f64); 2];
}

/// Another way to do it. A bash script: `$1` is the container, `$2` the file or folder, with the same name in the container.
struct Rival {
    name: &'static str,
    file: &'static str,
    script: &'static str,
}

/// Runs the whole race; returns the exit code.
pub(crate) fn race(options: &DatabaseOptions) -> Result<u8> {
    let common = &options.common;
    common.checked()?;
    if common.full || common.formats {
        return Err(Failure::Usage("this race has neither --full nor --formats".to_owned()));
    }
    let all = [DatabaseServer::Postgres, DatabaseServer::Mariadb];
    let all: Vec<_> = all.into_iter().filter(|kind| options.only.is_none_or(|only| only == *kind)).collect();
    let mut needed = vec!["zstd", "docker", "bash"];
    if all.contains(&DatabaseServer::Mariadb) {
        needed.extend(["mydumper", "myloader"]);
    }
    let mut tools = machine::tools(&needed)?;
    tools.remove(2);
    let must_be_quiet = !common.loaded && !common.quick;
    if must_be_quiet {
        machine::refuse_if_busy()?;
    }
    let program = match &common.program {
        Some(file) => file.canonicalize().doing(file.display())?,
        None => program::build()?,
    };
    let megabytes = (options.size / common.scale()).max(1);
    let data = std::path::absolute(common.data()).doing("the data folder")?;
    // Tables and indexes twice, as many dumps as there are sides, and the log of the server.
    let needs = megabytes * 8_000_000 + 5_000_000_000;
    let mut track = Track::prepare(common.rounds, program, &data, needs)?;
    let mut report = Report::heading("databases", &Machine::look(&data)?, &tools, &machine::load()?);
    let mut checks = Vec::new();
    for kind in all {
        let store: Box<dyn Store> = match kind {
            DatabaseServer::Postgres => Box::new(postgres::Postgres::start(&track.work)?),
            DatabaseServer::Mariadb => Box::new(mariadb::Mariadb::start(&track.work)?),
        };
        contest(&mut track, &*store, megabytes, must_be_quiet, &mut report, &mut checks)?;
    }
    let name = match options.only {
        None => "databases".to_owned(),
        Some(DatabaseServer::Postgres) => "databases-postgres".to_owned(),
        Some(DatabaseServer::Mariadb) => "databases-mariadb".to_owned(),
    };
    conclude(&name, common, &track, report, &checks)
}

fn contest(
    track: &mut Track,
    store: &dyn Store,
    megabytes: u64,
    must_be_quiet: bool,
    report: &mut Report,
    checks: &mut Vec<Check>,
) -> Result<()> {
    eprintln!("{}: filled with {megabytes} MB", store.title());
    store.fill(DATABASE, megabytes)?;
    store.fill(TENTH, megabytes.div_ceil(10))?;
    let ours = Ours::new(track, store)?;
    if must_be_quiet {
        store.come_to_rest()?;
        machine::wait_until_quiet()?;
    }
    report.line(format!(
        "{}: four tables, {megabytes} MB as text. The server is in a container, with the rivals' programs; its time counts \
         for each side. The memory is that of the largest process outside of it. No side reads its dump back.",
        store.title()
    ));
    let fingerprint = store.fingerprint(DATABASE)?;
    let dump = dump::race(track, store, &ours, report, checks)?;
    let restore = restore::race(track, store, &ours, &fingerprint, report, checks)?;
    for (act, (one, tenth)) in [("dump", dump), ("restore", restore)] {
        let what = format!("{}: {act}: peak RSS", store.title());
        checks.push(Check::bar(&what, Spread::one(one as f64 / 1e6), " MB", Limit::Below(MEMORY)));
        let ratio = Spread::one(one as f64 / tenth as f64);
        checks.push(Check::bar(format!("{what}, with / a tenth"), ratio, "", Limit::AtMost(SAME_MEMORY)));
    }
    Ok(())
}

/// Our side: a configuration for each of the two databases.
struct Ours {
    folder: PathBuf,
}

impl Ours {
    fn new(track: &Track, store: &dyn Store) -> Result<Self> {
        // Names of archives are the same for each server.
        let folder = track.work.join(store.server().name());
        fs::create_dir_all(&folder).doing(folder.display())?;
        for database in [DATABASE, TENTH] {
            let file = Self::config(&folder, database);
            let source = store.source(database);
            let text = format!("[modules.{MODULE}.sources.{COMPONENT}]\n{source}\n");
            fs::write(&file, text).doing(file.display())?;
        }
        Ok(Ours { folder })
    }

    fn config(folder: &Path, database: &str) -> PathBuf {
        folder.join(format!("{database}.toml"))
    }

    fn archive(&self, database: &str) -> PathBuf {
        self.folder.join(format!("{database}.tar.zst"))
    }

    fn line(&self, database: &str, words: &[&str]) -> Vec<OsString> {
        let mut line: Vec<OsString> = words.iter().map(Into::into).collect();
        line.extend(["--quiet".into(), "--config".into(), Self::config(&self.folder, database).into()]);
        line
    }

    fn create(&self, track: &mut Track, database: &str) -> Job {
        // The rivals read nothing back either.
        let mut line = self.line(database, &["create", "-m", MODULE, "--read-back", "none", "--to"]);
        line.insert(6, self.archive(database).into());
        job(track, &line)
    }

    fn restore(&self, track: &mut Track, database: &str) -> Job {
        let mut line = self.line(database, &["restore", "latest", "--settle", "--from"]);
        line.insert(4, self.archive(database).into());
        job(track, &line)
    }
}

fn job(track: &mut Track, line: &[OsString]) -> Job {
    let line: Vec<_> = line.iter().map(OsString::as_os_str).collect();
    track.ours(&line)
}

impl Rival {
    fn job(&self, store: &dyn Store, work: &Path) -> Job {
        Job::script(self.script, &[Path::new(store.server().name()), &work.join(self.file)])
    }
}

/// Ratios to every rival, and the judged one to that whose median is best.
fn compare(
    what: &str,
    (bar, aim): (f64, f64),
    rivals: &[Rival],
    samples: &[Vec<Sample>],
    checks: &mut Vec<Check>,
) {
    use crate::archive::{cpu, wall};
    let Some((ours, theirs)) = samples.split_first() else { return };
    let median = |samples: &[Sample]| Spread::of(samples.iter().map(wall)).median;
    let best = (0..theirs.len()).min_by(|a, b| median(&theirs[*a]).total_cmp(&median(&theirs[*b])));
    for (i, (rival, samples)) in rivals.iter().zip(theirs).enumerate() {
        let ratio = |figure: fn(&Sample) -> f64| Spread::of_ratios(ours, samples, figure);
        let is_best = if best == Some(i) { " (the best)" } else { "" };
        let name = format!("{what}: wall / {}{is_best}", rival.name);
        checks.push(match best == Some(i) {
            true => Check::bar(name, ratio(wall), "", Limit::AtMost(bar)).aim(Limit::AtMost(aim)),
            false => Check::shown(name, ratio(wall), ""),
        });
        checks.push(Check::shown(format!("{what}: CPU / {}", rival.name), ratio(cpu), ""));
    }
}

fn peak(samples: &[Sample]) -> u64 {
    samples.iter().map(|s| s.peak_rss).max().unwrap_or(0)
}

/// As COPY and LOAD DATA take it.
fn escaped(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.push(other),
        }
    }
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
}
