//! What goes on: a bar on a terminal, plain lines otherwise, events as JSON lines if asked for.

use super::{Output, human, lines, printable, repeated::Repeated, terminal};
use backup_kit::{CancellationToken, Event, Phase, Severity};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Shows the events of one run; `finish` takes the bar away, the next step of a run brings it back.
#[derive(Clone)]
pub(crate) struct Progress {
    output: Output,
    cancel: CancellationToken,
    components: Arc<Mutex<BTreeMap<String, Component>>>,
    repeated: Arc<Mutex<Repeated>>,
}

#[derive(Default)]
struct Component {
    estimate: Option<u64>,
    entries: u64,
    bytes: u64,
}

impl Progress {
    pub(crate) fn new(output: Output, cancel: CancellationToken) -> Self {
        let progress = Progress { output, cancel, components: Arc::default(), repeated: Arc::default() };
        progress.begin();
        progress
    }

    fn begin(&self) {
        if self.output.terminal && !self.output.quiet && !self.output.events {
            terminal::begin_bar(|| {
                let bar = ProgressBar::no_length();
                bar.set_style(style(false));
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            });
        }
    }

    pub(crate) fn show(&self, event: &Event) {
        if self.output.events {
            if let Ok(line) = serde_json::to_string(event) {
                terminal::tell(&format!("{}\n", printable::json(&line)));
            }
            return;
        }
        match event {
            Event::Phase { phase } => self.phase(*phase),
            Event::CopyStarted { id, number, of } => {
                self.components.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.detail(format!("copying {id} ({number} of {of})"));
            }
            Event::ComponentStarted { component, estimate } => {
                self.update(component, |c| c.estimate = *estimate);
                self.detail(format!("{component}: started"));
            }
            Event::Progress { component, entries, bytes } => self.update(component, |c| {
                (c.entries, c.bytes) = (*entries, *bytes);
            }),
            Event::ComponentFinished { component, entries, bytes, lost } => {
                self.update(component, |c| (c.entries, c.bytes) = (*entries, *bytes));
                let lost = if *lost > 0 { format!(", {lost} lost") } else { String::new() };
                self.detail(format!(
                    "{component}: {}, {}{lost}",
                    human::entries(*entries),
                    human::bytes(*bytes)
                ));
            }
            // What an interrupted run leaves undone is no fault of the entry.
            Event::Noted { note }
                if note.severity == Severity::Lost && !note.path.is_empty() && self.cancel.is_cancelled() => {
            }
            Event::Noted { note } if note.severity >= Severity::Warning && self.output.verbose => {
                self.line(lines::Level::Warning, &human::note(note));
            }
            Event::Noted { note } if note.severity >= Severity::Warning => {
                if let Some(line) = self.repeated.lock().unwrap_or_else(PoisonError::into_inner).tell(note) {
                    self.line(lines::Level::Warning, &line);
                }
            }
            Event::Noted { note } => self.detail(human::note(note)),
            Event::Spooling { folder } => self.line(
                lines::Level::Info,
                &format!("the pipe is kept in a temporary file in {folder} until its end has come"),
            ),
            Event::Waiting { reason } => self.line(lines::Level::Info, &format!("waiting: {reason}")),
            _ => {}
        }
    }

    /// The end of a step: takes the bar away, and counts the warnings that were not told.
    pub(crate) fn finish(&self) {
        terminal::end_bar();
        for line in self.repeated.lock().unwrap_or_else(PoisonError::into_inner).end() {
            self.line(lines::Level::Warning, &line);
        }
        self.components.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn phase(&self, phase: Phase) {
        let text = match phase {
            Phase::Preflight => "connecting",
            Phase::Fix => "fixing the moment",
            Phase::Pour => "reading and writing",
            Phase::Commit => "writing the manifest",
            Phase::ReadBack => "reading back",
            Phase::Rehearse => "trying the definitions",
            Phase::Prove => "comparing with the counts of the backup",
            Phase::Publish => "putting it in place",
            Phase::Revert => "undoing",
        };
        self.begin();
        match terminal::bar() {
            Some(bar) => bar.set_message(text),
            None => self.detail(text.to_owned()),
        }
    }

    fn update(&self, component: &str, change: impl FnOnce(&mut Component)) {
        let mut all = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(component.to_owned()).or_default());
        let Some(bar) = terminal::bar() else { return };
        let total: Option<u64> = all.values().map(|c| c.estimate).sum();
        let done = all.values().map(|c| c.bytes).sum();
        if let Some(total) = total.filter(|t| *t > 0) {
            if bar.length().is_none() {
                bar.set_style(style(true));
            }
            bar.set_length(total.max(done));
        }
        bar.set_position(done);
        bar.set_prefix(human::entries(all.values().map(|c| c.entries).sum()));
    }

    /// Said with `-v` only.
    fn detail(&self, text: String) {
        if self.output.verbose {
            self.line(lines::Level::Info, &text);
        }
    }

    fn line(&self, level: lines::Level, text: &str) {
        if self.output.quiet && level == lines::Level::Info {
            return;
        }
        lines::print(self.output, level, text);
    }
}

fn style(with_length: bool) -> ProgressStyle {
    let template = match with_length {
        true => "{msg} {bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {prefix} {eta}",
        false => "{msg} {binary_bytes} {binary_bytes_per_sec} {prefix} {elapsed}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
