//! What is coming of each database of a backup, and the names under which they are restored.

use super::{part, put::MOST_STATEMENTS};
use crate::{
    PostgresConfig,
    globals::GLOBALS,
    layout,
    server::Server,
    toc::{self, Item},
};
use backup_core::{Context, Error, Fact, Incoming, Refusal, Result, Selection};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Whether the backup was made by pg_dump alone.
pub(super) fn is_dumped(incoming: &Incoming) -> bool {
    let by_dump = |fact: &Fact| matches!(fact, Fact::Note(how) if how.starts_with("dump"));
    incoming.component.proof.iter().any(|(_, measure, fact)| measure == "method" && by_dump(fact))
}

/// A database of a backup, and what of it is selected.
pub(super) struct Coming<'a> {
    incoming: &'a Incoming,
    /// Its name, if it is one of several; each of those has a folder.
    pub(super) name: Option<String>,
    pub(super) folder: Option<String>,
    pub(super) selection: Selection,
    /// Its definitions, where not all of it is selected. A dump has them in itself.
    pub(super) items: Option<Vec<Item>>,
}

impl<'a> Coming<'a> {
    /// The one that the backup is of, or all of those of which something is selected.
    pub(super) async fn all(incoming: &'a Incoming, cx: &Context) -> Result<Vec<Self>> {
        let Some(names) = names(incoming, cx).await? else {
            return Ok(vec![Self::of(incoming, None, cx).await?]);
        };
        let mut all = Vec::new();
        for name in names {
            all.extend(Some(Self::of(incoming, Some(name), cx).await?).filter(Self::is_selected));
        }
        Ok(all)
    }

    async fn of(incoming: &'a Incoming, name: Option<String>, cx: &Context) -> Result<Self> {
        let folder = name.as_deref().map(layout::folder_of);
        let selection = match (folder.clone(), incoming.selection.clone()) {
            (None, selection) => selection,
            (Some(_), Selection::All) => Selection::All,
            (Some(folder), selection) => Selection::Exactly(Arc::new(move |path: &[u8]| {
                selection.covers(&[folder.as_bytes(), b"/", path].concat())
            })),
        };
        let mut coming = Coming { incoming, name, folder, selection, items: None };
        if !coming.selection.is_all() {
            let schema = coming.read(layout::SCHEMA, cx).await?;
            coming.items = schema.map(|schema| toc::read(&schema)).transpose()?;
            coming.complete_needs();
        }
        Ok(coming)
    }

    /// Adds what the definitions do not say of themselves: what constraints need by their indexes.
    fn complete_needs(&mut self) {
        let subject = layout::path_in(self.folder.as_deref(), layout::KEYS_NEED);
        let items = self.items.iter_mut().flatten();
        let by_oid: BTreeMap<u32, u32> = items.map(|item| (item.oid, item.number)).collect();
        for item in self.items.iter_mut().flatten().filter(|item| item.kind == "CONSTRAINT") {
            let Some(needs) = self.incoming.note(&subject, &item.oid.to_string()) else { continue };
            let needs = needs.split(' ').filter_map(|oid| by_oid.get(&oid.parse().ok()?));
            item.needs.extend(needs);
        }
    }

    /// Whether there is more than what goes along with every part of every database.
    fn is_selected(&self) -> bool {
        let covers = |path: &str| self.selection.covers(path.as_bytes());
        covers(layout::GUIDE)
            || self.name.as_ref().is_some_and(|name| covers(&layout::dump_path(name)))
            || self.items.iter().flatten().any(|item| super::part::is_wanted(item, &self.selection))
    }

    /// Reads a small entry of it.
    async fn read(&self, path: &str, cx: &Context) -> Result<Option<Bytes>> {
        let path = layout::path_in(self.folder.as_deref(), path);
        self.incoming.read(path.as_bytes(), MOST_STATEMENTS, cx).await
    }

    /// All of its tables, as `schema.table`.
    pub(super) fn tables(&self) -> BTreeSet<String> {
        let begins = layout::path_in(self.folder.as_deref(), "table ");
        let subjects = self.incoming.component.proof.iter().map(|(subject, _, _)| subject);
        subjects.filter_map(|subject| subject.strip_prefix(&*begins)).map(str::to_owned).collect()
    }

    /// Whether the rows of a table of it were left out of the backup. One with partitions has none of its own.
    fn lacks_rows(&self, table: &Item, tables: &BTreeSet<String>) -> bool {
        !tables.contains(&shown(table))
            && !part::has_partitions(table, self.items.as_deref().unwrap_or_default())
    }

    /// Tables that are selected, and whose rows were left out of the backup: schemas and names.
    pub(super) fn without_rows(&self) -> Vec<(String, String)> {
        let tables = self.tables();
        let wanted = self.items.iter().flatten().filter(|item| part::is_wanted(item, &self.selection));
        let lacking = wanted.filter(|item| self.lacks_rows(item, &tables));
        lacking.map(|item| (item.schema.clone().unwrap_or_default(), item.name.clone())).collect()
    }

    /// A note of the plan, with the database that it is about.
    pub(super) fn note(&self, text: &str) -> String {
        layout::path_in(self.folder.as_deref(), text)
    }
}

/// Tables that come with those that were selected, for people.
#[derive(Debug, Default)]
pub(super) struct Heirs {
    with_rows: Vec<String>,
    /// Of these the backup has none.
    without_rows: Vec<String>,
}

impl Heirs {
    /// What the plan says of them.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let all = [
            ("with their rows", &self.with_rows),
            ("without rows, of which the backup has none", &self.without_rows),
        ];
        let all = all.into_iter().filter(|(_, names)| !names.is_empty());
        all.map(|(how, names)| {
            format!(
                "these come, too, {how}, as partitions or children of what is selected: {}",
                names.join(", ")
            )
        })
    }
}

/// `schema.table`.
fn shown(table: &Item) -> String {
    format!("{}.{}", table.schema.as_deref().unwrap_or_default(), table.name)
}

/// What is selected, with the partitions and children of selected tables, and these; and with roles and tablespaces, if they are asked for:
/// what is restored may be theirs.
pub(super) async fn widened(
    incoming: &Incoming,
    config: &PostgresConfig,
    cx: &Context,
) -> Result<(Selection, Heirs)> {
    let (schema_only, globals) = (config.schema_only, config.globals == Some(true));
    let (mut folders, mut heirs) = (Vec::new(), Heirs::default());
    for coming in Coming::all(incoming, cx).await? {
        let tables = coming.tables();
        for table in part::heirs(&coming.selection, coming.items.as_deref().unwrap_or_default()) {
            folders.push(layout::path_in(coming.folder.as_deref(), &part::folder(table)).into_bytes());
            let list = match coming.lacks_rows(table, &tables) {
                true => &mut heirs.without_rows,
                false => &mut heirs.with_rows,
            };
            list.push(coming.note(&shown(table)));
        }
    }
    let selection = incoming.selection.clone();
    if folders.is_empty() && !globals {
        return Ok((selection, heirs));
    }
    let is_theirs = move |path: &[u8]| {
        let inside = |folder: &Vec<u8>| {
            path.strip_prefix(&**folder).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
        };
        folders.iter().any(inside) && !(schema_only && layout::is_data(path))
    };
    let widened =
        move |path: &[u8]| selection.covers(path) || is_theirs(path) || globals && path == GLOBALS.as_bytes();
    Ok((Selection::Exactly(Arc::new(widened)), heirs))
}

/// The names of several databases; `None`: the backup is of one.
async fn names(incoming: &Incoming, cx: &Context) -> Result<Option<Vec<String>>> {
    if incoming.component.proof.get("database", "properties").is_some() {
        return Ok(None);
    }
    let wrong = |e| Error::damaged("read the names of the databases", e).on(layout::DATABASES);
    let read = incoming.read(layout::DATABASES.as_bytes(), MOST_STATEMENTS, cx).await?;
    read.map(|json| serde_json::from_slice(&json).map_err(wrong)).transpose()
}

/// The name that each is given; or why there is none.
pub(super) fn named(
    config: &PostgresConfig,
    server: &Server,
    coming: &[Coming<'_>],
) -> std::result::Result<Vec<String>, Refusal> {
    let own = || coming.iter().filter_map(|c| c.name.clone()).collect::<Vec<String>>();
    if let [Coming { name: None, .. }] = coming {
        return match &*config.databases {
            [] => match server.database_is_said() {
                Ok(()) => Ok(vec![server.database.clone()]),
                Err(e) => {
                    let hint = "name it: --to COMPONENT=container://NAME/DATABASE";
                    Err(Refusal::new(e.message(), hint))
                }
            },
            [one] if !config.means_all() => Ok(vec![one.clone()]),
            several => {
                let why = format!(
                    "the backup is of a single database, and does not say which of these is meant: {}",
                    several.join(", ")
                );
                Err(Refusal::new(why, "name the one: --to COMPONENT=postgres://HOST/DATABASE"))
            }
        };
    }
    if coming.is_empty() {
        let hint = "name a database (--only COMPONENT/DATABASE) or a table of it (--only COMPONENT/DATABASE/SCHEMA.TABLE)";
        return Err(Refusal::new("nothing of any database is selected", hint));
    }
    let listed = match (config.named_database(), &*config.databases) {
        (_, [_, ..]) if config.means_all() => return Ok(own()),
        (None, []) => return Ok(own()),
        (Some(one), []) => vec![one],
        (_, listed) => listed.to_vec(),
    };
    if let ([one], [_]) = (&*listed, coming) {
        return Ok(vec![one.clone()]);
    }
    let strange: Vec<String> = own().into_iter().filter(|name| !listed.contains(name)).collect();
    if strange.is_empty() {
        return Ok(own());
    }
    let why = format!(
        "the backup holds several databases, and the place that is named has none for these: {}",
        strange.join(", ")
    );
    let hint = "name the server alone (--to COMPONENT=postgres://HOST/), and each keeps its name; or choose one (--only COMPONENT/DATABASE)";
    Err(Refusal::new(why, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::NoContainers;
    use serde_json::json;

    async fn names_for(config: serde_json::Value, of_backup: &[&str]) -> std::result::Result<String, String> {
        let config: PostgresConfig = serde_json::from_value(config).unwrap();
        let engine: Arc<dyn backup_core::ContainerEngine> = Arc::new(NoContainers);
        let server = Server::resolve(&config, "db", &engine).await.unwrap();
        let source = backup_testkit::memory::MemorySource::new("db");
        let incoming = backup_testkit::memory::incoming(&source).await;
        let coming = |name: Option<&str>| Coming {
            incoming: &incoming,
            name: name.map(str::to_owned),
            folder: name.map(str::to_owned),
            selection: Selection::All,
            items: None,
        };
        let coming: Vec<Coming<'_>> = match of_backup {
            ["single"] => vec![coming(None)],
            several => several.iter().map(|name| coming(Some(name))).collect(),
        };
        named(&config, &server, &coming).map(|names| names.join(" ")).map_err(|refused| refused.why)
    }

    #[tokio::test]
    async fn several_databases_keep_their_names_and_one_takes_that_of_its_place() {
        let url = |url: &str| json!({ "url": url });
        let all = json!({ "url": "postgres://u@h", "databases": ["*"] });
        let two = json!({ "url": "postgres://u@h/x", "databases": ["a", "b"] });
        let cases: [(serde_json::Value, &[&str], Option<&str>); 13] = [
            (url("postgres://u@h/x"), &["single"], Some("x")),
            (url("postgres://u@h/x"), &["a"], Some("x")),
            (url("postgres://u@h/x"), &["a", "b"], None),
            (url("postgres://u@h/"), &["a", "b"], Some("a b")),
            (url("postgres://u@h/"), &["single"], Some("u")),
            (all.clone(), &["a", "b"], Some("a b")),
            (all, &["single"], None),
            (two.clone(), &["a", "b"], Some("a b")),
            (two.clone(), &["b"], Some("b")),
            (two.clone(), &["a", "c"], None),
            (two.clone(), &["single"], None),
            (two, &[], None),
            (json!({ "url": "postgres://u@h", "databases": ["x"] }), &["a"], Some("x")),
        ];
        for (config, of_backup, expected) in cases {
            let found = names_for(config.clone(), of_backup).await;
            assert_eq!(found.as_deref().ok(), expected, "{config} {of_backup:?}: {found:?}");
        }
    }
}
