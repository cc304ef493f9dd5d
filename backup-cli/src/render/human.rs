//! Numbers, times and tables for people.

use super::printable::{self, Rows};
use backup_kit::{BackupSummary, Note, Notes, Report, RestoreReport, Severity, State};
use jiff::{Timestamp, tz::TimeZone};

/// Of many warnings, losses or defects of one kind so many are told; the others are counted.
pub(crate) const TOLD_OF_A_KIND: usize = 3;

/// `1.2 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (n as f64, 0);
    // What would be shown as 1024.0 is shown as 1.0 of the next unit.
    while value >= 1023.95 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// `1 entry`, `2 entries`.
pub(crate) fn entries(n: u64) -> String {
    if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") }
}

/// Local time.
pub(crate) fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `3 h`; of what is yet to come 0.
pub(crate) fn age(at: Timestamp) -> String {
    span(Timestamp::now().duration_since(at).as_secs().max(0).unsigned_abs())
}

/// `3 h` for so many seconds.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

fn took(from: Timestamp, to: Timestamp) -> String {
    let ms = to.duration_since(from).as_millis().max(0);
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => span(u64::try_from(ms / 1000).unwrap_or(u64::MAX)),
    }
}

/// A state with its dates: `complete, verified 2025-08-12`, `damaged 2025-08-12, encrypted`.
pub(crate) fn state(b: &BackupSummary) -> String {
    let day = |at: Timestamp| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string();
    let state = match (b.damaged, b.verified) {
        (Some(at), _) => format!("damaged {}", day(at)),
        (None, Some(at)) => format!("{}, verified {}", b.state, day(at)),
        (None, None) => b.state.to_string(),
    };
    if b.encrypted { format!("{state}, encrypted") } else { state }
}

/// What is to be said before a backup is used that is known to be damaged, or of which nobody knows that it is whole.
pub(crate) fn distrust(b: &BackupSummary) -> Option<String> {
    let why = match b.damaged {
        Some(_) => "it must not be trusted",
        None if b.state == State::Unproven => "nothing says that it is what there was",
        None => return None,
    };
    Some(format!("the backup {} is {}: {why}", b.id, state(b)))
}

/// What a backup run made.
pub(crate) fn report(r: &Report, archive: &str) -> String {
    let mut out = Rows::default();
    out.row(format_args!("{}: {}", r.module, r.state));
    // Of next to nothing the ratio says something about our own members only.
    let ratio = match r.data_bytes {
        0..65_536 => String::new(),
        data => format!(" ({:.0} %)", r.stored_bytes as f64 * 100.0 / data as f64),
    };
    out.row(format_args!("  id       {}", r.id));
    match r.places.as_slice() {
        [] => out.row(format_args!("  file     {}", place(archive, &r.location))),
        several => {
            for p in several {
                match (&p.location, &p.error) {
                    (Some(location), None) => {
                        out.row(format_args!("  file     {}", place(&p.place, location)))
                    }
                    (_, Some(_)) => out.row(format_args!("  failed   {}", p.place)),
                    (None, None) => {}
                }
            }
        }
    }
    out.row(format_args!("  size     {} for {} of data{ratio}", bytes(r.stored_bytes), bytes(r.data_bytes)));
    out.row(format_args!("  entries  {}", r.entries));
    let excluded: Option<u64> = r.components.iter().filter_map(|c| c.excluded).reduce(u64::saturating_add);
    match excluded {
        None => {}
        Some(0) => out.row(format_args!("  excluded nothing: no path matches the exclude patterns")),
        Some(1) => {
            out.row(format_args!("  excluded 1 path, which matches the exclude patterns, with all below it"))
        }
        Some(n) => out
            .row(format_args!("  excluded {n} paths, which match the exclude patterns, with all below them")),
    }
    out.row(format_args!("  time     {}", took(r.started, r.finished)));
    out.rows(lost(&r.notes));
    out.into_text()
}

/// The file of a backup: in the archive's folder, or the archive itself.
fn place(archive: &str, location: &str) -> String {
    match archive.ends_with(location) {
        true => archive.to_owned(),
        false => format!("{}/{location}", archive.trim_end_matches('/')),
    }
}

/// What a restore did.
pub(crate) fn restored(r: &RestoreReport) -> String {
    let word = if r.state == State::Complete { "restored" } else { "restored, but not all as it was" };
    let mut out = Rows::default();
    out.row(format_args!("{}: {word}", r.module));
    for c in &r.components {
        let (n, size) = (entries(c.entries), bytes(c.bytes));
        out.row(format_args!("  {:<8} {n}, {size} to {}", c.name, c.place));
    }
    out.row(format_args!("  time     {}", took(r.started, r.finished)));
    if let Some(until) = r.undo_until {
        out.row(format_args!("  undo     the old data is kept until {}: `backup restore --undo {id}`, or `backup settle {id}` to let it go",
            time(until), id = r.id));
    }
    out.rows(lost(&r.notes));
    out.into_text()
}

fn lost(notes: &Notes) -> Rows {
    let mut out = Rows::default();
    let lost = notes.list.iter().filter(|n| n.severity == Severity::Lost);
    for line in grouped(lost.map(|n| (subject(n), n.text.clone()))) {
        out.row(format_args!("  lost     {line}"));
    }
    if notes.more[Severity::Lost as usize] > 0 {
        out.row(format_args!("  lost     and {} more", notes.more[Severity::Lost as usize]));
    }
    out
}

/// `component/path: text`.
pub(crate) fn note(n: &Note) -> String {
    told(&subject(n), &n.text)
}

fn subject(n: &Note) -> String {
    match (n.component.as_str(), n.path.as_str()) {
        ("", other) | (other, "") => other.to_owned(),
        (component, path) => format!("{component}/{path}"),
    }
}

fn told(subject: &str, text: &str) -> String {
    if subject.is_empty() { text.to_owned() } else { format!("{subject}: {text}") }
}

/// Lines `subject: text`, but of many with one text the first three only, and how many there are: what is wrong with a frame is wrong
/// with every file in it. `--json` has them all.
pub(crate) fn grouped(lines: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (subject, text) in lines {
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, subjects)) => subjects.push(subject),
            None => groups.push((text, vec![subject])),
        }
    }
    let mut out = Vec::new();
    for (text, subjects) in groups {
        // "and 1 more" takes a line, too.
        let shown = if subjects.len() > TOLD_OF_A_KIND + 1 { TOLD_OF_A_KIND } else { subjects.len() };
        out.extend(subjects[..shown].iter().map(|subject| told(subject, &text)));
        if subjects.len() > shown {
            out.push(format!("and {} more: {text}", subjects.len() - shown));
        }
    }
    out
}

/// Columns as wide as their widest cell; the last one is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let shown = |row: &Vec<String>| row.iter().map(|cell| printable::line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 20, u64::MAX].map(bytes).join(" "),
            "0 B 1023 B 1.0 KiB 1.5 KiB 1.0 MiB 16.0 EiB"
        );
        assert_eq!([5, 119, 120, 7199, 7200, 200_000].map(span).join(" "), "5 s 119 s 2 min 119 min 2 h 2 d");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
    }

    #[test]
    fn many_of_one_kind_are_told_once_and_counted() {
        let line = |n: usize, text: &str| (format!("c/{n}"), text.to_owned());
        let mut lines: Vec<_> = (0..300).map(|n| line(n, "its frame is damaged")).collect();
        lines.insert(2, line(7, "is not in the index"));
        assert_eq!(
            grouped(lines),
            [
                "c/0: its frame is damaged",
                "c/1: its frame is damaged",
                "c/2: its frame is damaged",
                "and 297 more: its frame is damaged",
                "c/7: is not in the index",
            ]
        );
        assert_eq!(grouped((0..4).map(|n| line(n, "x"))).len(), 4);
        assert_eq!(grouped([(String::new(), "x".to_owned())]), ["x"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
        assert_eq!(table(&[vec!["\x1b\n".into(), "x".into()]]), "\\x1b\\x0a  x\n");
    }
}
