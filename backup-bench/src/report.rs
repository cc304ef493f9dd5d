//! A race as a page of Markdown: printed, and kept if asked for.

use crate::failure::{Doing, Result};
use crate::machine::Machine;
use crate::measure::Sample;
use crate::program;
use crate::verdict::{Check, Limit, Spread};
use std::fmt::Write;
use std::path::PathBuf;

/// Grows while a race runs.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
}

impl Report {
    /// One paragraph, or a heading.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push_str("\n\n");
    }

    pub(crate) fn heading(race: &str, machine: &Machine, tools: &[String], load: &str) -> Self {
        let mut report = Report::default();
        report.line(format!("# Race `{race}`, {}", today()));
        let Machine { cpu, cores, memory, kernel, file_system } = machine;
        let memory = *memory as f64 / 1e9;
        report.line(format!(
            "Commit {}. {cpu}, {cores} cores (every side may use {}), {memory:.1} GB of memory, {kernel}, \
             {file_system}; before the race: {load}. {}.",
            program::commit(),
            crate::measure::CPUS.min(*cores),
            tools.join("; ")
        ));
        report
    }

    /// What every side took.
    pub(crate) fn samples(&mut self, title: &str, sides: &[(&str, &[Sample])], sizes: &[Option<u64>]) {
        self.line(format!("## {title}"));
        self.row(&["side", "wall s", "CPU s", "peak RSS MB", "archive MB", "others' CPUs"]);
        self.row(&["---", "---:", "---:", "---:", "---:", "---:"]);
        for (i, (name, samples)) in sides.iter().enumerate() {
            let spread = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
            let foreign = samples.iter().filter_map(|s| s.foreign);
            let foreign = foreign.map(|f| (f.user, f.all)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
            self.row(&[
                name,
                &seconds(spread(|s| s.wall.as_secs_f64())),
                &seconds(spread(|s| s.cpu.as_secs_f64())),
                &format!("{:.1}", spread(|s| s.peak_rss as f64).most / 1e6),
                &sizes
                    .get(i)
                    .copied()
                    .flatten()
                    .map(|n| format!("{:.1}", n as f64 / 1e6))
                    .unwrap_or_default(),
                &foreign.map(|(user, all)| format!("{user:.2} / {all:.2}")).unwrap_or_default(),
            ]);
        }
        self.text.push('\n');
    }

    /// `judged`: false prints the figures beside their bars and no more.
    pub(crate) fn verdicts(&mut self, checks: &[Check], judged: bool) {
        self.line("## Verdict");
        self.row(&["figure", "median (least – most)", "bar", "aim", "verdict"]);
        self.row(&["---", "---:", "---:", "---:", "---"]);
        for check in checks {
            let limit = |limit: Option<Limit>| match limit {
                Some(Limit::AtMost(v)) => format!("≤ {v}{}", check.unit),
                Some(Limit::Below(v)) => format!("< {v}{}", check.unit),
                None => String::new(),
            };
            let verdict = if judged { check.verdict() } else { "not judged".to_owned() };
            let value = format!("{}{}", decimals(check.value), check.unit);
            self.row(&[&check.what, &value, &limit(check.bar), &limit(check.aim), &verdict]);
        }
        self.text.push('\n');
    }

    fn row(&mut self, cells: &[&str]) {
        // A pipe in a cell would end it.
        let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    pub(crate) fn text(&self) -> &str {
        self.text.trim_end()
    }

    /// Writes docs/bench/DATE-NAME.md.
    pub(crate) fn save(&self, name: &str) -> Result<PathBuf> {
        let folder = program::workspace().join("docs/bench");
        std::fs::create_dir_all(&folder).doing(folder.display())?;
        let file = folder.join(format!("{}-{name}.md", today()));
        std::fs::write(&file, format!("{}\n", self.text())).doing(file.display())?;
        Ok(file)
    }
}

fn today() -> String {
    jiff::Zoned::now().date().to_string()
}

fn seconds(s: Spread) -> String {
    format!("{:.2} ({:.2} – {:.2})", s.median, s.least, s.most)
}

fn decimals(s: Spread) -> String {
    let show = |v: f64| if v.abs() < 10.0 { format!("{v:.3}") } else { format!("{v:.1}") };
    if s.least == s.most {
        return show(s.median);
    }
    format!("{} ({} – {})", show(s.median), show(s.least), show(s.most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_machine_gets_figures_and_no_verdict() {
        let check = Check::bar("a | b", Spread::of([1.0, 2.0, 3.0]), " ms", Limit::Below(2.5));
        let mut report = Report::default();
        report.verdicts(std::slice::from_ref(&check), false);
        assert!(report.text().contains("| a \\| b | 2.000 (1.000 – 3.000) ms | < 2.5 ms |  | not judged |"));
        let mut report = Report::default();
        report.verdicts(&[check], true);
        assert!(report.text().contains("PASS") && !report.text().contains("not judged"));
    }
}
