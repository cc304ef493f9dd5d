//! `backup import`

use super::session::Session;
use crate::{
    args::Import,
    exit,
    failure::{Failure, Result},
    render::{human, json},
    settings::encrypted,
};
use backup_kit::{Error, state_dir};
use serde_json::json;

/// Each file is a backup of its own; one that fails does not keep the others from being imported.
pub(super) async fn run(args: &Import, session: &Session) -> Result<u8> {
    let output = session.settings.output;
    let to = session.settings.archive(args.to.as_deref(), "--to")?;
    let mut to = encrypted(to, &args.readers.recipient, args.readers.passphrase_file.as_deref());
    let state_dir = state_dir()?;
    if let Some(warning) = to.expect_filled(&state_dir) {
        output.warning(warning);
    }
    if args.files.len() > 1 && to.open()?.holds_one() {
        let text = format!("{to} holds one backup, and several files are to be imported");
        return Err(Failure::usage("import", text, "import into a folder, or one file"));
    }
    let (mut code, mut results) = (exit::COMPLETE, Vec::new());
    for file in &args.files {
        let progress = session.progress.clone();
        let mut import = backup_kit::import(file, to.clone())
            .cancel(session.cancel.clone())
            .on_event(move |event| progress.show(event));
        if let Some(module) = &args.module {
            import = import.module(module);
        }
        for tag in &args.tag {
            import = import.tag(tag);
        }
        if let Some(note) = &args.note {
            import = import.note(note);
        }
        let shown = file.display().to_string();
        let imported = import.run().await;
        session.progress.finish();
        let (this, object) = match imported {
            Ok(report) => {
                output.beside(&to, &human::report(&report, &to.to_string()))?;
                (exit::COMPLETE, json!({ "file": shown, "report": report }))
            }
            Err(Error::Partial(report)) => {
                output.warning(format!("{shown}: not everything in it could be imported"));
                output.beside(&to, &human::report(&report, &to.to_string()))?;
                (exit::PARTIAL, json!({ "file": shown, "report": report }))
            }
            Err(e) if args.files.len() == 1 || session.cancel.is_cancelled() => {
                return Err(Failure::from(e).state("nothing of it was imported"));
            }
            Err(e) => {
                crate::render::error::print(output, &e, Some("nothing of it was imported"));
                (exit::of(&e), json!({ "file": shown, "error": json::error(&e) }))
            }
        };
        if matches!(this, exit::COMPLETE | exit::PARTIAL) {
            to.remember_filled(&state_dir);
        }
        code = exit::worse(code, this);
        results.push(object);
    }
    output.object(code, json!({ "results": results }))?;
    Ok(code)
}
