//! Names and texts in SQL, and names of tables in paths.

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// `"name"`.
pub(crate) fn ident(name: &str) -> String {
    escape_identifier(name)
}

/// `"schema"."name"`.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// The same in ASCII alone, for sessions that speak the encoding of the database.
pub(crate) fn ident_in_ascii(name: &str) -> String {
    if name.is_ascii() {
        return ident(name);
    }
    let mut out = String::from("U&\"");
    for c in name.chars() {
        match c {
            '"' => out.push_str("\"\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_ascii() => out.push(c),
            c => out.push_str(&format!("\\+{:06X}", u32::from(c))),
        }
    }
    out + "\""
}

/// `'text'`.
pub(crate) fn literal(text: &str) -> String {
    // It leads with a blank where it has to write an escape string.
    escape_literal(text).trim_start().to_owned()
}

/// The folder of a table in a component: `schema.table`, with every other dot, slash and unprintable byte as `%XX`. No name of
/// ours has exactly one dot in its first part, so the two cannot meet.
pub(crate) fn table_folder(schema: &str, name: &str, oid: u32) -> String {
    let folder = format!("{}.{}", path_part(schema), path_part(name));
    // The longest name that file systems take, less the ending of a segment.
    if folder.len() <= 240 { folder } else { format!("table.{oid}") }
}

/// A name without dots, slashes and whatever else means something in a path.
pub(crate) fn path_part(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_control() || "./\\%:*?\"<>|'`$".contains(c) {
            for b in c.to_string().bytes() {
                out.push_str(&format!("%{b:02X}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(qualified("a\"b", "C d"), "\"a\"\"b\".\"C d\"");
        assert_eq!(ident_in_ascii("a\"b"), "\"a\"\"b\"");
        assert_eq!(ident_in_ascii("\u{e9}\\\u{1f600}"), "U&\"\\+0000E9\\\\\\+01F600\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("back\\slash"), "E'back\\\\slash'");
        assert_eq!(table_folder("public", "events", 1), "public.events");
        assert_eq!(table_folder("a.b", "c/../d", 1), "a%2Eb.c%2F%2E%2E%2Fd");
        assert_ne!(table_folder("a.b", "c", 1), table_folder("a", "b.c", 1));
        assert_eq!(table_folder(&"\n".repeat(63), &"/".repeat(63), 7), "table.7");
    }
}
