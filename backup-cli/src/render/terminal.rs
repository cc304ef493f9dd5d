//! The terminal: one for the process, and so is the bar that stands on it. Who prints takes the bar away for so long; who asks takes it
//! away until there is an answer.

use indicatif::ProgressBar;
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

struct Screen {
    bar: Option<ProgressBar>,
    /// Questions that wait for an answer: no bar comes before it.
    questions: usize,
}

static SCREEN: Mutex<Screen> = Mutex::new(Screen { bar: None, questions: 0 });

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a bar there, if there is none and nobody is being asked.
pub(crate) fn begin_bar(make: impl FnOnce() -> ProgressBar) {
    let mut screen = screen();
    if screen.questions == 0 && screen.bar.is_none() {
        screen.bar = Some(make());
    }
}

/// The bar that is there.
pub(crate) fn bar() -> Option<ProgressBar> {
    screen().bar.clone()
}

/// Takes the bar away, until the next one begins.
pub(crate) fn end_bar() {
    // Not while the lock is held: what draws must not wait for what prints.
    let bar = screen().bar.take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Writes to stderr; a bar stands below what was written.
pub(crate) fn tell(text: &str) {
    use io::Write;
    // A reader that has gone away is not our concern.
    let write = || drop(io::stderr().write_all(text.as_bytes()));
    match bar() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// stdout, for results: what follows is on the terminal alone.
pub(crate) fn stdout() -> io::Stdout {
    end_bar();
    io::stdout()
}

/// As long as it lives there is a question on the terminal, and no bar.
pub(crate) struct Question(());

/// Before anything is asked.
pub(crate) fn question() -> Question {
    screen().questions += 1;
    end_bar();
    Question(())
}

impl Drop for Question {
    fn drop(&mut self) {
        screen().questions -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            match path.is_dir() {
                true => sources(&path, out),
                false => out.push(path),
            }
        }
    }

    /// Whoever writes to the terminal or asks on it past this file is overwritten by the bar.
    #[test]
    fn the_terminal_is_written_to_and_asked_on_here_only() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&source, &mut files);
        let ways = [
            ["io::stdout", "()"],
            ["io::stderr", "()"],
            ["println", "!("],
            ["print", "!("],
            [".interact", ""],
        ];
        let ways = ways.map(|way| way.concat());
        let allowed = ["is_terminal()", "pipe_to(", "terminal::stdout()"];
        for file in files.iter().filter(|f| !f.ends_with("render/terminal.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            for line in text.lines().filter(|line| ways.iter().any(|way| line.contains(way))) {
                let asks = line.contains(".interact") && file.ends_with("restore/guided.rs");
                assert!(asks || allowed.iter().any(|a| line.contains(a)), "{}: {line}", file.display());
            }
        }
        // The guided restore asks at one place.
        let guided = std::fs::read_to_string(source.join("commands/restore/guided.rs")).unwrap();
        assert_eq!(
            guided.matches("spawn_blocking(ask)").count(),
            guided.matches("terminal::question()").count()
        );
    }
}
