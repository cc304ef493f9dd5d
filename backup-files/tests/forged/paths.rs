//! Paths and links that lead out of the component.

use crate::{
    forge::{Forge, Line},
    world::{World, refused, refused_in},
};
use serde_json::json;

/// An archive with one good file, and what is added.
fn with(add: impl FnOnce(&mut Forge)) -> Vec<u8> {
    let mut forge = Forge::new("zstd");
    forge.file("a", b"hello");
    add(&mut forge);
    forge.node("directory", "", None);
    forge.finish()
}

#[tokio::test]
async fn a_path_that_would_leave_its_component_is_refused() {
    for path in ["../x", "..", "d/../../x", "/etc/x", "/", "a//b", "d/", "./x", "d/.", "nul\0x"] {
        for kind in ["file", "directory", "symlink", "hard-link", "fifo"] {
            let archive = with(|forge| match kind {
                "file" => forge.file(path, b"evil"),
                "symlink" => forge.node(kind, path, Some("x")),
                "hard-link" => forge.node(kind, path, Some("a")),
                _ => forge.node(kind, path, None),
            });
            refused(&archive, "this path would leave its component").await;
        }
    }
}

#[tokio::test]
async fn a_path_that_is_not_utf8_is_looked_at_as_closely() {
    for (coded, _shown) in [("Li4v/w", b"../\xff"), ("/y8uLg", b"\xff/..")] {
        let archive = with(|forge| {
            let line = forge.file_line("x", b"evil").without("p").set("pb", coded);
            forge.line(&line);
        });
        refused(&archive, "this path would leave its component").await;
    }
    let both = with(|forge| {
        let line = forge.file_line("x", b"evil").set("pb", "eA");
        forge.line(&line);
    });
    refused(&both, "says one thing twice").await;
}

#[tokio::test]
async fn nothing_is_written_through_a_link_of_the_archive() {
    for order in [["d", "d/x"], ["d/x", "d"]] {
        let world = World::new();
        let archive = with(|forge| {
            for path in order {
                match path {
                    "d" => forge.node("symlink", "d", Some(&world.outside())),
                    _ => forge.file("d/x", b"evil"),
                }
            }
        });
        refused_in(&world, &archive, "below a link or a special file").await;
    }
}

#[tokio::test]
async fn no_folder_pipe_or_link_is_made_through_a_link_of_the_archive() {
    for kind in ["directory", "symlink", "hard-link", "fifo"] {
        let world = World::new();
        let archive = with(|forge| {
            forge.node("symlink", "d", Some(&world.outside()));
            let link = match kind {
                "symlink" => Some("x"),
                "hard-link" => Some("a"),
                _ => None,
            };
            forge.node(kind, "d/e/x", link);
        });
        refused_in(&world, &archive, "below a link or a special file").await;
    }
}

#[tokio::test]
async fn the_component_itself_cannot_be_a_link_with_something_below_it() {
    let world = World::new();
    let mut forge = Forge::new("zstd");
    let link = forge.node_line("symlink", "", Some(&world.outside()));
    forge.line(&link);
    forge.file("x", b"evil");
    refused_in(&world, &forge.finish(), "below a link or a special file").await;
}

#[tokio::test]
async fn a_hard_link_to_outside_is_refused() {
    for file in ["../../etc/passwd", "/etc/passwd", "..", "d//x"] {
        let archive = with(|forge| forge.node("hard-link", "h", Some(file)));
        refused(&archive, "hard link would lead out").await;
    }
    let nothing = with(|forge| forge.node("hard-link", "h", Some("")));
    refused(&nothing, "its link is impossible").await;
}

#[tokio::test]
async fn a_hard_link_through_a_symbolic_link_is_refused() {
    for lost in [0, 1] {
        let world = World::new();
        let mut forge = Forge::new("zstd");
        forge.node("symlink", "d", Some(&world.outside()));
        forge.node("hard-link", "h", Some("d/precious"));
        forge.node("directory", "", None);
        // Where entries were lost, the file of a hard link may be missing: then the target itself must notice.
        let archive = forge.finish_with(|manifest| {
            manifest["components"][0]["lost"] = lost.into();
            manifest["state"] = if lost == 0 { "complete" } else { "partial" }.into();
        });
        match lost {
            0 => refused_in(&world, &archive, "the file of this hard link is not in the backup").await,
            _ => {
                let before = world.picture();
                let reader = world.open(&world.save(&archive)).await.unwrap();
                let e = world.restore(&reader).await.unwrap_err();
                assert!(e.to_string().contains("where a folder must be"), "{e}");
                assert_eq!(world.picture(), before);
            }
        }
    }
}

#[tokio::test]
async fn a_hard_link_to_a_directory_or_to_itself_is_refused() {
    let directory = with(|forge| {
        forge.node("directory", "d", None);
        forge.node("hard-link", "h", Some("d"));
    });
    refused(&directory, "the file of this hard link is not in the backup").await;
}

#[tokio::test]
async fn a_path_that_is_there_twice_is_refused() {
    refused(&with(|forge| forge.file("a", b"again")), "the path is there twice").await;
    let link = with(|forge| forge.node("symlink", "a", Some("/etc/passwd")));
    refused(&link, "the path is there twice").await;
}

#[tokio::test]
async fn an_impossible_attribute_is_refused() {
    for attributes in [json!([0o10000, 0, 0, 0, 0]), json!([0o644, 0, 0, 0, 1_000_000_000])] {
        let archive = with(|forge| {
            let line = forge.file_line("x", b"1").set("a", attributes);
            forge.line(&line);
        });
        refused(&archive, "an attribute has an impossible value").await;
    }
    let archive = with(|forge| {
        let line = forge.file_line("x", b"1").set("dev", json!([1, 3]));
        forge.line(&line);
    });
    refused(&archive, "attributes without an owner").await;
}

#[tokio::test]
async fn a_name_that_the_program_itself_uses_is_only_a_name() {
    let world = World::new();
    let mut forge = Forge::new("zstd");
    for path in ["shadow", ".backup-x", "journal.json", "previous"] {
        forge.file(path, b"mine");
    }
    let line: Line = forge.node_line("directory", "", None);
    forge.line(&line);
    let reader = world.open(&world.save(&forge.finish())).await.unwrap();
    assert_eq!(world.defects(&reader).await, [""; 0]);
    world.restore(&reader).await.unwrap();
    assert_eq!(std::fs::read(world.live().join("shadow")).unwrap(), b"mine");
}
