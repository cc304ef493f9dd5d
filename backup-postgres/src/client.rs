//! Sessions with a PostgreSQL server.

mod error;
mod rows;
mod session;
mod stream;
mod tls;
mod tunnel;

pub(crate) use error::{ClientError, NO_ROLE};
pub(crate) use session::{Row, Session};

/// Makes a session speak the encoding of the database instead of UTF-8: no conversion stands between two databases of one encoding.
pub(crate) const SPEAK_AS_THE_DATABASE: &str =
    "SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false)";
