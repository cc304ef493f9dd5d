//! `RESTORE.md` of a database: how to restore it with the vendor's client alone.

use crate::{
    catalog::Version,
    quote::{file_name, ident},
};

/// Every block can be run as it stands, by `sh`, in the folder that this text is in a folder of.
pub(super) fn text(database: &str, version: &Version) -> String {
    let (folder, name) = (file_name(database), database.replace('\'', "'\\''"));
    let each = |files: &str| {
        format!("for f in {files}; do\n  [ ! -e \"$f\" ] || $client '{name}' < \"$f\" || exit 1\ndone")
    };
    let steps = [
        (
            "Join what is in segments. Run this and all that follows in the folder that has this one in it, in one shell".to_owned(),
            "find . -name '*.seg000000' | while read -r first; do\n  name=\"${first%.seg000000}\"\n  cat \"$name\".seg?????? > \"$name\" && rm \"$name\".seg??????\ndone".to_owned(),
        ),
        (
            "The client, and the database. `~/.my.cnf` says where, and who you are; `local_infile` must be on (MySQL has it off: `SET GLOBAL local_infile = ON`)".to_owned(),
            format!("client=$(command -v mariadb || command -v mysql)\nclient=\"$client --local-infile=1\"\n$client < '{folder}/database.sql'"),
        ),
        ("The sequences and tables".to_owned(), each(&format!("{folder}.*/sequence.sql {folder}.*/table.sql"))),
        (
            "The rows".to_owned(),
            format!(
                "for f in {folder}.*/load.sql; do\n  [ ! -e \"$f\" ] || (cd \"${{f%/*}}\" && $client '{name}' < load.sql) || exit 1\ndone"
            ),
        ),
        ("Keys, then foreign keys".to_owned(), each(&format!("{folder}.*/keys.sql {folder}.*/foreign-keys.sql"))),
        (
            "Routines, views, triggers and events".to_owned(),
            // A package before its body, and all of them before what may use them when it is made.
            each(&format!("{folder}/routines/function-*.sql {folder}/routines/package-*.sql {folder}/routines/packagebody-*.sql \
                 {folder}/routines/procedure-*.sql {folder}/views/*.sql {folder}.*/triggers.sql {folder}/events/*.sql")),
        ),
    ];
    written(database, version, &steps)
}

/// The same for what the vendor's program wrote.
pub(super) fn of_dump(database: &str, version: &Version) -> String {
    let (folder, name) = (file_name(database), database.replace('\'', "'\\''"));
    let steps = [
        (
            "Join what is in segments. Run this and all that follows in the folder that has this one in it, in one shell".to_owned(),
            format!("[ ! -e '{folder}.sql.seg000000' ] || cat '{folder}.sql'.seg?????? > '{folder}.sql'"),
        ),
        (
            "The client, and the database. `~/.my.cnf` says where, and who you are".to_owned(),
            format!("client=$(command -v mariadb || command -v mysql)\n$client < '{folder}/database.sql'"),
        ),
        ("What is in it".to_owned(), format!("$client --binary-mode '{name}' < '{folder}.sql'")),
        (
            "Events".to_owned(),
            format!("for f in {folder}/events/*.sql; do\n  [ ! -e \"$f\" ] || $client '{name}' < \"$f\" || exit 1\ndone"),
        ),
    ];
    written(database, version, &steps)
}

fn written(database: &str, version: &Version, steps: &[(String, String)]) -> String {
    let mut out = format!(
        "# How to restore the database {} by hand\n\nIt was on {version}. All you need is the client of that version or a newer one, `mariadb` or `mysql`.\n",
        ident(database)
    );
    for (number, (what, commands)) in steps.iter().enumerate() {
        out.push_str(&format!("\n{}. {what}:\n\n```sh\n{commands}\n```\n", number + 1));
    }
    out
}
