//! A promise that nobody enlists is never checked.

#![allow(clippy::unwrap_used)] // the helpers of a test are test code too

use std::{fs, path::Path};

fn sources_below(folder: &Path, out: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, out);
        } else {
            out.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_promise_is_listed_in_its_macro() {
    let folder = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("src/conformance");
    for (suite, files) in [
        ("archive", &["archive.rs", "archive"][..]),
        ("backend", &["backend.rs"]),
        ("sink", &["sink.rs"]),
        ("source", &["source.rs"]),
        ("target", &["target.rs"]),
    ] {
        let mut text = String::new();
        for file in files {
            let path = folder.join(file);
            if path.is_dir() {
                sources_below(&path, &mut text);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
        let (_, list) = text.split_once("promises!(").unwrap();
        let list = list.split_once("]").unwrap().0;
        let mut promises: Vec<_> = text
            .split("pub async fn ")
            .skip(1)
            .filter_map(|rest| rest.split_once(&['(', '<'][..]))
            .map(|(name, _)| name)
            .collect();
        assert!(promises.len() > 5, "{suite}: no promises were found");
        promises.retain(|name| !list.contains(&format!("{name},")));
        assert_eq!(promises, Vec::<&str>::new(), "{suite}: not listed");
    }
}
