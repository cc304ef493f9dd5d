//! A part of a database: tables, with all that they are made of and all that is theirs.

use crate::{
    catalog, layout, quote,
    toc::{Item, Section},
};
use backup_core::Selection;
use std::collections::{BTreeMap, BTreeSet};

/// What belongs to a table and is made with it, once all else that it needs is there.
const OF_A_TABLE: [&str; 17] = [
    "DEFAULT",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "TABLE ATTACH",
    "STATISTICS",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
];
/// Of these the name begins with that of the table that they are on; and of these it is that name.
const NAMED_AFTER_TABLE: [&str; 7] =
    ["DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY"];
const NAMED_AS_TABLE: [&str; 2] = ["ROW SECURITY", "TABLE ATTACH"];
/// What is never made because something that belongs to a table needs it.
const RELATIONS: [&str; 4] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"];
/// What a table is, before it has rows. All else of it waits until it has its place.
const MADE_FIRST: [&str; 6] = ["TABLE", "SEQUENCE", "SEQUENCE OWNED BY", "DEFAULT", "CONSTRAINT", "INDEX"];
/// What binds one to another: made first where both are of the part, else when the tables have their places.
const BETWEEN_TWO: [&str; 2] = ["TABLE ATTACH", "INDEX ATTACH"];
/// What is told if it is not made.
const TOLD: &str = "PUBLICATION TABLE";

/// What of a database is restored.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// Those that were asked for.
    pub(super) tables: Vec<(String, String)>,
    /// Numbers of items, in the order in which they are made.
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
    /// The tables and what is their own: first, and when they have rows and their places.
    pub(super) own: Vec<u32>,
    pub(super) own_last: Vec<u32>,
    /// `"schema"."name"` of the sequences among them.
    pub(super) sequences: BTreeSet<String>,
    /// What is not as it was, for people.
    pub(super) notes: Vec<String>,
}

impl Part {
    /// What a selection means beside the relations (schema and name) that are there, or in a database of its own; `None`: all definitions.
    pub(super) fn of(
        selection: &Selection,
        items: &[Item],
        there: Option<&BTreeSet<(String, String)>>,
    ) -> Option<Self> {
        // It is no part of any table: who has it has all.
        if selection.is_all() || selection.covers(layout::GUIDE.as_bytes()) {
            return None;
        }
        let tables: Vec<&Item> = items.iter().filter(|item| is_wanted(item, selection)).collect();
        Some(Self::with(&tables, items, there))
    }

    fn with(tables: &[&Item], items: &[Item], there: Option<&BTreeSet<(String, String)>>) -> Self {
        let asked: BTreeSet<u32> = tables.iter().map(|table| table.number).collect();
        // What is there is not made, and nothing that it needs.
        let known = items
            .iter()
            .filter(|i| asked.contains(&i.number) || !there.is_some_and(|there| is_there(i, there)));
        let known: BTreeMap<u32, &Item> = known.map(|item| (item.number, item)).collect();
        let mut chosen = BTreeSet::new();
        let mut own = asked.clone();
        let mut part = Part::default();
        for table in tables {
            chosen.extend(needed(table, &known, &chosen));
        }
        // One of a column, which partitions of the table need, is chosen with these.
        let owned = |i: &&Item| i.kind == "SEQUENCE" && i.needs.iter().any(|need| asked.contains(need));
        let owned = items.iter().filter(owned).map(|item| item.number);
        own.extend(owned.filter(|number| chosen.contains(number)));
        let more = items.iter().filter(|i| chosen.contains(&i.number) && !asked.contains(&i.number));
        for item in more.filter(|item| RELATIONS.contains(&&*item.kind)) {
            part.notes.push(format!("{} is made, too, because it is needed; without rows", item.display()));
        }
        // They stand in an order in which each comes after all that it needs.
        for item in items {
            let is_theirs = item.needs.iter().any(|need| chosen.contains(need));
            if !is_theirs || chosen.contains(&item.number) {
                continue;
            }
            let its = needed(item, &known, &chosen);
            let missing = its.iter().filter_map(|n| known.get(n)).find(|i| RELATIONS.contains(&&*i.kind));
            match missing {
                None if OF_A_TABLE.contains(&&*item.kind) => {
                    chosen.extend(its);
                    if item.needs.iter().any(|need| own.contains(need)) && is_on(item, tables) {
                        own.insert(item.number);
                    }
                }
                // Where it shares no more than a function with them, it is none of theirs.
                Some(missing)
                    if OF_A_TABLE.contains(&&*item.kind)
                        && item.needs.iter().any(|need| own.contains(need)) =>
                {
                    part.notes.push(format!(
                        "{} is left out: it needs {}, which is not restored",
                        item.display(),
                        missing.display()
                    ));
                }
                _ if item.kind == TOLD => part.notes.push(format!("{} is left out", item.display())),
                _ => {}
            }
        }
        let mut section = Section::Before;
        for item in items {
            // Comments and privileges are made where what they are of is made.
            section = if item.section == Section::None { section } else { item.section };
            if !chosen.contains(&item.number) {
                continue;
            }
            let name = |item: &Item| (item.schema.clone().unwrap_or_default(), item.name.clone());
            if asked.contains(&item.number) {
                part.tables.push(name(item));
            }
            if own.contains(&item.number) {
                let both = || item.needs.iter().all(|need| own.contains(need));
                let first = MADE_FIRST.contains(&&*item.kind) || BETWEEN_TWO.contains(&&*item.kind) && both();
                if first { &mut part.own } else { &mut part.own_last }.push(item.number);
            }
            if item.kind == "SEQUENCE" && (there.is_none() || own.contains(&item.number)) {
                let (schema, name) = name(item);
                part.sequences.insert(quote::qualified(&schema, &name));
            }
            match section {
                Section::Before | Section::None => part.before.push(item.number),
                Section::After | Section::Rows => part.after.push(item.number),
            }
        }
        part
    }

    /// `"schema"."name"` of those that were asked for.
    pub(super) fn names(&self) -> Vec<String> {
        self.tables.iter().map(|(schema, table)| quote::qualified(schema, table)).collect()
    }

    /// Of statements that set sequences, those of its own.
    pub(super) fn own_sequences(&self, sql: &str) -> String {
        let names: Vec<String> = self.sequences.iter().map(|name| catalog::setting_of(name)).collect();
        let own = sql.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        own.map(|line| format!("{line}\n")).collect()
    }
}

/// Whether this is a table that is selected.
pub(super) fn is_wanted(item: &Item, selection: &Selection) -> bool {
    let folder = folder(item);
    let paths = [folder.clone(), format!("{folder}/00000.copy"), format!("{folder}/00000.copybin")];
    item.kind == "TABLE" && paths.iter().any(|path| selection.covers(path.as_bytes()))
}

/// Tables that are not selected, but come with those that are: their partitions and children, at all levels. A partitioned table has its
/// rows in them only.
pub(super) fn heirs<'a>(selection: &Selection, items: &'a [Item]) -> Vec<&'a Item> {
    let tables = || items.iter().filter(|item| item.kind == "TABLE");
    let named = |of: &Item, table: &Item| (&of.name, &of.schema) == (&table.name, &table.schema);
    let binding = |item: &&Item| item.inherits && ["TABLE", "TABLE ATTACH"].contains(&&*item.kind);
    let bound = items.iter().filter(binding).filter_map(|item| {
        let child =
            tables().find(|t| named(item, t) && (t.number == item.number || item.needs.contains(&t.number)));
        child.map(|child| (child, &item.needs))
    });
    let bound: Vec<(&Item, &Vec<u32>)> = bound.collect();
    let mut known: BTreeSet<u32> = tables().filter(|t| is_wanted(t, selection)).map(|t| t.number).collect();
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for (child, parents) in &bound {
            let is_heir = parents.iter().any(|parent| *parent != child.number && known.contains(parent));
            if is_heir && known.insert(child.number) {
                found.push(*child);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Whether a table has partitions, as the backup has it.
pub(super) fn has_partitions(table: &Item, items: &[Item]) -> bool {
    let others = |item: &&Item| (&item.name, &item.schema) != (&table.name, &table.schema);
    let mut attached = items.iter().filter(|item| item.kind == "TABLE ATTACH").filter(others);
    attached.any(|item| item.needs.contains(&table.number))
}

/// The folder of a table in the backup.
pub(super) fn folder(table: &Item) -> String {
    quote::table_folder(table.schema.as_deref().unwrap_or_default(), &table.name, table.oid)
}

fn is_there(item: &Item, there: &BTreeSet<(String, String)>) -> bool {
    let schema = item.schema.clone().unwrap_or_default();
    RELATIONS.contains(&&*item.kind) && there.contains(&(schema, item.name.clone()))
}

/// Whether an item that needs some of these tables is on one of them: a foreign key needs two tables, and is on one.
fn is_on(item: &Item, tables: &[&Item]) -> bool {
    let mut needed = tables.iter().filter(|t| item.needs.contains(&t.number) && item.schema == t.schema);
    if NAMED_AFTER_TABLE.contains(&&*item.kind) {
        return needed.any(|t| item.name.strip_prefix(&*t.name).is_some_and(|rest| rest.starts_with(' ')));
    }
    !NAMED_AS_TABLE.contains(&&*item.kind) || needed.any(|t| item.name == t.name)
}

/// An item and what it needs, as far as that is not chosen yet.
fn needed(item: &Item, known: &BTreeMap<u32, &Item>, chosen: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut left = vec![item];
    while let Some(item) = left.pop() {
        if chosen.contains(&item.number) || !found.insert(item.number) {
            continue;
        }
        left.extend(item.needs.iter().filter_map(|need| known.get(need).copied()));
        let schema = item.schema.as_deref();
        let of = known.values().copied().filter(|i| i.kind == "SCHEMA" && Some(&*i.name) == schema);
        left.extend(of);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn item(number: u32, kind: &str, name: &str, needs: &[u32]) -> Item {
        let section = match kind {
            "COMMENT" => Section::None,
            "CONSTRAINT" | "FK CONSTRAINT" | "INDEX" | "TRIGGER" => Section::After,
            _ => Section::Before,
        };
        Item {
            number,
            oid: number,
            kind: kind.into(),
            name: name.into(),
            schema: (kind != "SCHEMA").then(|| "s".into()),
            section,
            needs: needs.to_vec(),
            inherits: kind == "TABLE ATTACH" || name.starts_with("child"),
        }
    }

    fn items() -> Vec<Item> {
        vec![
            item(1, "SCHEMA", "s", &[]),
            item(2, "TYPE", "mood", &[1]),
            item(3, "FUNCTION", "f()", &[1]),
            item(4, "TABLE", "users", &[1]),
            item(5, "TABLE", "events", &[1, 2]),
            item(6, "VIEW", "v", &[5]),
            item(7, "SEQUENCE", "events_id_seq", &[5]),
            item(8, "SEQUENCE OWNED BY", "events_id_seq", &[5, 7]),
            item(9, "DEFAULT", "events id", &[5, 7]),
            item(10, "TYPE", "other", &[1]),
            item(11, "CONSTRAINT", "users users_pkey", &[4]),
            item(12, "CONSTRAINT", "events events_pkey", &[5]),
            item(13, "COMMENT", "CONSTRAINT events_pkey", &[12]),
            item(14, "FK CONSTRAINT", "events events_by", &[5, 11]),
            item(15, "TRIGGER", "events t", &[5, 3]),
            item(16, "TRIGGER", "users t", &[4, 3]),
        ]
    }

    fn only(name: &'static str) -> Part {
        let selection = Selection::Matching(Arc::new(move |path| path == name.as_bytes()));
        Part::of(&selection, &items(), None).unwrap()
    }

    #[test]
    fn a_table_comes_with_what_it_is_made_of_and_what_is_its_own() {
        let part = only("s.events");
        assert_eq!(part.tables, [("s".to_owned(), "events".to_owned())]);
        assert_eq!(part.before, [1, 2, 3, 5, 7, 8, 9]);
        assert_eq!(part.after, [12, 13, 15]);
        assert_eq!(part.notes.len(), 1);
        assert!(part.notes[0].contains("events_by") && part.notes[0].contains("s.users"), "{:?}", part.notes);
        let set = "SELECT pg_catalog.setval('\"s\".\"events_id_seq\"', 5, true);\nSELECT pg_catalog.setval('\"s\".\"x\"', 1, true);\n";
        assert_eq!(part.own_sequences(set).lines().count(), 1);
    }

    #[test]
    fn beside_tables_that_are_there_only_what_is_its_own_is_made() {
        let selection = Selection::Matching(Arc::new(|path: &[u8]| path == b"s.events"));
        let there = [("s".to_owned(), "users".to_owned()), ("s".to_owned(), "events".to_owned())];
        let part = Part::of(&selection, &items(), Some(&there.clone().into())).unwrap();
        assert_eq!((part.own, part.own_last), (vec![5, 7, 8, 9, 12], vec![13, 14, 15]));
        assert!(part.notes.is_empty(), "{:?}", part.notes);
        // The foreign key that leads to it is on the other one, which stays as it is.
        let selection = Selection::Matching(Arc::new(|path: &[u8]| path == b"s.users"));
        let part = Part::of(&selection, &items(), Some(&there.into())).unwrap();
        assert_eq!((part.own, part.own_last), (vec![4, 11], vec![16]));
    }

    #[test]
    fn a_table_comes_with_its_partitions_and_children_at_all_levels() {
        let items = [
            item(1, "TABLE", "parted", &[]),
            item(2, "TABLE", "part", &[]),
            item(3, "TABLE", "part_of_part", &[]),
            item(4, "TABLE", "other", &[]),
            item(5, "TABLE", "child_of_other", &[4]),
            item(6, "TABLE", "of_its_type", &[1]),
            item(7, "TABLE ATTACH", "part_of_part", &[2, 3]),
            item(8, "TABLE ATTACH", "part", &[1, 2]),
        ];
        for (name, expected) in
            [("s.parted", &[2, 3][..]), ("s.part", &[3]), ("s.other", &[5]), ("s.part_of_part", &[])]
        {
            let selection = Selection::Matching(Arc::new(move |path: &[u8]| path == name.as_bytes()));
            let found: Vec<u32> = heirs(&selection, &items).iter().map(|item| item.number).collect();
            assert_eq!(found, expected, "{name}");
        }
        // What binds two of the part is made with them, so that indexes find each other.
        let all = Selection::Matching(Arc::new(|path: &[u8]| path.starts_with(b"s.part")));
        assert_eq!(Part::of(&all, &items, None).unwrap().own, [1, 2, 3, 7, 8]);
        let one = Selection::Matching(Arc::new(|path: &[u8]| path == b"s.part"));
        let there = [("s".to_owned(), "parted".to_owned()), ("s".to_owned(), "part".to_owned())];
        let part = Part::of(&one, &items, Some(&there.into())).unwrap();
        assert_eq!((part.own, part.own_last), (vec![2], vec![8]));
    }

    #[test]
    fn a_foreign_key_comes_with_both_of_its_tables_and_all_definitions_are_no_part() {
        let selection = Selection::Matching(Arc::new(|path: &[u8]| path.starts_with(b"s.")));
        let part = Part::of(&selection, &items(), None).unwrap();
        assert!(part.after.contains(&14) && part.notes.is_empty() && !part.before.contains(&6));
        assert!(Part::of(&Selection::All, &items(), None).is_none());
        let definitions = Selection::Matching(Arc::new(|path: &[u8]| path.starts_with(b"database/")));
        assert!(Part::of(&definitions, &items(), None).is_none());
    }
}
