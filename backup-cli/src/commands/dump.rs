//! `backup dump`

use super::session::Session;
use crate::{
    args::Dump,
    exit,
    failure::{Failure, Result},
    render::{human, terminal},
};
use backup_kit::{
    BackupReader, CoreError, ErrorKind, Kind, Manifest, mark_damaged, met_damage, path_from_display,
};
use std::io::Write;

/// The bytes of one file, to stdout. Its digest is known at the end only: an error then says that what was written is wrong.
pub(super) async fn run(args: &Dump, session: &Session) -> Result<u8> {
    if session.settings.output.json {
        return Err(Failure::usage(
            "dump a file",
            "its bytes and an object cannot both be on stdout",
            "leave out --json",
        ));
    }
    let located = session.locate(&args.id, &args.among).await?;
    if let Some(warning) = human::distrust(&located.backup) {
        session.settings.output.warning(warning);
    }
    let id = &located.backup.id;
    let reader = match located.archive.open(id, &session.context()).await {
        Ok(reader) => reader,
        Err(e) => {
            if met_damage(&e) {
                mark_damaged(&*located.archive, id, &session.context()).await;
            }
            return Err(e.into());
        }
    };
    // What `ls` prints is taken as such first: two names are never printed alike.
    let typed = args.path.as_encoded_bytes();
    let shown = path_from_display(typed);
    let names = shown.as_deref().into_iter().chain([typed]);
    let places: Vec<(&str, &[u8])> = names.flat_map(|name| places(name, reader.manifest())).collect();
    let mut last = CoreError::new(ErrorKind::NotFound, "dump a file", "the backup has no such component")
        .hint("the path is COMPONENT/PATH, as `backup ls ID` prints it");
    for (component, path) in places {
        match write(&*reader, component, path, session).await {
            Err(Failure::Error { error: backup_kit::Error::Failed(e), .. })
                if e.kind() == ErrorKind::NotFound =>
            {
                last = e
            }
            Err(Failure::ReaderGone) => return Ok(exit::FAILED),
            Err(Failure::Error { error, state }) if error.kind() == ErrorKind::Damaged => {
                mark_damaged(&*located.archive, &located.backup.id, &session.context()).await;
                return Err(Failure::Error { error, state });
            }
            other => return other.map(|()| exit::COMPLETE),
        }
    }
    Err(last.on(args.path.display()).into())
}

/// What a path may mean: `component/path` first; of a backup with one component also a path alone.
fn places<'a>(path: &'a [u8], manifest: &'a Manifest) -> Vec<(&'a str, &'a [u8])> {
    let slash = path.iter().position(|b| *b == b'/');
    let (first, rest) = slash.map_or((path, &[][..]), |at| (&path[..at], &path[at + 1..]));
    let mut out = Vec::new();
    if let Some(named) = manifest.components.iter().find(|c| c.header.name.as_bytes() == first) {
        out.push((named.header.name.as_str(), rest));
    }
    if let [only] = manifest.components.as_slice() {
        out.push((only.header.name.as_str(), path));
    }
    out
}

async fn write(reader: &dyn BackupReader, component: &str, path: &[u8], session: &Session) -> Result<()> {
    let cx = session.context();
    let (mut entry, mut content) = reader.content(component, path, &cx).await?;
    if let (Kind::HardLink, Some(file)) = (entry.kind, entry.link.clone()) {
        (entry, content) = reader.content(component, &file, &cx).await?;
    }
    if entry.kind != Kind::File {
        let e = CoreError::new(ErrorKind::Usage, "dump a file", "it is no file").on(entry.display_path());
        return Err(e.hint("a folder is restored elsewhere: `backup restore ID --only … --to …`").into());
    }
    let mut out = terminal::stdout();
    loop {
        let bytes = tokio::select! {
            bytes = content.next() => bytes?,
            () = session.cancel.cancelled() => return Err(CoreError::cancelled().into()),
        };
        let Some(bytes) = bytes else { break };
        out.write_all(&bytes)?;
    }
    Ok(out.flush()?)
}
