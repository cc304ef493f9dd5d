//! One file for each command.

mod completions;
mod config;
mod copy;
mod create;
mod dump;
mod heal;
mod import;
mod init;
mod list;
mod ls;
mod man;
mod remove;
mod restore;
mod session;
mod settle;
mod show;
mod verify;

use crate::{
    args::{Args, Command, Control},
    control, exit,
    failure::{Failure, Result},
    render::{self, Output},
    settings::Settings,
    signals,
};
use backup_kit::{CoreError, Error, ErrorKind};
use serde_json::json;
use session::Session;
use std::time::Duration;

/// For what a run leaves open to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Runs a command to its exit code.
pub(crate) fn run(args: Args) -> u8 {
    let output = Settings::output_of(&args.global);
    match dispatch(&args, output) {
        Ok(code) => code,
        Err(failure) => {
            if let Failure::Error { error, state } = &failure {
                render::error::print(output, error, state.as_deref());
                let object = json!({ "error": render::json::error(error), "state": state });
                // The error itself is what matters now.
                let _ = output.object(failure.code(), object);
            }
            failure.code()
        }
    }
}

/// Says what is wrong with the arguments, also to a program that asked for JSON; or help or version, if that was asked for.
pub(crate) fn wrong_arguments(e: &clap::Error) -> u8 {
    // Nobody is left to tell that the text could not be printed.
    let _ = e.print();
    if !e.use_stderr() {
        return exit::COMPLETE;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let text = e.to_string();
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let error = Error::from(CoreError::new(ErrorKind::Usage, "read the command line", what));
        let object = json!({ "error": render::json::error(&error), "state": "nothing was touched" });
        let _ = Output::only_json().object(exit::USAGE, object);
    }
    exit::USAGE
}

fn dispatch(args: &Args, output: Output) -> Result<u8> {
    match &args.command {
        Command::Completions(c) => return completions::run(c, output),
        Command::Man(c) => return man::run(c, output),
        Command::Config(c) => return config::run(c, &args.global, output),
        _ => {}
    }
    let settings = Settings::resolve(&args.global, output)?;
    match &args.command {
        Command::Create(c) => session::of_files(&c.identity).check()?,
        other => other.keys().map_or(Ok(()), |keys| session::identities(keys).check())?,
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CoreError::io(ErrorKind::Usage, "start the runtime", e))?;
    let result = runtime.block_on(async {
        let unfinished = match &args.command {
            Command::Restore(_) | Command::Settle(_) | Command::Heal(_) => exit::NOT_UNDONE,
            _ => exit::INTERRUPTED,
        };
        let control = args.global.control.map(|Control::Stdin| control::cancelled(output));
        let cancel = signals::listen(output, unfinished, control)
            .map_err(|e| CoreError::io(ErrorKind::Usage, "listen to signals", e))?;
        let session = Session::new(settings, cancel);
        let result = match &args.command {
            Command::Create(c) => create::run(c, &session).await,
            Command::Copy(c) => copy::run(c, &session).await,
            Command::Import(c) => import::run(c, &session).await,
            Command::List(c) => list::run(c, &session).await,
            Command::Ls(c) => ls::run(c, &session).await,
            Command::Show(c) => show::run(c, &session).await,
            Command::Dump(c) => dump::run(c, &session).await,
            Command::Verify(c) => verify::run(c, &session).await,
            Command::Restore(c) => restore::run(c, &session).await,
            Command::Settle(c) => settle::run(c, &session).await,
            Command::Remove(c) => remove::run(c, &session).await,
            Command::Heal(c) => heal::run(c, &session).await,
            Command::Init(c) => init::run(c, &session).await,
            Command::Config(_) | Command::Completions(_) | Command::Man(_) => Ok(exit::COMPLETE),
        };
        session.progress.finish();
        interrupted(result, &session, &args.command)
    });
    // What is dropped now ends what it has begun, as the connections of SFTP; a read that hangs in a file system must not hold the
    // program.
    runtime.shutdown_timeout(END_LIMIT);
    result
}

/// After a signal every failure that left things as they were is the interruption, however it showed itself.
fn interrupted(result: Result<u8>, session: &Session, command: &Command) -> Result<u8> {
    match result {
        Err(Failure::Error { error, state })
            if session.cancel.is_cancelled()
                && !matches!(error.kind(), ErrorKind::NotRolledBack | ErrorKind::Damaged) =>
        {
            let state = state.or_else(|| Some(as_it_is_now(command).to_owned()));
            Err(Failure::Error { error: Error::from(CoreError::cancelled()), state })
        }
        other => other,
    }
}

/// How things stand when a command was interrupted and has cleaned up.
fn as_it_is_now(command: &Command) -> &'static str {
    match command {
        Command::Create(_) => "cleaned up: nothing was stored; earlier backups are untouched",
        Command::Restore(_) => "cleaned up: everything is as it was before",
        Command::Settle(_) => "what was not dropped yet is still kept; `backup settle` goes on",
        Command::Remove(_) => "what was not removed yet is still there; `backup list` shows it",
        Command::Heal(_) => "what was not healed yet waits for the next `backup heal`",
        Command::Dump(_) => "the output is cut; the backup is untouched",
        _ => "nothing was changed",
    }
}
