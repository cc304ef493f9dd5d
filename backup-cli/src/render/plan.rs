//! The plan of a restore for people.

use super::{
    human::{age, bytes, entries, span, time},
    printable::Rows,
};
use backup_kit::{Plan, State};

/// What is restored, where to, what is replaced and for how long it is kept.
pub(crate) fn text(plan: &Plan) -> String {
    let b = &plan.backup;
    let partial = match b.state {
        State::Partial => ", PARTIAL",
        State::Unproven => ", UNPROVEN",
        _ => "",
    };
    let in_place = plan.members.iter().any(|m| m.survey.in_place);
    let mut out = Rows::default();
    let (made, ago) = (time(b.created), age(b.created));
    out.row(format_args!("{}: backup {} of {made} ({ago} ago{partial})", b.module, b.id));
    for m in &plan.members {
        let part = if m.selective { " (a part of it)" } else { "" };
        let (n, size) = (entries(m.entries), bytes(m.bytes));
        out.row(format_args!("  restore  {}{part}: {n}, {size} to {}", m.component, m.survey.place));
        if m.survey.replaces {
            let disposable = if m.disposable { " (disposable)" } else { "" };
            let word = if m.survey.merges { "MERGE  " } else { "REPLACE" };
            out.row(format_args!("  {word}  {}: {}{disposable}", m.survey.place, m.survey.present));
        }
        if !m.survey.publish.is_empty() {
            out.row(format_args!("  how      {}", m.survey.publish));
        }
    }
    if !plan.app.is_empty() {
        let app = plan.app.join(", ");
        let when = match in_place {
            true => "before anything is dropped; what ran is started again when all is restored",
            false => "before the exchange; what ran is started again after it",
        };
        out.row(format_args!("  stop     {app}: {when}"));
    }
    if let Some(health) = &plan.health {
        let else_ = if in_place { " of all that is not restored in place" } else { "" };
        out.row(format_args!("  health   {health} must answer then, or the old data{else_} is brought back"));
    }
    for note in &plan.notes {
        out.row(format_args!("  note     {note}"));
    }
    for r in &plan.refusals {
        let (word, way) = match (&r.refusal.accept, r.accepted) {
            (_, true) => ("accepted", String::new()),
            (Some(name), false) => ("REFUSED ", format!(" (--accept {name})")),
            (None, false) => ("REFUSED ", String::new()),
        };
        out.row(format_args!("  {word} {}: {}{way}", r.component, r.refusal.why));
    }
    out.row(format_args!("  space    {} are needed", bytes(plan.needs_bytes)));
    if plan.destructive {
        match plan.settle {
            true => out.row(format_args!("  old data is dropped at once: there is no way back")),
            false => out.row(format_args!(
                "  old data is kept for {}: `backup restore --undo` with the id of the restore",
                span(plan.keep_previous_s)
            )),
        }
    }
    out.row(format_args!("  plan     {}", plan.id));
    out.into_text()
}
