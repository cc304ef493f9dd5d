//! Medians, spreads, and what is required of them.

use crate::measure::Sample;

/// Median with the least and the largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of nothing it is not a number, which meets no limit.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut v: Vec<f64> = values.into_iter().collect();
        v.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (v.first(), v.last()) else {
            return Spread { median: f64::NAN, least: f64::NAN, most: f64::NAN };
        };
        let half = v.len() / 2;
        let median = if v.len() % 2 == 1 { v[half] } else { f64::midpoint(v[half - 1], v[half]) };
        Spread { median, least, most }
    }

    /// Ratios of runs of the same round: what slows the machine for a while slows both.
    pub(crate) fn of_ratios(ours: &[Sample], theirs: &[Sample], figure: impl Fn(&Sample) -> f64) -> Self {
        if ours.len() != theirs.len() {
            return Spread::of([]);
        }
        Spread::of(ours.iter().zip(theirs).map(|(a, b)| figure(a) / figure(b)))
    }

    pub(crate) fn one(value: f64) -> Self {
        Spread::of([value])
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtMost(f64),
    Below(f64),
}

impl Limit {
    fn met(self, value: f64) -> bool {
        match self {
            Limit::AtMost(most) => value <= most,
            Limit::Below(end) => value < end,
        }
    }
}

/// One judged figure.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) value: Spread,
    pub(crate) unit: &'static str,
    pub(crate) bar: Option<Limit>,
    pub(crate) aim: Option<Limit>,
}

impl Check {
    pub(crate) fn bar(what: impl Into<String>, value: Spread, unit: &'static str, bar: Limit) -> Self {
        Check { what: what.into(), value, unit, bar: Some(bar), aim: None }
    }

    /// Neither judged nor aimed at.
    pub(crate) fn shown(what: impl Into<String>, value: Spread, unit: &'static str) -> Self {
        Check { what: what.into(), value, unit, bar: None, aim: None }
    }

    pub(crate) fn only_aim(what: impl Into<String>, value: Spread, unit: &'static str, aim: Limit) -> Self {
        Check { what: what.into(), value, unit, bar: None, aim: Some(aim) }
    }

    pub(crate) fn aim(mut self, aim: Limit) -> Self {
        self.aim = Some(aim);
        self
    }

    pub(crate) fn failed(&self) -> bool {
        self.bar.is_some_and(|bar| !bar.met(self.value.median))
    }

    /// `PASS` or `FAIL` where there is a bar, and what became of the aim.
    pub(crate) fn verdict(&self) -> String {
        let bar = self.bar.map(|_| if self.failed() { "FAIL" } else { "PASS" });
        let met = |aim: Limit| if aim.met(self.value.median) { "aim met" } else { "aim missed" };
        let parts: Vec<&str> = bar.into_iter().chain(self.aim.map(met)).collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one_whatever_the_order() {
        assert_eq!(Spread::of([3.0, 1.0, 9.0]), Spread { median: 3.0, least: 1.0, most: 9.0 });
        assert!((Spread::of([4.0, 1.0, 2.0, 8.0]).median - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_bar_fails_above_it_and_a_missed_aim_does_not_fail() {
        let check = |v| Check::bar("x", Spread::one(v), "", Limit::AtMost(1.05)).aim(Limit::AtMost(1.0));
        assert_eq!(check(1.05).verdict(), "PASS, aim missed");
        assert_eq!(check(1.0).verdict(), "PASS, aim met");
        assert_eq!(check(1.051).verdict(), "FAIL, aim missed");
        assert!(!Check::only_aim("x", Spread::one(1.0), "", Limit::Below(1.0)).failed());
        assert_eq!(Check::only_aim("x", Spread::one(1.0), "", Limit::Below(1.0)).verdict(), "aim missed");
    }

    #[test]
    fn what_was_not_measured_fails() {
        assert!(Check::bar("x", Spread::of([]), "", Limit::AtMost(1.05)).failed());
        assert!(Check::bar("x", Spread::one(f64::NAN), "", Limit::Below(9.0)).failed());
    }
}
