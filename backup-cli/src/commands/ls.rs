//! `backup ls`

use super::session::Session;
use crate::{
    args::Ls,
    exit,
    failure::{Failure, Result},
    render::{human, json::VERSION, printable, terminal},
};
use backup_kit::{BackupReader, CoreError, ErrorKind, Kind, Listed, display_path, path_from_display};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use futures::StreamExt;
use serde_json::json;
use std::io::{BufWriter, Write};

/// Lists as it reads: a listing is never held in memory.
pub(super) async fn run(args: &Ls, session: &Session) -> Result<u8> {
    let located = session.locate(&args.id, &args.among).await?;
    let reader = located.archive.open(&located.backup.id, &session.context()).await?;
    let json = session.settings.output.json;
    let mut out = BufWriter::new(terminal::stdout());
    // Not before the first entry: of a listing that finds nothing the error is the one object.
    let head = format!("{{\"version\":{VERSION},\"id\":{},\"entries\":[", json!(located.backup.id));
    let found = match &args.path {
        None => list(&*reader, None, &head, args.long, session, &mut out).await?,
        Some(path) => {
            let typed = path.as_encoded_bytes();
            let typed = typed.strip_suffix(b"/").unwrap_or(typed);
            let mut found = 0;
            // As it is printed here; where there is none, as it is.
            for wanted in path_from_display(typed).into_iter().chain([typed.to_vec()]) {
                if found == 0 {
                    found = list(&*reader, Some(&wanted), &head, args.long, session, &mut out).await?;
                }
            }
            found
        }
    };
    if let (Some(path), 0) = (&args.path, found) {
        let e = CoreError::new(ErrorKind::NotFound, "list the backup", "nothing in it has this path");
        return Err(Failure::from(e.on(path.display())));
    }
    if json {
        let head = if found == 0 { head.as_str() } else { "" };
        writeln!(out, "{head}\n],\"exit_code\":{}}}", exit::COMPLETE)?;
    }
    out.flush()?;
    Ok(exit::COMPLETE)
}

/// Writes what is at or below a path; says how many entries that are.
async fn list(
    reader: &dyn BackupReader,
    wanted: Option<&[u8]>,
    head: &str,
    with_attributes: bool,
    session: &Session,
    out: &mut impl Write,
) -> Result<u64> {
    let mut entries = reader.entries();
    let mut found = 0u64;
    loop {
        let item = tokio::select! {
            item = entries.next() => item,
            () = session.cancel.cancelled() => return Err(CoreError::cancelled().into()),
        };
        let Some(listed) = item.transpose()? else { return Ok(found) };
        let name = full_name(&listed);
        let at_or_below =
            |w| name.strip_prefix(w).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        if !wanted.is_none_or(at_or_below) {
            continue;
        }
        if session.settings.output.json {
            let before = if found > 0 { "," } else { head };
            write!(out, "{before}\n{}", printable::json(&object(&listed, &name).to_string()))?;
        } else if with_attributes {
            writeln!(out, "{}", long(&listed, &name))?;
        } else {
            writeln!(out, "{}", display_path(&name))?;
        }
        found += 1;
    }
}

fn full_name(listed: &Listed) -> Vec<u8> {
    let mut name = listed.component.clone().into_bytes();
    if !listed.entry.path.is_empty() {
        name.push(b'/');
        name.extend_from_slice(&listed.entry.path);
    }
    name
}

fn object(listed: &Listed, name: &[u8]) -> serde_json::Value {
    let e = &listed.entry;
    let posix = e.posix.as_ref();
    let mut object = json!({
        "path": display_path(name),
        "component": listed.component,
        "kind": e.kind,
        "size": e.size,
        "sha256": listed.sha256,
        "link": e.link.as_ref().map(|l| display_path(l)),
        "mode": posix.map(|p| format!("{:04o}", p.mode)),
        "uid": posix.map(|p| p.uid),
        "gid": posix.map(|p| p.gid),
        "mtime": posix.and_then(|p| jiff::Timestamp::new(p.mtime.0, p.mtime.1.try_into().ok()?).ok()),
    });
    for (key, bytes) in [("path_base64", Some(name)), ("link_base64", e.link.as_deref())] {
        if let Some(bytes) = bytes.filter(|bytes| display_path(bytes).as_bytes() != *bytes) {
            object[key] = BASE64.encode(bytes).into();
        }
    }
    object
}

/// As `ls -l` prints it.
fn long(listed: &Listed, name: &[u8]) -> String {
    let e = &listed.entry;
    let (mode, owner, time) = match &e.posix {
        Some(p) => (
            permissions(p.mode),
            format!("{} {}", p.uid, p.gid),
            jiff::Timestamp::new(p.mtime.0, 0).map(human::time).unwrap_or_default(),
        ),
        None => ("---------".to_owned(), "- -".to_owned(), "-".to_owned()),
    };
    let device = e.posix.as_ref().and_then(|p| p.device).map(|(major, minor)| format!("{major}, {minor}"));
    let size = device.unwrap_or_else(|| e.size.unwrap_or(0).to_string());
    let link = match (&e.kind, &e.link) {
        (Kind::Symlink, Some(to)) => format!(" -> {}", display_path(to)),
        (Kind::HardLink, Some(to)) => format!(" link to {}", display_path(to)),
        _ => String::new(),
    };
    format!("{}{mode} {owner:<11} {size:>12} {time:<19} {}{link}", letter(e.kind), display_path(name))
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::HardLink => 'h',
        Kind::Fifo => 'p',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
    }
}

fn permissions(mode: u32) -> String {
    let mut out = String::new();
    for (shift, special, sign) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => sign,
            (false, true) => sign.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(
            [0o755, 0o640, 0o4755, 0o2644, 0o1777].map(permissions).join(" "),
            "rwxr-xr-x rw-r----- rwsr-xr-x rw-r-Sr-- rwxrwxrwt"
        );
    }
}
