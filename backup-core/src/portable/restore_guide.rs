//! `RESTORE.md`: how to get everything back without this program.

use super::{Compression, name};
use crate::BackupHeader;

/// Stores that are put back by commands of theirs say which in a `RESTORE.md` among their entries.
const WITH_GUIDES: &str = "db";

/// The guide of one backup, with the exact commands for what is in it.
pub(super) fn text(header: &BackupHeader, compression: Compression, encrypted: bool) -> String {
    let program = match compression {
        Compression::Zstd => Some("zstd"),
        Compression::Gzip => Some("gzip"),
        Compression::Xz => Some("xz"),
        Compression::None => None,
    };
    let file = format!("BACKUP.{}{}", compression.extension(), if encrypted { name::ENCRYPTED } else { "" });
    let unpack = match (encrypted, program) {
        (false, None) => format!("tar -xf ../{file}"),
        (false, Some(program)) => format!("{program} -dc ../{file} | tar -x"),
        (true, None) => format!("age -d -i ../IDENTITY ../{file} | tar -x"),
        (true, Some(program)) => format!("age -d -i ../IDENTITY ../{file} | {program} -dc | tar -x"),
    };
    let mut tools: String = program.map(|p| format!(", {p}")).unwrap_or_default();
    let mut key = "";
    if encrypted {
        tools.push_str(", age");
        key = "\n`IDENTITY` stands for the file with the secret key; for a passphrase leave `-i ../IDENTITY` out.";
    }
    let mut out = format!(
        "# How to restore this backup by hand\n\n\
         Module {}, made {} on {}. `{file}` below stands for the file that this text was in.{key}\n\
         Everything is plain tar; all you need is GNU tar 1.29 or newer{}, and sha256sum.\n\n\
         1. Unpack into an empty folder, as root to get owners and devices back:\n\n\
         \x20      mkdir restored && cd restored\n\
         \x20      {} -p --xattrs --xattrs-include='*' --acls --numeric-owner\n\n\
         2. Compare with the checksums (no output means that all is well):\n\n\
         \x20      cat SHA256SUMS/* | sha256sum --check --quiet\n\n\
         \x20  A file that is listed as missing or empty, and has `\"discarded\"` in its line of `index/`, failed while the\n\
         \x20  backup was made; `manifest.json` says so, too.\n\n\
         3. Where `NAME.seg000000`, `NAME.seg000001` … are there and `NAME` itself is not, they are the parts of it:\n\
         \x20  `cat NAME.seg?????? > NAME`.\n\n\
         4. Put back what you find:\n\n",
        header.module, header.created, header.host, tools, unpack,
    );
    for c in &header.components {
        let origin = match c.origin.get("path").and_then(serde_json::Value::as_str) {
            Some(path) => format!("; it was at `{}`", path.replace(['`', '\n', '\r'], "?")),
            None => String::new(),
        };
        let place = format!("{}/{}", c.folder, c.name);
        let guide = match c.folder == WITH_GUIDES {
            true => format!(
                ". It has a guide of its own, one for each database where there are several:\n     `find {place} -name RESTORE.md`"
            ),
            false => String::new(),
        };
        out.push_str(&format!("   * `{place}` ({}){origin}{guide}\n", c.kind));
    }
    out.push_str(
        "\n   Folders and files are as they were: move them to their place. A SQLite database is one file; what its `-wal`\n   \
         held is in it, so remove a `-wal`, `-shm` or `-journal` of the old one before you put it there.\n",
    );
    out
}
