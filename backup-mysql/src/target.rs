//! Databases that are restored: made anew beside the old ones, and put in their place.

mod accounts;
mod binary_log;
mod coming;
mod data_only;
mod dump;
mod in_place;
mod insert;
mod journal;
mod loaders;
mod local_infile;
mod outward;
mod place;
mod publish;
mod rehearse;
mod sink;

use crate::{
    MysqlConfig,
    catalog::{Database, OURS, Version, list},
    client::{Session, connect},
    definitions,
    error::ClientError,
    quote::{ident, qualified},
    server::Server,
    vendor,
};
use async_trait::async_trait;
use backup_core::{
    ContainerEngine, Context, Error, ErrorKind, Incoming, Refusal, Result, Severity, Sink, Survey, Target,
};
use coming::Coming;
use journal::Journal;
use place::Place;
use publish::Publisher;
use serde_json::Value;
use sink::{Abilities, Control, ShadowSink};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// The name by which a restore from MySQL to MariaDB, or back, is accepted.
const OTHER_VENDOR: &str = "other-vendor";
/// So many tables of a part are named in the plan.
const MOST_NAMED: usize = 10;
/// What the swap of a table takes, for the plan.
const SWAP: Duration = Duration::from_millis(4);

/// Databases of a server, as a target.
pub(crate) struct MysqlTarget {
    place: Place,
    control: Option<(Control, Version)>,
    /// The plan accepts what a server of the other vendor made.
    other_vendor: bool,
    /// The backup was made by the vendor's program.
    dumped: bool,
    /// The facts of the backup name tables without the backquotes in their names.
    bare_subjects: bool,
    sink: Option<Arc<ShadowSink>>,
}

impl MysqlTarget {
    pub(crate) fn new(component: &str, config: MysqlConfig, engine: Arc<dyn ContainerEngine>) -> Self {
        Self::at(Place::new(component, config, engine))
    }

    pub(crate) fn recover(undo: Value, engine: Arc<dyn ContainerEngine>) -> Result<Self> {
        Ok(Self::at(Place::from_undo(undo, engine)?))
    }

    fn at(place: Place) -> Self {
        MysqlTarget {
            place,
            control: None,
            other_vendor: false,
            dumped: false,
            bare_subjects: false,
            sink: None,
        }
    }

    /// The session that changes what is there: that of this process, or a new one if it is lost.
    async fn control(&mut self) -> Result<(Control, Version)> {
        if let Some((control, version)) = &self.control
            && control.lock().await.is_sound()
        {
            return Ok((control.clone(), version.clone()));
        }
        // The server must be done with the lost one first: the lock that it holds is waited for.
        self.control = None;
        let (session, version) = self.place.control().await?;
        let made = (Arc::new(Mutex::new(session)), version);
        self.control = Some(made.clone());
        Ok(made)
    }

    fn failed(&self, e: ClientError, operation: &'static str) -> Error {
        e.during(ErrorKind::Target, operation).on(self.place.config.place())
    }

    /// Lets the server take `LOAD DATA LOCAL`; says so if it does not.
    async fn allow_infile(&self, session: &mut Session, cx: &Context) -> Result<bool, ClientError> {
        let allowed = local_infile::allow(&self.place, session).await?;
        if !allowed {
            let text = "the server takes no LOAD DATA LOCAL, and this user may not switch local_infile on: rows are inserted, which is slower";
            cx.note(Severity::Note, &self.place.component, "", text);
        }
        Ok(allowed)
    }

    async fn fill(&mut self, cx: &Context) -> Result<Arc<dyn Sink>> {
        let (control, version) = self.control().await?;
        let infile = {
            let mut session = control.lock().await;
            let making = "make a schema beside the database";
            Journal::of(&self.place).make(&mut session).await.map_err(|e| self.failed(e, making))?;
            self.allow_infile(&mut session, cx).await.map_err(|e| self.failed(e, making))?
        };
        let server = self.place.server().await?;
        let (other_vendor, bare_subjects) = (self.other_vendor, self.bare_subjects);
        let of = Abilities { version, infile, other_vendor, bare_subjects };
        let sink = Arc::new(ShadowSink::new(self.place.clone(), server, of, control, cx));
        self.sink = Some(sink.clone());
        Ok(sink)
    }
}

impl fmt::Display for MysqlTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place.config.place())
    }
}

#[async_trait]
impl Target for MysqlTarget {
    async fn survey(&mut self, incoming: &Incoming, cx: &Context) -> Result<Survey> {
        self.other_vendor = incoming.accepts(OTHER_VENDOR);
        self.dumped = is_dumped(incoming);
        // No table may have one: then both are the same.
        self.bare_subjects = !incoming.component.proof.iter().any(|(subject, ..)| subject.contains('`'));
        let place = self.place.config.place();
        let server = self.place.server().await?;
        let coming = Coming::read(incoming, &self.place.config, cx).await?;
        let mut session = connect(&server.endpoint).await.map_err(|e| self.failed(e, "connect"))?;
        let surveyed = survey(&mut session, &self.place, &server, incoming, coming.as_ref()).await;
        session.close().await;
        let mut survey = surveyed.map_err(|e| e.on(place))?;
        if !incoming.selection.is_all() {
            survey.notes.extend(coming.and_then(|coming| coming.described()));
        }
        Ok(survey)
    }

    fn undo(&self) -> Value {
        self.place.to_undo()
    }

    async fn prepare(&mut self, cx: &Context) -> Result<Arc<dyn Sink>> {
        self.fill(cx).await
    }

    async fn rehearse(&mut self, cx: &Context) -> Result<Option<Arc<dyn Sink>>> {
        // A dump has the rows among its definitions.
        if self.dumped { Ok(None) } else { self.fill(cx).await.map(Some) }
    }

    async fn clear(&mut self, _cx: &Context) -> Result<()> {
        let sink = self.sink.as_ref();
        let sink =
            sink.ok_or_else(|| Error::contract("what is there is dropped before anything is prepared"))?;
        // Which databases that are is known when something comes for them: definitions, before all rows.
        sink.clear();
        Ok(())
    }

    async fn publish(&mut self, cx: &Context) -> Result<()> {
        let (control, version) = self.control().await?;
        let mut session = control.lock().await;
        let mut publisher = Publisher { place: &self.place, version: &version, session: &mut session, cx };
        publisher.put_settings_back().await?;
        publisher.prepare_previous().await?;
        publisher.publish().await
    }

    async fn check_revert(&mut self, cx: &Context) -> Result<()> {
        let (control, version) = self.control().await?;
        let mut session = control.lock().await;
        Publisher { place: &self.place, version: &version, session: &mut session, cx }.check_revert().await
    }

    async fn revert(&mut self, cx: &Context) -> Result<()> {
        let (control, version) = self.control().await?;
        let mut session = control.lock().await;
        Publisher { place: &self.place, version: &version, session: &mut session, cx }.revert().await
    }

    async fn settle(&mut self, cx: &Context) -> Result<()> {
        let (control, version) = self.control().await?;
        let mut session = control.lock().await;
        Publisher { place: &self.place, version: &version, session: &mut session, cx }.settle().await
    }
}

const PUBLISH_IN_PLACE: &str = "all that is there is dropped; when all is restored and proven, the tables take their places in one statement, and views, routines, \
    triggers and events are made after it";

async fn survey(
    session: &mut Session,
    place: &Place,
    at: &Server,
    incoming: &Incoming,
    coming: Option<&Coming>,
) -> Result<Survey> {
    let config = &place.config;
    let failed = |e: ClientError| e.during(ErrorKind::Target, "look at the target");
    let version = Version::of(session).await.map_err(failed)?;
    let names = &at.names;
    if let Some(bad) = names.iter().flatten().find(|n| !Database::is_for_backup(n)) {
        let message = format!("`{bad}` is a database of the server itself");
        return Err(Error::new(ErrorKind::Refused, "restore", message));
    }
    let every = MysqlConfig { exclude_tables: Vec::new(), ..config.clone() };
    let databases = list(session, names.as_deref(), &every, &version).await.map_err(failed)?;
    let (mut tables, mut others) = (0, 0);
    for d in &databases {
        tables += d.tables.len() + d.sequences.len();
        let one = crate::quote::text(&d.name);
        for sql in [
            format!("SELECT COUNT(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {one}"),
            format!("SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {one}"),
            format!("SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {one}"),
        ] {
            others += session.count_within(&sql, crate::client::ANSWER).await.map_err(failed)?;
        }
    }
    may_make_schemas(session, place).await?;
    may_use(session, names.as_deref().unwrap_or_default()).await?;
    let stays = config.merge || config.data_only;
    let of_outside =
        coming::foreign_keys_from_outside(session, coming, (&databases, names.as_deref()), stays).await;
    let looking = |e: ClientError| e.during(ErrorKind::Target, "look for foreign keys");
    let mut refusals = Vec::from_iter(of_outside.map_err(looking)?);
    let mut notes = notes(session, &version).await;
    let noted = incoming.note("server", "version");
    let of = noted.and_then(Version::parse);
    if of.is_none() {
        let said = noted.map_or_else(|| "nothing".to_owned(), |noted| format!("`{noted}`"));
        notes.push(format!(
            "of the server that it was made on the backup says {said}: whether this one is older, or another vendor's, is found out while it is restored"
        ));
    }
    refusals.extend(of.as_ref().and_then(|of| refusal(of, &version)));
    refusals.extend(not_apart(config, incoming));
    if of.as_ref().is_some_and(|of| of.mariadb != version.mariadb) {
        notes.extend(vendor::listed(incoming));
    }
    let of_users = accounts::survey(session, config, of.as_ref(), &version, incoming).await;
    match of_users.map_err(failed)? {
        Ok(said) => notes.extend(said),
        Err(refused) => refusals.push(refused),
    }
    let present = match (databases.len(), tables, others) {
        (0, ..) => "nothing".to_owned(),
        (_, 0, 0) => "an empty database".to_owned(),
        (n, t, o) => {
            let databases = if n == 1 { "a database".to_owned() } else { format!("{n} databases") };
            format!("{databases} with {t} tables and {o} views, routines and events")
        }
    };
    let server = if version.mariadb { "SELECT @@GLOBAL.server_uid" } else { "SELECT @@GLOBAL.server_uuid" };
    let server = session.value(server).await.ok().flatten().unwrap_or_default();
    let known: Vec<&str> = databases.iter().map(|d| d.name.as_str()).collect();
    let seconds = (SWAP * u32::try_from(tables * 2).unwrap_or(u32::MAX)).as_secs() + 1;
    if config.data_only {
        notes.push(
            "definitions stay as they are; the rows of tables that are in the backup are replaced".to_owned(),
        );
        refusals.extend(coming.and_then(|coming| coming.refuse_what_lacks(&databases, names.as_deref())));
    }
    let replaces = tables > 0 || others > 0;
    let in_place = config.in_place && replaces;
    if config.in_place && !incoming.selection.is_all() {
        refusals.push(in_place::part());
    }
    let mut survey = Survey {
        place: config.place(),
        replaces,
        present,
        identity: format!("{server} {}", known.join("+")),
        in_place,
        publish: if in_place {
            PUBLISH_IN_PLACE.to_owned()
        } else {
            format!(
                "sessions of the application are ended and all tables change places in one statement, about {seconds} s; views, routines, \
             triggers and events are dropped before it and made after it: in between they are missing"
            )
        },
        notes,
        refusals,
        merges: stays,
        ..Survey::default()
    };
    let freed = match names.as_deref() {
        Some(names) if in_place => in_place::size(session, names, &databases).await.map_err(failed)?,
        _ => 0,
    };
    let disks = (at, place.engine(), freed);
    let looked = binary_log::survey(session, config, &version, disks, incoming, &mut survey).await;
    looked.map_err(failed)?;
    Ok(survey)
}

fn is_dumped(incoming: &Incoming) -> bool {
    incoming.note("all", "method").is_some_and(|how| how.starts_with("dump"))
}

/// A file of the vendor's program has definitions and rows in one.
fn not_apart(config: &MysqlConfig, incoming: &Incoming) -> Option<Refusal> {
    (is_dumped(incoming) && (config.schema_only || config.data_only)).then(|| {
        let why =
            "definitions and rows are in one file of the vendor's program, and cannot be restored apart";
        Refusal::new(why, "restore all of it under another name, and take from there what is wanted")
    })
}

async fn notes(session: &mut Session, version: &Version) -> Vec<String> {
    let mut notes = Vec::new();
    let on = |value: Option<String>| matches!(value.as_deref(), Some("1" | "ON"));
    if on(session.value("SELECT @@GLOBAL.read_only").await.ok().flatten()) {
        notes.push(
            "the server is read-only: the restore fails unless this user may write nevertheless".to_owned(),
        );
    }
    if !version.mariadb && version.number.0 < 8 {
        notes.push("MySQL before 8.0 moves tables one by one: should the server crash in between, heal puts them back".to_owned());
    }
    notes
}

/// An error if this user has no right to what a restore makes beside the data. It is not there yet: who may fill it is told so, and
/// who may not is told that first. Nothing is written by an EXPLAIN.
async fn may_make_schemas(session: &mut Session, place: &Place) -> Result<()> {
    let table = qualified(&place.journal(), "state");
    match session.run(&format!("EXPLAIN INSERT INTO {table} VALUES (1)")).await {
        Err(e) if matches!(e.code(), Some(1044 | 1142)) => {}
        Err(e) if e.is_lost() => return Err(e.during(ErrorKind::Target, "look at the target")),
        _ => return Ok(()),
    }
    let user = session.value("SELECT CURRENT_USER()").await.ok().flatten().unwrap_or_default();
    let user = definitions::account(&user);
    let message =
        format!("this user may not make schemas whose names begin with {OURS}, beside the database");
    let hint = format!("GRANT ALL ON `\\_backup\\_%`.* TO {user} (as an administrator)");
    Err(Error::new(ErrorKind::Denied, "restore", message).hint(hint))
}

/// An error if this user has no right at all to one of the databases, be it there or not.
async fn may_use(session: &mut Session, names: &[String]) -> Result<()> {
    for name in names {
        match session.run(&format!("USE {}", ident(name))).await {
            Err(e) if e.is_lost() || e.code() == Some(1044) => {
                return Err(e.during(ErrorKind::Target, "restore"));
            }
            // It may be that it is not there yet.
            _ => {}
        }
    }
    Ok(())
}

/// Why a server cannot be given what another has made.
fn refusal(from: &Version, to: &Version) -> Option<Refusal> {
    if from.mariadb != to.mariadb {
        let why = format!(
            "the backup is of {from}, and this is {to}: they differ in types, collations and functions; what does not map fails, and nothing is changed then"
        );
        let hint = format!("restore it to a server of {}", if from.mariadb { "MariaDB" } else { "MySQL" });
        return Some(Refusal::new(why, hint).acceptable_as(OTHER_VENDOR));
    }
    (to.series() < from.series()).then(|| {
        let why = format!("the backup is of {from}, and {to} is older: it may not know what is in it");
        Refusal::new(why, "restore to the same version or a newer one")
    })
}
