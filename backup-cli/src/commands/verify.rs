//! `backup verify`

use super::session::Session;
use crate::{args::Verify, exit, failure::Result, render::human};
use backup_kit::{Archive, BackupSummary, CoreError, Depth, ErrorKind, State, VerifyReport, verify};
use serde_json::json;
use std::sync::Arc;

pub(super) async fn run(args: &Verify, session: &Session) -> Result<u8> {
    let depth = if args.quick { Depth::Quick } else { Depth::Full };
    let output = session.settings.output;
    let (mut code, mut reports) = (exit::COMPLETE, Vec::new());
    for (archive, backup) in chosen(args, session).await? {
        let report = verify(&*archive, &backup.id, depth, &session.context()).await?;
        session.progress.finish();
        if report.defects.is_empty() {
            output.result(&sound(&backup, &report))?;
        } else {
            code = exit::worse(code, exit::VERIFICATION);
            output.always_unless_json(&damaged(&backup, &report))?;
        }
        reports.push(report);
    }
    output.object(code, json!({ "backups": reports }))?;
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
        let archive = session.archive(&args.among)?.open()?;
        let all = archive.list(&session.context()).await?;
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

fn sound(b: &BackupSummary, r: &VerifyReport) -> String {
    let what = match r.depth {
        Depth::Full => format!("{}, {}", human::entries(r.entries), human::bytes(r.bytes)),
        Depth::Quick => "structure, manifest and index".to_owned(),
    };
    format!("{} {}: sound ({what})\n", b.id, b.module)
}

fn damaged(b: &BackupSummary, r: &VerifyReport) -> String {
    let mut out = format!("{} {}: DAMAGED\n", b.id, b.module);
    for defect in &r.defects {
        out.push_str(&format!("  {defect}\n"));
    }
    out.push_str(
        "  restore another backup; or what is intact of this one, elsewhere: `backup restore --salvage`\n",
    );
    out
}
