//! The plan of a restore for people.

use super::human::{age, bytes, entries, span, time};
use backup_kit::{Plan, State};
use std::fmt::Write;

/// What is restored, where to, what is replaced and for how long it is kept.
pub(crate) fn text(plan: &Plan) -> String {
    let b = &plan.backup;
    let partial = match b.state {
        State::Partial => ", PARTIAL",
        State::Unproven => ", UNPROVEN",
        _ => "",
    };
    let mut out =
        format!("{}: backup {} of {} ({} ago{partial})\n", b.module, b.id, time(b.created), age(b.created));
    for m in &plan.members {
        let part = if m.selective { " (a part of it)" } else { "" };
        let (n, size) = (entries(m.entries), bytes(m.bytes));
        let _ = writeln!(out, "  restore  {}{part}: {n}, {size} to {}", m.component, m.survey.place);
        if m.survey.replaces {
            let disposable = if m.disposable { " (disposable)" } else { "" };
            let word = if m.survey.merges { "MERGE  " } else { "REPLACE" };
            let _ = writeln!(out, "  {word}  {}: {}{disposable}", m.survey.place, m.survey.present);
        }
        if !m.survey.publish.is_empty() {
            let _ = writeln!(out, "  how      {}", m.survey.publish);
        }
    }
    if !plan.app.is_empty() {
        let app = plan.app.join(", ");
        let _ = writeln!(out, "  stop     {app}: before the exchange; what ran is started again after it");
    }
    if let Some(health) = &plan.health {
        let _ = writeln!(out, "  health   {health} must answer then, or the old data is brought back");
    }
    for note in &plan.notes {
        let _ = writeln!(out, "  note     {note}");
    }
    for r in &plan.refusals {
        let (word, way) = match (&r.refusal.accept, r.accepted) {
            (_, true) => ("accepted", String::new()),
            (Some(name), false) => ("REFUSED ", format!(" (--accept {name})")),
            (None, false) => ("REFUSED ", String::new()),
        };
        let _ = writeln!(out, "  {word} {}: {}{way}", r.component, r.refusal.why);
    }
    let _ = writeln!(out, "  space    {} are needed", bytes(plan.needs_bytes));
    if plan.destructive {
        let _ = match plan.settle {
            true => writeln!(out, "  old data is dropped at once: there is no way back"),
            false => writeln!(
                out,
                "  old data is kept for {}: `backup restore --undo`",
                span(plan.keep_previous_s)
            ),
        };
    }
    let _ = writeln!(out, "  plan     {}", plan.id);
    out
}
