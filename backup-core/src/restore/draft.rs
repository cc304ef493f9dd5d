//! How a plan is found out: what is selected, what is at the targets, what a person must know, and the name of it all.

use super::{
    blocking,
    document::Place,
    files,
    in_the_way::{Replaced, inside, kept},
    plan::{Plan, PlanId, PlannedBackup, PlannedMember, PlannedRefusal, RestoreMember, RestoreOptions},
};
use crate::{
    BackupReader, Context, EXCLUDED, Error, ErrorKind, Fact, Incoming, Kind, Refusal, Result, Selection,
    State, Survey, pipeline::calmly,
};
use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use std::{collections::HashSet, sync::Arc};

/// The refusal for lack of room: what is needed is an upper bound where the target compresses.
const SPACE: &str = "too-little-space";

/// What a selection covers; of a whole component, what its proof says.
pub(super) struct Picked {
    entries: u64,
    bytes: u64,
    /// Of the paths: two selections that cover the same entries are the same plan.
    digest: String,
}

/// Selects what belongs to what is selected. Of a component that is not there it says nothing: that is told when entries are picked.
pub(super) async fn widen(
    reader: &Arc<dyn BackupReader>,
    members: &mut [RestoreMember],
    cx: &Context,
) -> Result<()> {
    for m in members.iter_mut().filter(|m| !m.selection.is_all()) {
        if reader.manifest().component(&m.component).is_some() {
            let incoming = Incoming::new(reader.clone(), &m.component, m.selection.clone())?;
            let widened = calmly("look at what is selected", m.target.widened(&incoming, cx)).await;
            m.selection = widened.map_err(|e| e.on(&m.component))?;
        }
    }
    Ok(())
}

/// Looks at all targets.
pub(super) async fn survey(
    reader: &Arc<dyn BackupReader>,
    members: &mut [RestoreMember],
    options: &RestoreOptions,
    cx: &Context,
) -> Result<Vec<Survey>> {
    let accept = &options.accept;
    let surveys = members.iter_mut().map(|m| async {
        let incoming = Incoming::new(reader.clone(), &m.component, m.selection.clone())?.accepting(accept);
        let survey = calmly("look at the target", m.target.survey(&incoming, cx)).await;
        survey.map_err(|e| files::with_way_out(e).for_component(&m.component).on(&m.component))
    });
    let surveys: Result<Vec<Survey>> = futures::future::join_all(surveys).await.into_iter().collect();
    let mut surveys = surveys?;
    let replaced = members
        .iter()
        .zip(&surveys)
        .map(|(m, s)| s.local_path.clone().map(|path| Replaced { path, home: m.target.journal_home() }));
    let (state_dir, replaced) = (options.state_dir.clone(), replaced.collect::<Vec<_>>());
    let inside = blocking(move || inside(&state_dir, &replaced)).await?;
    for (survey, refusals) in surveys.iter_mut().zip(inside) {
        survey.refusals.extend(refusals);
    }
    if options.settle || surveys.iter().any(|survey| survey.in_place) {
        let place =
            |(m, s): (&RestoreMember, &Survey)| Place { kind: m.kind.clone(), place: s.place.clone() };
        let places: Vec<Place> = members.iter().zip(&surveys).map(place).collect();
        let state_dir = options.state_dir.clone();
        for (survey, refusal) in surveys.iter_mut().zip(blocking(move || kept(&state_dir, &places)).await?) {
            survey.refusals.extend(refusal);
        }
    }
    Ok(surveys)
}

/// Components and selections. A target may be used by one thread at a time, so a shared borrow of it must not be held while
/// something is awaited.
pub(super) fn wanted(members: &[RestoreMember]) -> Vec<(String, Selection)> {
    members.iter().map(|m| (m.component.clone(), m.selection.clone())).collect()
}

/// What each selection covers.
pub(super) async fn pick(
    reader: &dyn BackupReader,
    wanted: &[(String, Selection)],
    cx: &Context,
) -> Result<Vec<Picked>> {
    let mut picked = Vec::new();
    let mut digests = Vec::new();
    for (name, selection) in wanted {
        let component = reader.manifest().component(name).ok_or_else(|| {
            let known: Vec<_> = reader.manifest().components.iter().map(|c| c.header.name.as_str()).collect();
            let message = format!("the backup has no such component, only {}", known.join(", "));
            Error::new(ErrorKind::NotFound, "plan a restore", message).on(name)
        })?;
        let count = |measure| if selection.is_all() { component.proof.count("all", measure) } else { 0 };
        picked.push(Picked { entries: count("entries"), bytes: count("bytes"), digest: String::new() });
        digests.push(Sha256::new());
    }
    if wanted.iter().all(|(_, selection)| selection.is_all()) {
        return Ok(picked);
    }
    let mut outside = vec![HashSet::new(); wanted.len()];
    let mut entries = reader.entries();
    while let Some(listed) = entries.next().await {
        let listed = listed?;
        if cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        for ((((name, selection), p), digest), outside) in
            wanted.iter().zip(&mut picked).zip(&mut digests).zip(&mut outside)
        {
            let path = &listed.entry.path;
            if *name == listed.component && !selection.is_all() && selection.covers(path) {
                if listed.entry.kind == Kind::HardLink {
                    outside.extend(listed.entry.link.clone().filter(|file| !selection.covers(file)));
                }
                p.entries += 1;
                p.bytes = p.bytes.saturating_add(listed.entry.stored_size().unwrap_or(0));
                digest.update((path.len() as u64).to_le_bytes());
                digest.update(path);
            }
        }
    }
    for (((name, selection), p), digest) in wanted.iter().zip(&mut picked).zip(digests) {
        if !selection.is_all() {
            if p.entries == 0 {
                let e = Error::new(ErrorKind::NotFound, "plan a restore", "nothing in it is selected");
                return Err(e.on(name));
            }
            p.digest = hex::encode(digest.finalize());
        }
    }
    if outside.iter().any(|files| !files.is_empty()) {
        add_outside(reader, wanted, &outside, &mut picked, cx).await?;
    }
    Ok(picked)
}

/// The bytes of files that are not selected themselves: a selected name of one of them brings its content.
async fn add_outside(
    reader: &dyn BackupReader,
    wanted: &[(String, Selection)],
    outside: &[HashSet<Bytes>],
    picked: &mut [Picked],
    cx: &Context,
) -> Result<()> {
    let mut entries = reader.entries();
    while let Some(listed) = entries.next().await {
        let listed = listed?;
        if cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        for (((name, _), files), p) in wanted.iter().zip(outside).zip(picked.iter_mut()) {
            if *name == listed.component && files.contains(&listed.entry.path) {
                p.bytes = p.bytes.saturating_add(listed.entry.stored_size().unwrap_or(0));
            }
        }
    }
    Ok(())
}

/// The proof counts holes of files as bytes. Where room might be short without them, it is looked at what is really written.
pub(super) async fn without_holes(
    reader: &dyn BackupReader,
    wanted: &[(String, Selection)],
    picked: &mut [Picked],
    surveys: &[Survey],
    cx: &Context,
) -> Result<()> {
    let all = picked.iter().fold(0u64, |sum, p| sum.saturating_add(p.bytes));
    if !surveys.iter().any(|s| s.free_bytes.is_some_and(|free| free < all)) {
        return Ok(());
    }
    let whole = || wanted.iter().enumerate().filter(|(_, (_, selection))| selection.is_all());
    let mut written = vec![0u64; picked.len()];
    let mut entries = reader.entries();
    while let Some(listed) = entries.next().await {
        let listed = listed?;
        if cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        for (i, _) in whole().filter(|(_, (name, _))| *name == listed.component) {
            written[i] = written[i].saturating_add(listed.entry.stored_size().unwrap_or(0));
        }
    }
    for (i, _) in whole() {
        picked[i].bytes = picked[i].bytes.min(written[i]);
    }
    Ok(())
}

/// The plan, and its name.
pub(super) fn draft(
    reader: &dyn BackupReader,
    members: &[RestoreMember],
    picked: &[Picked],
    surveys: Vec<Survey>,
    options: &RestoreOptions,
) -> Plan {
    let manifest = reader.manifest();
    let mut digest = Sha256::new();
    // Every text with its length: no two plans can be written down as the same bytes.
    let mut matters = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    matters(manifest.header.id.as_str());
    matters(&hex::encode(Sha256::digest(manifest.to_json())));
    matters(&format!("{} {:?} {}", options.settle, options.keep_previous, options.accept_partial));
    let health = options.health.as_ref().map(|health| health.place());
    matters(&format!("{health:?} {:?}", options.app));
    for ((m, p), s) in members.iter().zip(picked).zip(&surveys) {
        for text in [&m.component, &m.kind, &p.digest, &s.place, &s.identity, &s.publish] {
            matters(text);
        }
        let how = (s.replaces, s.merges, s.in_place, m.disposable, m.selection.is_all());
        matters(&format!("{how:?}"));
        matters(&s.notes.len().to_string());
        s.notes.iter().for_each(|note| matters(note));
        matters(&s.refusals.len().to_string());
        for r in &s.refusals {
            matters(&r.why);
            matters(r.accept.as_deref().unwrap_or_default());
        }
    }
    matters(&options.accept.len().to_string());
    options.accept.iter().for_each(|name| matters(name));
    let id = PlanId::of(&digest.finalize()[..8]);
    let members: Vec<_> = members
        .iter()
        .zip(picked)
        .zip(surveys)
        .map(|((m, p), survey)| PlannedMember {
            component: m.component.clone(),
            kind: m.kind.clone(),
            entries: p.entries,
            bytes: p.bytes,
            selective: !m.selection.is_all(),
            survey,
            disposable: m.disposable,
        })
        .collect();
    let mut plan = Plan {
        id,
        backup: PlannedBackup {
            id: manifest.header.id.clone(),
            module: manifest.header.module.clone(),
            created: manifest.header.created,
            state: manifest.state,
        },
        needs_bytes: members.iter().fold(0, |sum, m| sum.saturating_add(m.bytes)),
        destructive: members.iter().any(|m| m.survey.replaces),
        settle: options.settle || members.iter().any(|m| m.survey.in_place),
        members,
        app: options.app.clone(),
        health,
        notes: Vec::new(),
        refusals: Vec::new(),
        keep_previous_s: options.keep_previous.as_secs(),
    };
    plan.notes = notes(&plan, reader);
    plan.refusals = refusals(&plan, &options.accept);
    plan
}

const IN_PLACE: &str = "restored IN PLACE: what is there is dropped before it is restored; nothing is kept for an undo, whoever uses it is \
    without it meanwhile, and after a failure or an interruption it is not whole until it is restored again";

/// What a person must know before.
fn notes(plan: &Plan, reader: &dyn BackupReader) -> Vec<String> {
    let manifest = reader.manifest();
    let mut notes = Vec::new();
    if manifest.state == State::Partial {
        notes.push("the backup is partial: it does not hold everything".to_owned());
    }
    if manifest.state == State::Unproven {
        notes.push(
            "the backup is UNPROVEN: it was imported, and nothing says that it is what there was".to_owned(),
        );
    }
    notes.extend(manifest.not_included.iter().map(|text| format!("not included: {text}")));
    for m in &plan.members {
        let name = &m.component;
        if let Some(component) = manifest.component(name) {
            if component.lost > 0 {
                notes.push(format!("{name}: {} entries are missing in the backup", component.lost));
            }
            for (subject, measure, fact) in component.proof.iter() {
                match fact {
                    Fact::Unsupported(why) => {
                        notes.push(format!("{name}: {subject}: {measure} is not in the backup: {why}"));
                    }
                    Fact::Note(what) if measure == EXCLUDED && subject == "all" => {
                        let goes = if m.survey.replaces && !m.selective {
                            ": what is there of it now goes with the old data"
                        } else {
                            ""
                        };
                        notes.push(format!("{name}: left out of the backup: {what}{goes}"));
                    }
                    _ => {}
                }
            }
        }
        if m.survey.in_place {
            notes.push(format!("{name}: {IN_PLACE}"));
        }
        notes.extend(m.survey.notes.iter().map(|text| format!("{name}: {text}")));
    }
    notes
}

fn refusals(plan: &Plan, accept: &[String]) -> Vec<PlannedRefusal> {
    let of_targets = plan.members.iter().flat_map(|m| m.survey.refusals.iter().map(move |r| (m, r.clone())));
    let planned = |(m, refusal): (&PlannedMember, Refusal)| PlannedRefusal {
        component: m.component.clone(),
        place: m.survey.place.clone(),
        accepted: refusal.accept.as_ref().is_some_and(|name| accept.contains(name)),
        refusal,
    };
    of_targets.chain(plan.shortage()).map(planned).collect()
}

/// Consent to something that is not there is a mistake: of a name, or about what would happen.
pub(super) fn nothing_accepted_in_vain(plan: &Plan, accept: &[String]) -> Result<()> {
    let refused: Vec<&str> = plan.refusals.iter().filter_map(|r| r.refusal.accept.as_deref()).collect();
    match accept.iter().find(|name| !refused.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let message = match refused.is_empty() {
                true => "nothing is refused that could be accepted".to_owned(),
                false => format!("it is not refused; what can be accepted: {}", refused.join(", ")),
            };
            Err(Error::new(ErrorKind::Usage, "plan a restore", message).on(name))
        }
    }
}

impl Plan {
    /// Where there is too little room, if anywhere. Targets which tell the same free space share it.
    fn shortage(&self) -> Option<(&PlannedMember, Refusal)> {
        self.members.iter().find_map(|m| {
            let together = || {
                let same = |o: &&PlannedMember| {
                    (o.survey.free_bytes, o.survey.free_entries)
                        == (m.survey.free_bytes, m.survey.free_entries)
                };
                self.members.iter().filter(same)
            };
            let need =
                |of: fn(&PlannedMember) -> u64| together().fold(0u64, |sum, o| sum.saturating_add(of(o)));
            let (bytes, entries) = (need(|m| m.bytes), need(|m| m.entries));
            let short = |what: &str, need: u64, free: Option<u64>| {
                let free = free.filter(|free| *free < need)?;
                let why = format!("it needs {need} {what}, {free} are free");
                let refusal = Refusal::new(why, "make room, or restore elsewhere (--to)");
                Some((m, refusal.acceptable_as(SPACE)))
            };
            short("bytes", bytes, m.survey.free_bytes)
                .or_else(|| short("entries", entries, m.survey.free_entries))
        })
    }
}
