//! `backup restore`

mod guided;

use super::session::{Located, Session};
use crate::{
    args::Restore as Args,
    consent, exit,
    failure::{Failure, Result},
    render::{Output, human, plan},
};
use backup_kit::{CoreError, Error, Old, Only, Restore, RestorePlan, Severity, conclude, kept, state_dir};
use serde_json::json;

pub(super) async fn run(args: &Args, session: &Session) -> Result<u8> {
    if args.undo {
        return undo(args, session).await;
    }
    if !args.dry_run {
        session.heal_first().await?;
    }
    let plan = plan(args, session).await?;
    session.progress.finish();
    let output = session.settings.output;
    if args.dry_run {
        output.result(&plan::text(plan.plan()))?;
        let refused = plan.refused();
        let code = if refused.is_some() { exit::REFUSED } else { exit::COMPLETE };
        let refused = refused.map(|e| e.to_string());
        let object =
            json!({ "plan": plan.plan(), "needs_consent": plan.needs_consent(), "refused": refused });
        output.object(code, object)?;
        return Ok(code);
    }
    let given = consent::Given { confirm: args.confirm.as_deref(), yes: args.yes };
    // Nobody is asked about a plan that was not shown.
    let shown = Output { quiet: output.quiet && !given.must_be_asked(&plan), ..output };
    for line in plan::text(plan.plan()).lines() {
        shown.info(line);
    }
    // Nobody is asked to agree to what is not done anyway.
    if let Some(e) = plan.refused() {
        return Err(e.into());
    }
    let confirmation = consent::obtain(&plan, given, &session.cancel).await?;
    let applied = plan.apply(confirmation).await;
    session.progress.finish();
    let (code, report) = match applied {
        Ok(report) => {
            output.success(format!("{}: the backup {} is restored", report.module, report.backup));
            (exit::COMPLETE, report)
        }
        Err(Error::RestoredPartly(report)) => (exit::PARTIAL, *report),
        Err(Error::Salvaged(report)) => {
            let said = match report.notes.worst() {
                Some(Severity::Lost) => "only what is intact is restored: it is NOT complete",
                _ => "the backup is damaged where no entry is: all that was asked for is restored",
            };
            output.warning(format!("{}: {said}", report.module));
            (exit::VERIFICATION, *report)
        }
        Err(e) => return Err(e.into()),
    };
    output.result(&human::restored(&report))?;
    output.object(code, json!({ "report": report }))?;
    Ok(code)
}

/// What is to be restored, and where to: as it was typed, or chosen on the terminal.
struct Wanted {
    located: Located,
    only: Vec<Only>,
    to: Vec<String>,
}

async fn wanted(args: &Args, session: &Session) -> Result<Wanted> {
    let Some(text) = &args.which else {
        if guided::is_possible(session) && args.only.is_empty() && args.to.is_empty() {
            return guided::choose(&args.among, session).await;
        }
        return Err(Failure::usage(
            "choose a backup",
            "none is named",
            "`backup restore latest`, or an id, a date or a file: `backup list` shows those that there are",
        ));
    };
    let only: Vec<Only> = args.only.iter().map(|text| text.parse()).collect::<Result<_, CoreError>>()?;
    let components: Vec<&str> = only.iter().map(Only::of).collect();
    let located = session.locate_silently(text, &args.among, &components).await?;
    Ok(Wanted { located, only, to: args.to.clone() })
}

async fn plan(args: &Args, session: &Session) -> Result<RestorePlan> {
    let Wanted { located, only, to } = wanted(args, session).await?;
    let module = args.among.module.as_deref();
    if let Some(warning) = human::distrust(&located.backup) {
        session.settings.output.warning(warning);
    }
    let progress = session.progress.clone();
    let mut restore = Restore::new(located.spec)
        .registry(session.settings.registry.clone())
        .which(located.which)
        .settle(args.settle)
        .no_owner(args.no_owner)
        .merge(args.merge)
        .in_place(args.in_place.iter().any(String::is_empty))
        .schema_only(args.schema_only)
        .data_only(args.data_only)
        .skip_binary_log(args.skip_binary_log)
        .globals(args.globals)
        .salvage(args.salvage)
        .cancel(session.cancel.clone())
        .on_event(move |event| progress.show(event));
    // What is disposable is said by the configuration of the backup's own module.
    let of = &located.backup.module;
    if let Some(config) = session.settings.config.as_ref().filter(|c| c.module_names().any(|m| m == of)) {
        restore = restore.of(config.module(of)?);
    } else if let Some(module) = module {
        restore = restore.of_name(module);
    }
    for only in only {
        restore = restore.only(only);
    }
    for component in args.in_place.iter().filter(|component| !component.is_empty()) {
        restore = restore.in_place_of(component);
    }
    for name in &args.accept {
        restore = restore.accept(name);
    }
    for to in &to {
        restore = restore.to_place(to);
    }
    Ok(restore.plan().await?)
}

async fn undo(args: &Args, session: &Session) -> Result<u8> {
    let settings = &session.settings;
    let cx = session.context();
    let (id, module) = (args.which.as_deref(), args.among.module.as_deref());
    let kept = kept(Old::BringBack, id, module, &state_dir()?)?;
    if !args.yes {
        let places: Vec<&str> = kept.targets.iter().map(|t| t.place.as_str()).collect();
        let dropped = format!("what was written since then in {} is dropped", places.join(", "));
        consent::ask_for(&kept.label, &dropped, &session.cancel).await?;
    }
    let id = Some(kept.id.as_str());
    let undone = conclude(Old::BringBack, id, module, &state_dir()?, &settings.registry, &cx).await?;
    for target in &undone.targets {
        settings.output.result_line(&format!(
            "{}: the data from before the restore is back in {}",
            undone.label, target.place
        ))?;
    }
    settings.output.object(exit::COMPLETE, json!({ "undone": undone }))?;
    Ok(exit::COMPLETE)
}
