//! SFTP through the `ssh` program: its configuration, its agent, its known hosts. It asks for nothing.

use super::{failure, place::RemotePlace};
use crate::Result;
use opendal::{Operator, layers::TimeoutLayer, services};

/// The operator, without retries: what was half written must not be written again from its beginning.
pub(super) fn open(place: &RemotePlace) -> Result<(Operator, String)> {
    let port = place.port.map(|port| format!(":{port}")).unwrap_or_default();
    let builder = services::Sftp::default()
        .endpoint(&format!("ssh://{}{port}", place.host))
        .user(place.user.as_deref().unwrap_or_default())
        .known_hosts_strategy("strict");
    let (builder, path) = match place.path.strip_prefix('~') {
        // Without a root paths begin where the server lets the user begin.
        Some(below) if below.is_empty() || below.starts_with('/') => (builder, below.trim_start_matches('/')),
        _ => (builder.root("/"), place.path.as_str()),
    };
    let operator = Operator::new(builder).map_err(|e| failure::error("use the archive", place, &e))?;
    let limits = TimeoutLayer::new().with_timeout(2 * place.patience()).with_io_timeout(place.patience());
    Ok((operator.layer(limits), path.to_owned()))
}
