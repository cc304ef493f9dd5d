//! Tables that are left out altogether, and with them all that cannot be without them.

use super::{database::Database, watch::GaveWay};
use crate::{
    catalog,
    quote::qualified,
    toc::{self, Item},
};
use backup_core::{Content, Error, ErrorKind, Facts, Part, Result};
use bytes::Bytes;
use futures::stream;
use std::collections::{BTreeMap, BTreeSet};

/// What holds rows, or shows them.
const RELATIONS: [&str; 4] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"];
/// What belongs to something and is told with it.
const PARTS: [&str; 21] = [
    "ACL",
    "COMMENT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "MATERIALIZED VIEW DATA",
    "POLICY",
    "PUBLICATION TABLE",
    "ROW SECURITY",
    "RULE",
    "SECURITY LABEL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS",
    "TABLE ATTACH",
    "TABLE DATA",
    "TRIGGER",
];

/// Patterns as they are configured, and which of them have named a table of any database.
pub(super) struct Patterns {
    key: &'static str,
    list: Vec<(String, bool)>,
}

impl Patterns {
    pub(super) fn new(key: &'static str, list: &[String]) -> Self {
        Patterns { key, list: list.iter().map(|pattern| (pattern.clone(), false)).collect() }
    }

    pub(super) fn are_none(&self) -> bool {
        self.list.is_empty()
    }

    /// Those that name a table of this database, as they are in it: of several databases `database/schema.table` means one.
    pub(super) fn about(&mut self, database: &Database, names_any: impl Fn(&str) -> bool) -> Vec<String> {
        let among = database.folder.as_ref().map(|_| database.server.database.as_str());
        let named = self.list.iter_mut().filter_map(|(pattern, has_named)| {
            let here = here(pattern, among).filter(|here| names_any(here))?;
            *has_named = true;
            Some(here.to_owned())
        });
        named.collect()
    }

    /// A pattern that names nothing is a mistake: what was to be left out would be in the backup.
    pub(super) fn all_named(&self) -> Result<()> {
        match self.list.iter().find(|(_, has_named)| !has_named) {
            None => Ok(()),
            Some((pattern, _)) => Err(names_nothing(self.key, pattern)),
        }
    }
}

/// What a pattern means in this one of several databases; `None`: it is about another.
fn here<'a>(pattern: &'a str, among: Option<&str>) -> Option<&'a str> {
    match (among, pattern.split_once('/')) {
        (Some(name), Some((database, rest))) => matches(database, name).then_some(rest),
        _ => Some(pattern),
    }
}

fn names_nothing(key: &str, pattern: &str) -> Error {
    let message = format!("no table matches this pattern of {key}");
    Error::new(ErrorKind::NotFound, "leave out the tables", message).on(pattern)
}

/// `*` stands for any characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(i, _)| i).chain([rest.len()]).any(|i| matches(tail, &rest[i..]))
        }),
    }
}

/// Whether a pattern names what holds rows or shows them.
pub(super) fn names_any(pattern: &str, items: &[Item]) -> bool {
    items.iter().any(|item| RELATIONS.contains(&&*item.kind) && matches(pattern, &shown(item)))
}

/// What is left out.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    patterns: Vec<String>,
    /// `schema.table` of all tables, those that go with others, too.
    pub(super) tables: BTreeSet<String>,
    /// How statements begin that are about what is left out.
    statements: BTreeSet<String>,
    /// What goes with what was named, for people.
    pub(super) also: Vec<String>,
}

impl LeftOut {
    /// What these patterns mean among these items.
    pub(super) fn of(patterns: &[String], items: &[Item]) -> Result<Self> {
        let removed = removed(patterns, items)?;
        let mut out = LeftOut { patterns: patterns.to_vec(), ..LeftOut::default() };
        let stays = items.iter().filter(|item| item.kind == "TABLE" && !removed.contains(&item.number));
        let stays: BTreeMap<u32, &Item> = stays.map(|item| (item.number, item)).collect();
        for item in items.iter().filter(|item| removed.contains(&item.number)) {
            let schema = item.schema.as_deref().unwrap_or_default();
            let name = qualified(schema, &item.name);
            match &*item.kind {
                "TABLE" => drop(out.tables.insert(shown(item))),
                "SEQUENCE" => drop(out.statements.insert(catalog::setting_of(&name))),
                "MATERIALIZED VIEW" => drop(out.statements.insert(catalog::refresh_of(&name))),
                _ => {}
            }
            let named = RELATIONS.contains(&&*item.kind) && patterns.iter().any(|p| matches(p, &shown(item)));
            // `table name`: what is a part of a table that stays has the table's name before its own.
            let is_of =
                |table: &&Item| item.name.strip_prefix(&*table.name).is_some_and(|n| n.starts_with(' '));
            let of_others = item.needs.iter().filter_map(|need| stays.get(need)).any(is_of);
            if !named && (!PARTS.contains(&&*item.kind) || of_others) {
                out.also.push(item.display());
            }
        }
        Ok(out)
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Statements without those about what is left out.
    pub(super) fn kept(&self, sql: &str) -> String {
        let about = |line: &&str| self.statements.iter().any(|begin| line.starts_with(begin.as_str()));
        sql.split_inclusive('\n').filter(|line| !about(line)).collect()
    }

    /// An archive without what is left out.
    pub(super) fn filtered(&self, archive: &[u8]) -> Result<Vec<u8>> {
        toc::without(archive, |items| removed(&self.patterns, items))
    }

    /// The same of one that flows: its table of contents, which comes first, is held until it is whole.
    pub(super) fn filter(&self, archive: Content, gave_way: GaveWay) -> Content {
        let state = Filtering { left_out: self.clone(), archive, gave_way, passed: false };
        Content::stream(stream::unfold(Some(state), |state| async {
            let mut state = state?;
            match state.next().await {
                Ok(Some(bytes)) => Some((Ok(Part::Bytes(bytes)), Some(state))),
                Ok(None) => Some((Ok(Part::End(Facts::new())), None)),
                Err(e) => Some((Err(e), None)),
            }
        }))
    }
}

struct Filtering {
    left_out: LeftOut,
    archive: Content,
    gave_way: GaveWay,
    passed: bool,
}

impl Filtering {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.passed {
            return self.archive.next().await;
        }
        let mut held = toc::Held::default();
        while let Some(bytes) = self.archive.next().await? {
            if let Some(e) = self.gave_way.why() {
                return Err(e);
            }
            if held.take(&bytes) {
                break;
            }
        }
        if held.is_too_long() {
            return Err(too_long());
        }
        self.passed = true;
        Ok(Some(self.left_out.filtered(&held.into_bytes())?.into()))
    }
}

/// All of an archive of definitions.
pub(super) async fn held(mut archive: Content) -> Result<Vec<u8>> {
    let mut held = Vec::new();
    while let Some(bytes) = archive.next().await? {
        if held.len() + bytes.len() > toc::LONGEST {
            return Err(too_long());
        }
        held.extend_from_slice(&bytes);
    }
    Ok(held)
}

fn too_long() -> Error {
    let message = "the definitions have more than 256 MiB: tables cannot be left out of them";
    Error::new(ErrorKind::Unsupported, "leave out the tables", message)
}

fn shown(item: &Item) -> String {
    format!("{}.{}", item.schema.as_deref().unwrap_or_default(), item.name)
}

/// Numbers of all items that go: those that are named, and whatever needs one that goes.
fn removed(patterns: &[String], items: &[Item]) -> Result<BTreeSet<u32>> {
    let mut removed = BTreeSet::new();
    for pattern in patterns {
        let named = items.iter().filter(|item| RELATIONS.contains(&&*item.kind));
        let named: Vec<u32> =
            named.filter(|item| matches(pattern, &shown(item))).map(|item| item.number).collect();
        if named.is_empty() {
            return Err(names_nothing("exclude_tables", pattern));
        }
        removed.extend(named);
    }
    let tables = items.iter().filter(|item| item.kind == "TABLE").map(|item| (shown(item), item.number));
    let tables: BTreeMap<String, u32> = tables.collect();
    loop {
        let before = removed.len();
        for item in items {
            if !item.needs.iter().any(|need| removed.contains(need)) {
                continue;
            }
            // A partition, which has the name of what attaches it, goes with its parent, but no parent with a partition.
            let partition = tables.get(&shown(item)).filter(|_| item.kind == "TABLE ATTACH");
            if let Some(partition) = partition
                && item.needs.iter().any(|need| need != partition && removed.contains(need))
            {
                removed.insert(*partition);
            }
            removed.insert(item.number);
        }
        if removed.len() == before {
            return Ok(removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toc::Section;

    fn item(number: u32, kind: &str, name: &str, needs: &[u32]) -> Item {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        Item {
            number,
            oid: 1,
            kind,
            name,
            schema: Some("s".into()),
            section: Section::None,
            needs: needs.to_vec(),
            inherits: false,
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(
            matches("public.log_*", "public.log_2025")
                && matches("*.cache", "a.cache")
                && matches("a.b", "a.b")
        );
        assert!(!matches("public.log", "public.log2") && !matches("*x*", "abc"));
    }

    #[test]
    fn of_several_databases_a_pattern_means_one_or_all() {
        assert_eq!(here("app/s.t", Some("app")), Some("s.t"));
        assert_eq!(here("a*/s.t", Some("app")), Some("s.t"));
        assert_eq!(here("app/s.t", Some("other")), None);
        assert_eq!(here("s.t", Some("other")), Some("s.t"));
        assert_eq!(here("a/b.t", None), Some("a/b.t"), "of a single one the schema has a slash");
    }

    #[test]
    fn what_needs_a_table_that_is_left_out_goes_with_it_and_is_told() {
        let items = [
            item(1, "TABLE", "users", &[]),
            item(2, "TABLE", "log", &[]),
            item(3, "SEQUENCE", "log_id_seq", &[2]),
            item(4, "VIEW", "recent", &[2]),
            item(5, "MATERIALIZED VIEW", "counted", &[4]),
            item(6, "CONSTRAINT", "log log_pkey", &[2]),
            item(7, "TABLE", "notes", &[]),
            item(8, "FK CONSTRAINT", "notes of_log", &[7, 6]),
            item(9, "FK CONSTRAINT", "log by", &[2, 1]),
            item(10, "TABLE", "parted", &[]),
            item(11, "TABLE", "parted_1", &[]),
            item(12, "TABLE ATTACH", "parted_1", &[10, 11]),
            item(13, "INDEX", "on_view", &[5]),
        ];
        let out = LeftOut::of(&["s.log".into()], &items).unwrap();
        assert_eq!(out.tables, ["s.log".to_owned()].into());
        assert_eq!(
            out.also,
            ["view s.recent", "materialized view s.counted", "fk constraint s.notes of_log"]
        );
        let sql = "SELECT pg_catalog.setval('\"s\".\"log_id_seq\"', 1, true);\nREFRESH MATERIALIZED VIEW \"s\".\"counted\";\nSELECT pg_catalog.setval('\"s\".\"x\"', 1, true);\n";
        assert_eq!(out.kept(sql), "SELECT pg_catalog.setval('\"s\".\"x\"', 1, true);\n");
        let with_parent = LeftOut::of(&["s.parted".into()], &items).unwrap();
        assert_eq!(with_parent.tables, ["s.parted".to_owned(), "s.parted_1".to_owned()].into());
        let partition = LeftOut::of(&["s.parted_*".into()], &items).unwrap();
        assert_eq!((partition.tables.len(), partition.also.len()), (1, 0));
        assert_eq!(LeftOut::of(&["s.none".into()], &items).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
