//! SFTP through the `ssh` program: its configuration, its agent, its known hosts. It asks for nothing.

mod connection;
mod service;

use super::{failure, place::RemotePlace};
use crate::Result;
use connection::Login;
use opendal::{Operator, layers::TimeoutLayer};
use openssh_sftp_client::Error as SftpError;
use service::{Files, SYNC};

/// The operator, without retries: what was half written must not be written again from its beginning.
pub(super) fn open(place: &RemotePlace) -> Result<(Operator, String)> {
    let (root, path) = match place.path.strip_prefix('~') {
        // Without a root paths begin where the server lets the user begin.
        Some(below) if below.is_empty() || below.starts_with('/') => ("", below.trim_start_matches('/')),
        _ => ("/", place.path.as_str()),
    };
    let login = Login {
        // As `ssh` takes an address of IPv6.
        host: place.host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: place.port,
        user: place.user.clone(),
    };
    let patience = place.patience();
    let operator = Operator::new(Files::new(login, root, patience))
        .map_err(|e| failure::error("use the archive", place, &e))?;
    // Pieces of files are limited by the service itself, for of them only the end of a file may take long.
    let limits = TimeoutLayer::new().with_timeout(2 * patience).with_io_timeout(2 * SYNC);
    Ok((operator.layer(limits), path.to_owned()))
}

/// Whether the server has answered, and refused. Otherwise nobody knows what it has done.
pub(super) fn is_refusal(e: &opendal::Error) -> bool {
    let cause = std::error::Error::source(e).and_then(|cause| cause.downcast_ref::<SftpError>());
    matches!(cause, Some(SftpError::SftpError(..)))
}
