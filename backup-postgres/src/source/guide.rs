//! `database/RESTORE.md`: how to restore this very database with the vendor's tools alone.

use crate::{globals::GLOBALS, layout, properties::Properties, quote::ident};

/// The database that a guide is of.
pub(super) struct Of {
    pub(super) name: String,
    /// It has a folder of its own, beside those of others.
    pub(super) among_several: bool,
    /// Roles and tablespaces are in the backup, too.
    pub(super) globals: bool,
}

impl Of {
    fn shell(&self) -> String {
        format!("'{}'", self.name.replace('\'', "'\\''"))
    }
}

/// Every command block can be run as it stands, by `sh`, in the folder that has `database/` in it.
pub(super) fn text(of: &Of, properties: &Properties, large_objects: bool) -> String {
    let shell = of.shell();
    let mut steps = vec![
        join(),
        create(&of.name, properties),
        ("The definitions".to_owned(), restore(&shell, "--section=pre-data", layout::SCHEMA)),
        ("The rows".to_owned(), run(&shell, layout::LOAD)),
        ("The sequences".to_owned(), run(&shell, layout::SEQUENCES)),
        (
            "Indexes, constraints, triggers".to_owned(),
            restore(&shell, "--section=post-data --jobs=4", layout::SCHEMA),
        ),
        (views(), format!("psql -X -q -d {shell} -f {}", layout::REFRESH)),
        as_a_whole(&of.name, properties),
    ];
    if large_objects {
        steps.insert(
            4,
            ("The large objects".to_owned(), restore(&shell, "--single-transaction", layout::LARGE_OBJECTS)),
        );
    }
    page(of, properties, steps)
}

/// The same of a database that is one file. `filled`: it has materialized views that are filled.
pub(super) fn of_dump(of: &Of, properties: &Properties, (file, filled): (&str, bool)) -> String {
    let shell = of.shell();
    let rows = "Definitions and rows".to_owned();
    let restore = |list: &str| format!("pg_restore --exit-on-error --jobs=4{list} -d {shell} '{file}'");
    let mut steps = vec![join(), create(&of.name, properties)];
    if filled {
        let listed = |sed: &str, list: &str| format!("pg_restore -l '{file}' | sed {sed} > {list}");
        let rest = listed(&format!("'/{FILLS_A_VIEW}/d'"), "database/rest.list");
        steps.push((rows, format!("{rest}\n{}", restore(" -L database/rest.list"))));
        let its = listed(&format!("-n '/{FILLS_A_VIEW}/p'"), "database/views.list");
        let fill = format!("pg_restore -L database/views.list -f - '{file}' | psql -X -q -d {shell}");
        steps.push((views(), format!("{its}\n{fill}")));
    } else {
        steps.push((rows, restore("")));
    }
    steps.push(as_a_whole(&of.name, properties));
    page(of, properties, steps)
}

/// A line of the list of `pg_restore`, as `sed` knows it.
const FILLS_A_VIEW: &str = "^[0-9]*; [0-9]* [0-9]* MATERIALIZED VIEW DATA ";

fn views() -> String {
    "The materialized views. One that cannot be filled (its other server does not answer, its owner may not read a table) is told as an error and \
     stays empty; all others are filled. Once the reason is gone, run this again".to_owned()
}

fn restore(database: &str, what: &str, file: &str) -> String {
    format!("pg_restore --exit-on-error {what} -d {database} {file}")
}

fn run(database: &str, file: &str) -> String {
    format!("psql -X -q -v ON_ERROR_STOP=1 -d {database} -f {file}")
}

fn join() -> (String, String) {
    (
        "Join what is in segments. Run this and all that follows in the folder that has `database/` in it".to_owned(),
        "find . -name '*.seg000000' | while read -r first; do\n  name=\"${first%.seg000000}\"\n  cat \"$name\".seg?????? > \"$name\" && rm \"$name\".seg??????\ndone".to_owned(),
    )
}

fn roles(of: &Of) -> (String, String) {
    let above = if of.among_several { "../" } else { "" };
    (
        "The roles and tablespaces of the server. Those that are there stay as they are: errors that say so are none".to_owned(),
        format!("psql -X -d postgres -f '{above}{GLOBALS}'"),
    )
}

fn create(database: &str, properties: &Properties) -> (String, String) {
    let create = properties.create(database, properties.server, false);
    (
        "Make the database. `PGHOST`, `PGPORT`, `PGUSER` and `PGPASSWORD` say where; the roles that own things must be there".to_owned(),
        format!("psql -X -v ON_ERROR_STOP=1 -d postgres <<'END-OF-SQL'\n{create};\nEND-OF-SQL"),
    )
}

fn as_a_whole(database: &str, properties: &Properties) -> (String, String) {
    let apply = properties.apply(database, true).join(";\n");
    (
        "What belongs to the database as a whole".to_owned(),
        format!("psql -X -v ON_ERROR_STOP=1 -d postgres <<'END-OF-SQL'\n{apply};\nEND-OF-SQL"),
    )
}

fn page(of: &Of, properties: &Properties, mut steps: Vec<(String, String)>) -> String {
    if of.globals {
        steps.insert(1, roles(of));
    }
    let mut out = format!(
        "# How to restore the database {} by hand\n\nIt was on PostgreSQL {}. All you need is `psql` and `pg_restore` of that version or newer.\n",
        ident(&of.name),
        properties.server
    );
    for (number, (what, commands)) in steps.iter().enumerate() {
        out.push_str(&format!("\n{}. {what}:\n\n```sh\n{commands}\n```\n", number + 1));
    }
    out
}
