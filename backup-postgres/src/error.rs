//! Errors of the client as errors of the library, for the reading and the writing side.

use crate::{
    catalog::{Denied, Table},
    client::ClientError,
    quote::{ident, qualified},
    server::Server,
};
use backup_core::{Error, ErrorKind};

/// What failed while reading.
pub(crate) fn source(operation: &'static str, server: &Server) -> impl FnOnce(ClientError) -> Error {
    let place = server.place();
    move |e| e.during(ErrorKind::Source, operation).on(place)
}

/// What failed while restoring.
pub(crate) fn target(operation: &'static str, server: &Server) -> impl FnOnce(ClientError) -> Error {
    let place = server.place();
    move |e| e.during(ErrorKind::Target, operation).on(place)
}

/// A table that this user may not read, with the statement that lets it.
pub(crate) fn denied(table: &Table, why: Denied, server: &Server) -> Error {
    let user = ident(&server.endpoint.user);
    let (message, hint) = match why {
        Denied::Usage => (
            "this user may not use the schema",
            format!(
                "GRANT USAGE ON SCHEMA {} TO {user}; or GRANT pg_read_all_data TO {user}",
                ident(&table.schema)
            ),
        ),
        Denied::Select => (
            "this user may not read the table",
            format!(
                "GRANT SELECT ON {} TO {user}; or GRANT pg_read_all_data TO {user}",
                qualified(&table.schema, &table.name)
            ),
        ),
        Denied::RowSecurity => (
            "row level security hides rows of it from this user",
            format!("ALTER ROLE {user} BYPASSRLS, or use the owner of the table"),
        ),
    };
    Error::new(ErrorKind::Denied, "read the table", message).on(server.shown(&table.display())).hint(hint)
}
