//! The vendor's tools alone restore what is in an archive, by the commands that it holds.

use crate::common::{Database, pour};
use backup_core::{Context, HostRunner, Source, ToolCommand, output_of};
use backup_testkit::{memory::Contents, run};
use std::{path::Path, time::Duration};

const EVERYTHING: &str = include_str!("../common/everything.sql");

#[test]
fn the_guide_in_the_backup_is_followed_literally() {
    run("the_guide_in_the_backup_is_followed_literally", async {
        let from = Database::with(15, EVERYTHING).await;
        follow_the_guide(&from, &*from.source()).await;
    });
}

/// Restores what this source of the database gives, in the place of the database.
pub(crate) async fn follow_the_guide(from: &Database, source: &dyn Source) {
    let expected = from.fingerprint().await;
    let (contents, _) = pour(source, &Context::default()).await.unwrap();
    let folder = unpacked(&contents);
    from.admin(&format!("ALTER DATABASE {} RENAME TO kept_{}", from.name, from.name)).await;
    follow(from, folder.path()).await;
    assert_eq!(from.fingerprint().await, expected);
    from.admin(&format!("DROP DATABASE kept_{}", from.name)).await;
}

/// As an archive that was unpacked.
pub(crate) fn unpacked(contents: &Contents) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, held) in contents {
        let path = folder.path().join(std::str::from_utf8(path).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes: Vec<u8> = held.chunks.iter().flat_map(|c| c.iter().copied()).collect();
        // As an archive keeps what is long.
        if bytes.len() < 100_000 {
            std::fs::write(path, bytes).unwrap();
            continue;
        }
        for (n, segment) in bytes.chunks(70_000).enumerate() {
            std::fs::write(format!("{}.seg{n:06}", path.display()), segment).unwrap();
        }
    }
    folder
}

/// Runs the commands of the guide in this folder, with the server of the database.
pub(crate) async fn follow(database: &Database, folder: &Path) {
    let guide = std::fs::read_to_string(folder.join("database/RESTORE.md")).unwrap();
    for block in guide.split("```sh\n").skip(1) {
        let script = format!("set -e; cd '{}'\n{}", folder.display(), block.split("```").next().unwrap());
        let call = ToolCommand { program: "sh".into(), ..database.tool("sh", "postgres") };
        let done =
            output_of(&HostRunner, call.args(["-c", &script]), 1 << 20, Duration::from_secs(100)).await;
        done.unwrap_or_else(|e| panic!("{e}\n{block}"));
    }
}
