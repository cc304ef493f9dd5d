//! `backup create`

use super::session::Session;
use crate::{
    args::Create,
    exit,
    failure::{Failure, Result},
    render::{human, json},
    settings::encrypted,
};
use backup_kit::{
    ArchiveSpec, Backup, CoreError, Error, ErrorKind, Module, Preflight, ReadBack, Report, State, only_of,
    state_dir,
};
use serde_json::{Value, json};

/// A module, or why it cannot be backed up as it is configured.
type Named = (String, Result<Module, CoreError>);

pub(super) async fn run(args: &Create, session: &Session) -> Result<u8> {
    let modules = modules(args, session).await?;
    let mut archives = archives(args, session)?;
    let state_dir = state_dir()?;
    for warning in archives.iter_mut().filter_map(|archive| archive.expect_filled(&state_dir)) {
        session.settings.output.warning(warning);
    }
    if modules.len() > 1 && archives.iter().any(ArchiveSpec::is_pipe) {
        return Err(Failure::usage(
            "write the archive to stdout",
            "a pipe takes one backup, and several modules are configured",
            "name one: -m MODULE",
        ));
    }
    if args.read_back.is_some() && archives.iter().any(ArchiveSpec::is_pipe) {
        let text = "what went into a pipe cannot be read again";
        return Err(Failure::usage("read the backup back", text, "leave --read-back out"));
    }
    if args.dry_run {
        return dry_run(args, modules, &archives, session).await;
    }
    // A backup of what is not whole would pass for one of the application.
    let gone = session.heal_first().await?;
    if let Some((_, gone)) = gone.into_iter().find(|(of, _)| modules.iter().any(|(name, _)| name == of)) {
        return Err(
            Failure::from(gone).state("no backup is made this time; the next one takes what is there then")
        );
    }
    let (mut code, mut results) = (exit::COMPLETE, Vec::new());
    let (mut stored, mut not_stored) = (Vec::new(), Vec::new());
    let last = modules.len() - 1;
    for (i, (name, module)) in modules.into_iter().enumerate() {
        let made = match module {
            Ok(module) => backup(args, module, &archives, session).run().await,
            Err(e) => Err(e.into()),
        };
        session.progress.finish();
        let (this, object) = match made {
            Ok(report) => {
                session.settings.output.success(format!("{name}: the backup {} is complete", report.id));
                session
                    .settings
                    .output
                    .beside(&archives[0], &human::report(&report, &archives[0].to_string()))?;
                (exit::COMPLETE, json!({ "module": name, "report": report }))
            }
            Err(Error::Partial(report)) => {
                session.settings.output.warning(format!("{name}: the backup {} is partial", report.id));
                session
                    .settings
                    .output
                    .beside(&archives[0], &human::report(&report, &archives[0].to_string()))?;
                (exit::PARTIAL, json!({ "module": name, "report": report }))
            }
            Err(Error::NotEverywhere(report)) => {
                tell_not_everywhere(&report, &archives, session)?;
                let partial = if report.state == State::Complete { exit::COMPLETE } else { exit::PARTIAL };
                (exit::worse(exit::DESTINATION, partial), json!({ "module": name, "report": report }))
            }
            Err(e) => {
                let mut state = match is_damaged_there(&e) {
                    true => "the backup is stored, and must not be trusted".to_owned(),
                    false => state(&archives[0], &name, args.only.is_empty(), session).await,
                };
                if last > 0 {
                    state = format!("of the module {name} {state}");
                }
                let failure = Failure::from(named(e, &name, last > 0)).state(state);
                let code = failure.code();
                // With several modules the others still run; a signal ends them all.
                let Failure::Error { error, state } = &failure else { return Err(failure) };
                if last == 0 || session.cancel.is_cancelled() {
                    return Err(failure);
                }
                crate::render::error::print(session.settings.output, error, state.as_deref());
                (code, json!({ "module": name, "error": json::error(error), "state": state }))
            }
        };
        match object.get("report") {
            Some(_) => stored.push(name),
            None => not_stored.push(name),
        }
        if matches!(this, exit::COMPLETE | exit::PARTIAL) {
            archives.iter().for_each(|archive| archive.remember_filled(&state_dir));
        }
        code = exit::worse(code, this);
        results.push(object);
        if i < last && session.cancel.is_cancelled() {
            return Err(CoreError::cancelled().into());
        }
    }
    if !not_stored.is_empty() {
        let stored = if stored.is_empty() { "none".to_owned() } else { stored.join(", ") };
        let text = format!("modules that are backed up: {stored}; that are not: {}", not_stored.join(", "));
        session.settings.output.warning(text);
    }
    session.settings.output.object(code, json!({ "results": results }))?;
    Ok(code)
}

/// Where to: each `--to`, else the one that is known without it.
fn archives(args: &Create, session: &Session) -> Result<Vec<ArchiveSpec>> {
    let named: Vec<Option<&str>> = match args.to.as_slice() {
        [] => vec![None],
        several => several.iter().map(|to| Some(to.as_str())).collect(),
    };
    let mut archives = Vec::with_capacity(named.len());
    for name in named {
        let archive = match name {
            Some(name) if args.to.len() > 1 => session.settings.one_of_several(name, "--to")?,
            _ => session.settings.archive(name, "--to")?,
        };
        let mut archive =
            encrypted(archive, &args.readers.recipient, args.readers.passphrase_file.as_deref());
        for file in &args.identity {
            archive = archive.identity(file);
        }
        if let Some(level) = args.level {
            archive = archive.level(level);
        }
        if let Some(format) = args.format {
            if archive.why_unusable().is_none() && archive.open()?.holds_one() && !archive.is_pipe() {
                return Err(Failure::usage(
                    "use the format",
                    "the archive is exactly one file, and its name says how it is written",
                    "leave --format out, or give the file another ending",
                ));
            }
            archive = archive.format(format);
        }
        archives.push(archive);
    }
    Ok(archives)
}

/// The places that failed, each with its error; then the report of the others.
fn tell_not_everywhere(report: &Report, archives: &[ArchiveSpec], session: &Session) -> Result<()> {
    let output = session.settings.output;
    for place in &report.places {
        if let Some(error) = &place.error {
            let error = Error::from(error.clone().within(&place.place));
            crate::render::error::print(
                output,
                &error,
                Some("the backup is not there; the other places have it"),
            );
        }
    }
    output.warning(format!(
        "{}: the backup {} is {}, but not everywhere",
        report.module, report.id, report.state
    ));
    output.beside(&archives[0], &human::report(report, ""))
}

/// What is to be backed up: the sources given, the module named, or all that are configured, also those of which a variable is not set:
/// they are not in the way of the others.
async fn modules(args: &Create, session: &Session) -> Result<Vec<Named>> {
    let settings = &session.settings;
    let modules = if !args.sources.is_empty() {
        let module = Module::from_places(&args.sources, args.module.as_deref(), &settings.registry).await?;
        vec![(module.name().to_owned(), Ok(module))]
    } else if let Some(name) = &args.module {
        vec![(name.clone(), Ok(settings.config()?.module(name)?))]
    } else if let Some(config) = &settings.config {
        config.module_names().map(|name| (name.to_owned(), config.module(name))).collect()
    } else {
        Vec::new()
    };
    if modules.is_empty() {
        return Err(Failure::usage(
            "choose what to back up",
            "no source is named and no module is configured",
            "`backup create ./FOLDER --to ./BACKUPS`, or modules in backup.toml (`backup config example`)",
        ));
    }
    let with_flags = |(name, module): Named| match module {
        Ok(module) => Ok((name, Ok(with_flags(args, module)?))),
        Err(e) => Ok((name, Err(e))),
    };
    modules.into_iter().map(with_flags).collect()
}

fn with_flags(args: &Create, mut module: Module) -> Result<Module> {
    if !args.exclude.is_empty() {
        module = module.configure("exclude", &json!(args.exclude))?;
    }
    if !args.exclude_file.is_empty() {
        module = module.configure("exclude_files", &json!(args.exclude_file))?;
    }
    if args.one_file_system {
        module = module.configure("one_file_system", &Value::Bool(true))?;
    }
    Ok(module)
}

fn backup(args: &Create, module: Module, archives: &[ArchiveSpec], session: &Session) -> Backup {
    let progress = session.progress.clone();
    let mut backup = module
        .backup()
        .strict(args.strict)
        .allow_partial(args.allow_partial)
        .read_back(read_back(args, archives))
        .cancel(session.cancel.clone())
        .on_event(move |event| progress.show(event));
    for archive in archives {
        backup = backup.to(archive.clone());
    }
    for component in &args.only {
        backup = backup.only(component);
    }
    for tag in &args.tag {
        backup = backup.tag(tag);
    }
    if let Some(note) = &args.note {
        backup = backup.note(note);
    }
    if let Some(wait) = args.wait {
        backup = backup.wait(wait);
    }
    backup
}

/// With a configuration it is more than creating.
fn read_back(args: &Create, archives: &[ArchiveSpec]) -> ReadBack {
    match args.read_back {
        Some(how) => how.into(),
        None if !args.sources.is_empty() || archives.iter().any(ArchiveSpec::is_pipe) => ReadBack::None,
        None if archives.iter().any(ArchiveSpec::is_remote) => ReadBack::Tail,
        None => ReadBack::Full,
    }
}

async fn dry_run(
    args: &Create,
    modules: Vec<Named>,
    archives: &[ArchiveSpec],
    session: &Session,
) -> Result<u8> {
    let mut found = Vec::new();
    let several = modules.len() > 1;
    for (name, module) in modules {
        let preflight = match module {
            Ok(module) => backup(args, module, archives, session).preflight().await,
            Err(e) => Err(e.into()),
        };
        let preflight = preflight.map_err(|e| Failure::from(named(e, &name, several)))?;
        for warning in &preflight.warnings {
            session.settings.output.warning(warning);
        }
        session.settings.output.beside(&archives[0], &preflight_text(&preflight))?;
        found.push(preflight);
    }
    session.settings.output.object(exit::COMPLETE, json!({ "dry_run": found }))?;
    Ok(exit::COMPLETE)
}

fn preflight_text(p: &Preflight) -> String {
    let mut out = format!("{}: would be backed up to {}\n", p.module, p.archive);
    for c in &p.components {
        let estimate = c.estimate.map(|n| format!(", about {}", human::bytes(n))).unwrap_or_default();
        out.push_str(&format!("  {:<8} {} {}{estimate}\n", c.name, c.kind, c.source));
    }
    out
}

/// The module is what the error is about, unless it names something nearer; of several modules it is named in any case.
fn named(e: Error, module: &str, several: bool) -> Error {
    match e {
        Error::Failed(e) if several => Error::Failed(e.within(format!("the module {module}"))),
        Error::Failed(e) => Error::Failed(e.on(module)),
        other => other,
    }
}

/// Of all errors only this one comes after the backup was stored.
fn is_damaged_there(e: &Error) -> bool {
    e.failed().is_some_and(|e| e.kind() == ErrorKind::Damaged && e.operation() == "read the backup back")
}

/// What there is after a failed backup.
async fn state(archive: &ArchiveSpec, module: &str, whole: bool, session: &Session) -> String {
    if archive.is_pipe() {
        return "what is in the pipe has no end, and is no backup".to_owned();
    }
    let cx = session.context().calm();
    let list = async { archive.open().ok()?.list(&cx).await.ok() };
    let list = tokio::time::timeout(std::time::Duration::from_secs(5), list).await.ok().flatten();
    let last = list
        .iter()
        .flatten()
        .filter(|b| b.module == module && b.state == State::Complete && b.damaged.is_none())
        // A part is not what somebody who has lost the whole would look for.
        .filter(|b| !whole || only_of(b).is_none())
        .map(|b| b.created)
        .max();
    match (list.is_some(), last) {
        (_, Some(at)) => format!("nothing is stored; the last complete backup is {} old", human::age(at)),
        (true, None) => "nothing is stored; there is no complete backup yet".to_owned(),
        (false, None) => "nothing is stored".to_owned(),
    }
}
