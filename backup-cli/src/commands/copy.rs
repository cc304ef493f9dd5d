//! `backup copy`

use super::session::Session;
use crate::{
    args::Copy,
    exit,
    failure::{Failure, Result},
    render::{human, printable::Rows},
    settings::encrypted,
};
use backup_kit::{CopyOutcome, CopyReport, CopyResult, Error, ErrorKind, State, state_dir};
use serde_json::json;

pub(super) async fn run(args: &Copy, session: &Session) -> Result<u8> {
    let settings = &session.settings;
    let output = settings.output;
    if args.ids.is_empty() && !args.all {
        return Err(Failure::usage(
            "choose what to copy",
            "no backup is named",
            "name backups by id, latest, date or file, or --all for what is missing at the other place",
        ));
    }
    let itself = match args.ids.as_slice() {
        [one] => session.archive_by_itself(one, &args.among)?,
        _ => None,
    };
    let by_itself = itself.is_some();
    let from = itself.map_or_else(|| session.archive(&args.among), Ok)?;
    session.expect_backups(&from)?;
    let to = settings.archive(Some(&args.to), "--to")?;
    let mut to = encrypted(to, &args.recipient, args.to_passphrase_file.as_deref());
    let state_dir = state_dir()?;
    if let Some(warning) = to.expect_filled(&state_dir) {
        output.warning(warning);
    }
    let progress = session.progress.clone();
    let mut copy = backup_kit::copy(from.clone(), to.clone())
        .cancel(session.cancel.clone())
        .on_event(move |event| progress.show(event));
    if args.all || by_itself {
        copy = copy.all();
    }
    for id in args.ids.iter().filter(|_| !by_itself) {
        copy = copy.which(id.parse().unwrap_or_else(|never| match never {}));
    }
    if let Some(module) = &args.among.module {
        copy = copy.of_name(module);
    }
    if let Some(wait) = args.wait {
        copy = copy.wait(wait);
    }
    copy = copy.read_back(args.read_back.into()).decrypt(args.decrypt);
    let copied = if args.dry_run { copy.dry_run().await } else { copy.run().await };
    session.progress.finish();
    let report = match copied {
        Ok(report) => report,
        Err(Error::CopiedPartly(report)) => *report,
        Err(e) => return Err(state(Failure::from(e), session)),
    };
    if report.backups.is_empty() {
        let e = backup_kit::CoreError::new(ErrorKind::NotFound, "copy backups", "there is no backup to copy");
        return Err(e.on(&report.from).hint("`backup list` shows those that there are").into());
    }
    for outcome in &report.backups {
        if let CopyResult::Copied { .. } = outcome.result {
            to.remember_filled(&state_dir);
            output.success(format!("{}: the backup {} is copied", outcome.backup.module, outcome.backup.id));
        }
        say_warnings(outcome, session);
    }
    output.beside(&to, &text(&report))?;
    let failed = report.failures().map(|(_, e)| exit::of(&e.clone().into()));
    let code = failed.fold(exit::COMPLETE, exit::worse);
    output.object(code, json!({ "dry_run": args.dry_run, "report": report }))?;
    Ok(code)
}

fn state(failure: Failure, session: &Session) -> Failure {
    match session.cancel.is_cancelled() {
        true => failure.state("what was copied before stays; the same command goes on with the rest"),
        false => failure,
    }
}

fn say_warnings(outcome: &CopyOutcome, session: &Session) {
    let (b, output) = (&outcome.backup, session.settings.output);
    match &outcome.result {
        CopyResult::Copied { .. } if b.state == State::Partial => {
            output.warning(format!("{}: the backup {} is partial, and so is its copy", b.module, b.id));
        }
        CopyResult::Incomplete => {
            output
                .warning(format!("{} is incomplete, its run goes on or has crashed: not copied", b.location));
        }
        CopyResult::Failed { error } => {
            crate::render::error::print(output, &error.clone().into(), Some("nothing of it was copied"));
        }
        _ => {}
    }
}

fn text(report: &CopyReport) -> String {
    let mut out = Rows::default();
    for outcome in &report.backups {
        let b = &outcome.backup;
        let word = match &outcome.result {
            CopyResult::Copied { .. } => "copied",
            CopyResult::AlreadyThere { .. } => "already there",
            CopyResult::Missing => "to be copied",
            CopyResult::Incomplete => "incomplete",
            CopyResult::Failed { .. } => "FAILED",
            _ => "unknown",
        };
        let there = match &outcome.result {
            CopyResult::Copied { copy } | CopyResult::AlreadyThere { copy } => {
                format!(" {} {}", human::bytes(copy.stored_bytes), copy.location)
            }
            _ => String::new(),
        };
        out.row(format_args!("{word:<13} {} {} {}{there}", b.id, human::time(b.created), b.module));
    }
    out.into_text()
}
