//! Devices: who may open one reaches the hardware behind it, whatever the file system around it allows. They are made only where
//! somebody has agreed to that, by the refusal of a plan.

use backup_core::{Context, Entry, Fact, Facts, Incoming, Kind, Refusal, Result};
use std::{collections::HashSet, io};

/// The measure of `all` under which a backup says how many there are, and the name by which they are agreed to.
const DEVICES: &str = "devices";

/// Whether it is one. Character device 0:0 is none: it is how overlay file systems write that a name is gone, and opens nothing.
pub(crate) fn is_device(entry: &Entry) -> bool {
    let number = entry.posix.as_ref().and_then(|posix| posix.device).unwrap_or_default();
    entry.kind == Kind::BlockDevice || entry.kind == Kind::CharDevice && number != (0, 0)
}

/// Says in a backup how many there are.
pub(crate) fn tell(count: u64, facts: &mut Facts) {
    facts.insert("all", DEVICES, Fact::Note(count.to_string()));
}

/// Whether they may be made.
pub(crate) fn are_agreed_to(incoming: &Incoming) -> bool {
    incoming.accepts(DEVICES)
}

/// Of a plan, if devices are among what would be restored.
pub(crate) async fn refusal(incoming: &Incoming, cx: &Context) -> Result<Option<Refusal>> {
    let count = match incoming.note("all", DEVICES).and_then(|text| text.parse().ok()) {
        Some(0) => 0,
        Some(count) if incoming.selection.is_all() => count,
        // A backup that does not say it, or a part of one.
        _ => selected(incoming, cx).await?,
    };
    if count == 0 {
        return Ok(None);
    }
    let why = format!("devices would be made, {count} of them: who may open one reaches what is behind it");
    let hint = format!("agree to it by --accept {DEVICES}, or choose by --only what is restored");
    Ok(Some(Refusal::new(why, hint).acceptable_as(DEVICES)))
}

/// Those that are selected, by their own names or by links to them: what such a link leads to is made in its place.
async fn selected(incoming: &Incoming, cx: &Context) -> Result<u64> {
    let mut elsewhere = HashSet::new();
    let count = |entry: &Entry, selected: bool| {
        let is_link =
            || entry.kind == Kind::HardLink && entry.link.as_ref().is_some_and(|to| elsewhere.contains(to));
        if is_device(entry) && !selected {
            elsewhere.insert(entry.path.clone());
            return false;
        }
        selected && (is_device(entry) || is_link())
    };
    incoming.count_of_all(count, cx).await
}

/// Of one that nobody has agreed to.
pub(crate) fn not_agreed_to() -> io::Error {
    io::Error::other(format!(
        "it is a device, and nobody has agreed to make any: plan the restore with --accept {DEVICES}"
    ))
}
