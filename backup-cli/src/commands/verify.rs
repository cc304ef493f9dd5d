//! `backup verify`

use super::session::Session;
use crate::{
    args::Verify,
    exit,
    failure::Result,
    render::{self, human, printable::Rows},
};
use backup_kit::{Archive, BackupSummary, CoreError, Depth, Error, ErrorKind, State, VerifyReport, verify};
use serde_json::{Value, json};
use std::sync::Arc;

/// One that cannot be opened does not keep the others from being verified.
pub(super) async fn run(args: &Verify, session: &Session) -> Result<u8> {
    let depth = if args.quick { Depth::Quick } else { Depth::Full };
    let output = session.settings.output;
    let (mut code, mut verified) = (exit::COMPLETE, Vec::new());
    let mut failed = None;
    for (archive, backup) in chosen(args, session).await? {
        let outcome = verify(&*archive, &backup.id, depth, &session.context()).await;
        session.progress.finish();
        match outcome {
            Ok(report) => {
                if report.defects.is_empty() {
                    output.result(&sound(&backup, &report))?;
                } else {
                    code = exit::worse(code, exit::VERIFICATION);
                    output.always_unless_json(&damaged(&backup, &report))?;
                }
                let mut object = json!(report);
                object["location"] = json!(backup.location);
                object["state"] = json!(backup.state);
                verified.push(object);
            }
            Err(e) if session.cancel.is_cancelled() => return Err(e.into()),
            Err(e) => {
                let this = if is_damage(&e) { exit::VERIFICATION } else { exit::of(&e) };
                code = exit::worse(code, this);
                // Of the only one that was named an error is told as by every other command.
                match args.ids.len() {
                    1 => render::error::print(output, &e, None),
                    _ => output.always_unless_json(&not_opened(&backup, &e))?,
                }
                verified.push(failure(&backup, &e));
                failed = Some(e);
            }
        }
    }
    let mut object = json!({ "backups": verified });
    if let (Some(e), 1) = (&failed, args.ids.len()) {
        object["error"] = render::json::error(e);
    }
    output.object(code, object)?;
    Ok(code)
}

/// The backups named, or all that are not incomplete.
async fn chosen(args: &Verify, session: &Session) -> Result<Vec<(Arc<dyn Archive>, BackupSummary)>> {
    let module = args.among.module.as_deref();
    let mut out = Vec::new();
    for id in &args.ids {
        let located = session.locate(id, &args.among).await?;
        out.push((located.archive, located.backup));
    }
    if args.ids.is_empty() {
        let (archive, all) = session.list(&session.archive(&args.among)?).await?;
        let wanted = |b: &BackupSummary| b.state != State::Incomplete && module.is_none_or(|m| b.module == m);
        out.extend(all.into_iter().filter(wanted).map(|b| (archive.clone(), b)));
        if out.is_empty() {
            // A check that compared nothing is no success: the folder may be a disk that is not mounted.
            let none = match module {
                Some(module) => format!("there is no backup of the module {module}"),
                None => "there are no backups".to_owned(),
            };
            let e = CoreError::new(ErrorKind::NotFound, "verify", none).on(&archive);
            return Err(e.hint("`backup list` shows those that there are").into());
        }
    }
    Ok(out)
}

fn is_damage(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Cut)
}

fn sound(b: &BackupSummary, r: &VerifyReport) -> String {
    let what = match (r.opened, r.depth) {
        (false, _) => format!(
            "{} compared as encrypted bytes with what was written; not opened, because no identity is given",
            human::bytes(b.stored_bytes)
        ),
        (true, Depth::Full) => format!("{}, {}", human::entries(r.entries), human::bytes(r.bytes)),
        (true, Depth::Quick) => "structure, manifest and index".to_owned(),
    };
    let mut out = Rows::default();
    let whole = if b.state == State::Partial { ", but partial" } else { "" };
    out.row(format_args!("{} {}: sound{whole} ({what})", b.id, b.module));
    if b.state == State::Partial {
        out.row(format_args!("  it lacks what could not be read when it was made: `backup show {}`", b.id));
    }
    if !r.opened && b.damaged.is_some() {
        out.row(format_args!("  it stays marked as damaged until it is verified with --identity"));
    }
    out.into_text()
}

/// Id, module and file of one with which something is wrong.
fn heading(b: &BackupSummary, word: &str) -> Rows {
    let module = if b.module.is_empty() { "(unknown)" } else { &b.module };
    let mut out = Rows::default();
    out.row(format_args!("{} {module}: {word}: {}", b.id, b.location));
    out
}

fn damaged(b: &BackupSummary, r: &VerifyReport) -> String {
    let mut out = heading(b, "DAMAGED");
    let defects = r.defects.iter().map(|e| {
        let text = format!("cannot {}: {}", e.operation(), e.message());
        (e.subject().map(str::to_owned).unwrap_or_default(), text)
    });
    for line in human::grouped(defects) {
        out.row(format_args!("  {line}"));
    }
    out.row(format_args!(
        "  restore another backup; or what is intact of this one, elsewhere: `backup restore --salvage`"
    ));
    out.into_text()
}

fn not_opened(b: &BackupSummary, e: &Error) -> String {
    let word = match (b.state, is_damage(e)) {
        (State::Missing, _) => "MISSING",
        (_, true) => "DAMAGED",
        (_, false) => "NOT VERIFIED",
    };
    let mut out = heading(b, word);
    out.row(format_args!("  {e}"));
    if let Some(hint) = e.failed().and_then(CoreError::hint_text) {
        out.row(format_args!("  {hint}"));
    }
    out.into_text()
}

/// Of one that could not be opened, as far as it has the fields of a report.
fn failure(b: &BackupSummary, e: &Error) -> Value {
    let error = render::json::error(e);
    json!({
        "id": b.id,
        "module": b.module,
        "created": b.created,
        "opened": false,
        "defects": if is_damage(e) { vec![error.clone()] } else { Vec::new() },
        "error": error,
        "location": b.location,
    })
}
