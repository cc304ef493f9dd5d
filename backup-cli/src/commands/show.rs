//! `backup show`

use super::session::Session;
use crate::{
    args::Show,
    exit,
    failure::Result,
    render::{human, printable::Rows},
};
use backup_kit::{BackupSummary, CoreError, Fact, Manifest, only_of};
use serde_json::{Value, json};

pub(super) async fn run(args: &Show, session: &Session) -> Result<u8> {
    let located = session.locate(&args.id, &args.among).await?;
    let reader = located.archive.open(&located.backup.id, &session.context()).await?;
    if session.settings.output.json {
        let manifest: Value = serde_json::from_slice(&reader.manifest().to_json())
            .map_err(|e| CoreError::damaged("show the manifest", e))?;
        session
            .settings
            .output
            .object(exit::COMPLETE, json!({ "backup": located.backup, "manifest": manifest }))?;
        return Ok(exit::COMPLETE);
    }
    session.settings.output.always(&text(&located.backup, reader.manifest()))?;
    Ok(exit::COMPLETE)
}

fn text(b: &BackupSummary, m: &Manifest) -> String {
    let mut out = Rows::default();
    out.row(format_args!("{}: {}", b.module, human::state(b)));
    out.row(format_args!("  id       {}", b.id));
    out.row(format_args!(
        "  created  {} ({} ago) on {}",
        human::time(b.created),
        human::age(b.created),
        m.header.host
    ));
    out.row(format_args!("  series   {}", b.series));
    if let Some(only) = only_of(b) {
        out.row(format_args!("  only     {}: a part of the module", only.join(", ")));
    }
    out.row(format_args!("  file     {}", b.location));
    // Of the manifest: outside of an encrypted backup these are not known.
    out.row(format_args!("  size     {} of {}", human::bytes(b.stored_bytes), human::bytes(m.data_bytes())));
    out.row(format_args!("  entries  {}", m.entries()));
    if !b.tags.is_empty() {
        out.row(format_args!("  tags     {}", b.tags.join(", ")));
    }
    if let Some(note) = &b.note {
        out.row(format_args!("  note     {note}"));
    }
    for (key, value) in &m.header.metadata {
        out.row(format_args!("  {key:<8} {value}"));
    }
    for c in &m.components {
        let lost = if c.lost > 0 { format!(", {} LOST", c.lost) } else { String::new() };
        let n = human::entries(c.proof.count("all", "entries"));
        let size = human::bytes(c.proof.count("all", "bytes"));
        out.row(format_args!("component {} ({}): {n}, {size}{lost}", c.header.name, c.header.kind));
        out.row(format_args!("  moment   {} to {}", human::time(c.moment.first), human::time(c.moment.last)));
        if !c.header.origin.is_null() {
            out.row(format_args!("  origin   {}", c.header.origin));
        }
        for (subject, measure, fact) in c.proof.iter() {
            if let Fact::Note(text) = fact
                && subject == "all"
            {
                out.row(format_args!("  {measure:<8} {text}"));
            }
        }
    }
    for text in &m.not_included {
        out.row(format_args!("not included: {text}"));
    }
    for note in &m.notes.list {
        let severity = format!("{:?}", note.severity).to_lowercase();
        out.row(format_args!("{severity}: {}", human::note(note)));
    }
    let more = m.notes.more.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
    if more > 0 {
        out.row(format_args!("and {more} more notes"));
    }
    out.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_manifest_that_cannot_be_are_shown_and_end_nothing() {
        let component = |name: &str| {
            json!({
                "name": name, "kind": "files", "folder": "files", "origin": null, "lost": 0,
                "moment": { "first": "2025-08-11T09:16:28Z", "last": "2025-08-11T09:16:28Z" },
                "proof": [["all", "entries", { "count": u64::MAX }], ["all", "bytes", { "count": u64::MAX }]],
            })
        };
        let manifest = json!({
            "format": 1, "id": "0".repeat(26), "module": "m", "series": "m@h", "host": "h", "state": "complete",
            "created": "2025-08-11T09:16:28Z", "finished": "2025-08-11T09:16:28Z", "notes": [], "not_included": [],
            "more_notes": [u64::MAX, 1, 0], "layout": null, "components": [component("a"), component("b")],
        });
        let m = Manifest::from_json(manifest.to_string().as_bytes()).unwrap();
        let shown = text(&summary(&m), &m);
        assert!(shown.contains(&format!("entries  {}\n", u64::MAX)), "{shown}");
        assert!(shown.contains(&format!("and {} more notes", u64::MAX)), "{shown}");
    }

    fn summary(m: &Manifest) -> BackupSummary {
        BackupSummary {
            id: m.header.id.clone(),
            module: m.header.module.clone(),
            series: m.header.series.clone(),
            created: m.header.created,
            state: m.state,
            location: "m.tar.zst".into(),
            stored_bytes: 0,
            data_bytes: m.data_bytes(),
            entries: m.entries(),
            components: vec![],
            verified: None,
            damaged: None,
            tags: vec![],
            note: None,
            encrypted: false,
            was: None,
        }
    }
}
