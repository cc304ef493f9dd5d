//! A large table in ranges of its primary key: what several sessions read side by side, and what is put together again in its order.
//!
//! The ranges cover all numbers that there can be, whatever the server estimates: an estimate decides only how many rows a range has.

use crate::{
    catalog::Version,
    client::Session,
    error::ClientError,
    quote::{ident, qualified, text},
};

/// Bytes of a table, as the server estimates, above which it is read in ranges.
pub(crate) const LARGE: u64 = 16 << 20;

/// Rows whose number is from `from` on and below `to`; without them from the first one on, to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    from: Option<i128>,
    to: Option<i128>,
}

/// The ranges of a table that are still to be read, in their order.
pub(super) struct Ranges {
    /// Both as they stand in a statement.
    table: String,
    column: String,
    /// The next one last.
    open: Vec<Interval>,
    /// What a row takes, in bytes.
    row: u64,
    /// No more than so often: an estimate that never becomes less must not cut a table into its rows.
    cuts_left: u64,
    /// Where the answer to an `EXPLAIN` says how many rows are read.
    rows_at: usize,
    begun: bool,
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    from: i128,
    to: i128,
    /// As the server estimates, once it was asked.
    rows: Option<u64>,
}

impl Ranges {
    /// The ranges of a table of about so many bytes. `None`: it is read as a whole, for its primary key does not begin with a whole
    /// number, or it has no rows.
    pub(super) async fn of(
        session: &mut Session,
        database: &str,
        table: &str,
        bytes: u64,
        version: &Version,
    ) -> Result<Option<Self>, ClientError> {
        if bytes < LARGE {
            return Ok(None);
        }
        let (schema, name) = (text(database), text(table));
        let sql = format!(
            "SELECT c.COLUMN_NAME, c.DATA_TYPE, t.TABLE_ROWS FROM information_schema.STATISTICS s \
             JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = s.TABLE_SCHEMA AND c.TABLE_NAME = s.TABLE_NAME AND c.COLUMN_NAME = s.COLUMN_NAME \
             JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = s.TABLE_SCHEMA AND t.TABLE_NAME = s.TABLE_NAME \
             WHERE s.TABLE_SCHEMA = {schema} AND s.TABLE_NAME = {name} AND s.INDEX_NAME = 'PRIMARY' AND s.SEQ_IN_INDEX = 1 \
             AND c.TABLE_SCHEMA = {schema} AND c.TABLE_NAME = {name} AND t.TABLE_SCHEMA = {schema} AND t.TABLE_NAME = {name}"
        );
        let Some(row) = session.first(&sql).await? else { return Ok(None) };
        let [column, kind, rows] = crate::catalog::fields(row);
        if !matches!(
            kind.to_ascii_lowercase().as_str(),
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint"
        ) {
            return Ok(None);
        }
        let (place, column) = (qualified(database, table), ident(&column));
        let ends = session.first(&format!("SELECT MIN({column}), MAX({column}) FROM {place}")).await?;
        let [first, last] = crate::catalog::fields(ends.unwrap_or_default());
        let (Ok(first), Ok(last)) = (first.parse(), last.parse::<i128>()) else { return Ok(None) };
        let rows: u64 = rows.parse().unwrap_or(0);
        let mut ranges = Ranges::between(first, last, bytes, rows);
        (ranges.table, ranges.column) = (place, column);
        ranges.rows_at = if version.mariadb { 8 } else { 9 };
        Ok(Some(ranges))
    }

    fn between(first: i128, last: i128, bytes: u64, rows: u64) -> Self {
        let whole = Interval { from: first, to: last + 1, rows: Some(rows.max(1)) };
        Ranges {
            table: String::new(),
            column: String::new(),
            open: vec![whole],
            row: (bytes / rows.max(1)).max(1),
            cuts_left: (bytes >> 20) + 128,
            rows_at: 0,
            begun: false,
        }
    }

    /// The next range, of about so many bytes. `None`: the one before was the last.
    pub(super) async fn next(
        &mut self,
        session: &mut Session,
        bytes: u64,
    ) -> Result<Option<Range>, ClientError> {
        let wanted = (bytes / self.row).max(1);
        let mut cut = Cut { wanted, taken: None };
        while let Some(asked) = self.advance(&mut cut) {
            let rows = self.estimate(session, asked).await?;
            self.open.push(Interval { rows: Some(rows), ..asked });
        }
        Ok(cut.taken.map(|(from, to, _)| self.range(from, to)))
    }

    /// Goes on until a range is taken, or returns an interval that the server must be asked about.
    fn advance(&mut self, cut: &mut Cut) -> Option<Interval> {
        while let Some(interval) = self.open.pop() {
            let Some(rows) = interval.rows else { return Some(interval) };
            if rows > cut.wanted && interval.to - interval.from > 1 && self.cuts_left > 0 {
                self.cuts_left -= 1;
                let middle = interval.from + (interval.to - interval.from) / 2;
                self.open.push(Interval { from: middle, rows: None, ..interval });
                self.open.push(Interval { to: middle, rows: None, ..interval });
                continue;
            }
            match &mut cut.taken {
                None => cut.taken = Some((interval.from, interval.to, rows)),
                Some((_, to, sum)) if *sum + rows <= cut.wanted => (*to, *sum) = (interval.to, *sum + rows),
                Some(_) => {
                    self.open.push(interval);
                    return None;
                }
            }
        }
        None
    }

    /// The first one has no beginning and the last one no end.
    fn range(&mut self, from: i128, to: i128) -> Range {
        let first = !std::mem::replace(&mut self.begun, true);
        Range { from: (!first).then_some(from), to: (!self.open.is_empty()).then_some(to) }
    }

    async fn estimate(&self, session: &mut Session, of: Interval) -> Result<u64, ClientError> {
        let Ranges { table, column, .. } = self;
        // Without an order MySQL does not look into an index that it is told to take, and says 1.
        let sql = format!(
            "EXPLAIN FORMAT=TRADITIONAL SELECT {column} FROM {table} {} ORDER BY {column}",
            condition(column, Some(of.from), Some(of.to))
        );
        let row = session.first(&sql).await?.unwrap_or_default();
        // Where the server knows that there are none, it says nothing.
        Ok(row.into_iter().nth(self.rows_at).flatten().and_then(|n| n.parse().ok()).unwrap_or(0))
    }

    /// What goes after the name of the table.
    pub(super) fn of_range(&self, range: Range) -> String {
        condition(&self.column, range.from, range.to)
    }
}

/// A range that is being put together of intervals.
struct Cut {
    wanted: u64,
    /// From, to, and how many rows.
    taken: Option<(i128, i128, u64)>,
}

fn condition(column: &str, from: Option<i128>, to: Option<i128>) -> String {
    let from = from.map(|n| format!("{column} >= {n}"));
    let to = to.map(|n| format!("{column} < {n}"));
    let both: Vec<String> = from.into_iter().chain(to).collect();
    let only = if both.is_empty() { String::new() } else { format!(" WHERE {}", both.join(" AND ")) };
    // Without the hint a server may look at the whole table for each range.
    format!("FORCE INDEX (PRIMARY){only}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All ranges where the server estimates like this.
    fn cut(
        first: i128,
        last: i128,
        rows: u64,
        wanted: u64,
        estimate: impl Fn(i128, i128) -> u64,
    ) -> Vec<Range> {
        let mut ranges = Ranges::between(first, last, rows * 100, rows);
        let mut out = Vec::new();
        loop {
            let mut cut = Cut { wanted, taken: None };
            while let Some(asked) = ranges.advance(&mut cut) {
                let rows = Some(estimate(asked.from, asked.to));
                ranges.open.push(Interval { rows, ..asked });
            }
            match cut.taken {
                Some((from, to, _)) => out.push(ranges.range(from, to)),
                None => return out,
            }
        }
    }

    fn cover_everything(ranges: &[Range]) {
        assert_eq!(ranges.first().unwrap().from, None);
        assert_eq!(ranges.last().unwrap().to, None);
        for two in ranges.windows(2) {
            assert!(two[0].to.is_some() && two[0].to == two[1].from, "{two:?}");
        }
    }

    #[test]
    fn ranges_cover_every_number_once_whatever_the_server_estimates() {
        let even = cut(1, 1_000_000, 1_000_000, 10_000, |a, b| (b - a) as u64);
        cover_everything(&even);
        assert!((100..300).contains(&even.len()), "{}", even.len());
        // All rows but one at one end of the numbers.
        let last = i128::from(u64::MAX);
        let below = |n: i128| n.clamp(0, 100_000) as u64;
        let skewed =
            cut(-5, last, 100_000, 10_000, |a, b| below(b) - below(a) + u64::from(b > last && a <= last));
        cover_everything(&skewed);
        assert!((10..40).contains(&skewed.len()), "{}", skewed.len());
        let wrong = cut(0, i128::from(i64::MAX), 1_000_000, 1000, |_, _| 1_000_000);
        cover_everything(&wrong);
        assert!(wrong.len() < 500, "an estimate that never becomes less: {}", wrong.len());
        cover_everything(&cut(7, 7, 1, 10, |_, _| 0));
        cover_everything(&cut(0, 1000, 0, 10, |_, _| 0));
    }

    #[test]
    fn a_range_is_a_condition_on_the_primary_key() {
        let mut ranges = Ranges::between(0, 9, 10, 10);
        ranges.column = "`id`".into();
        assert_eq!(ranges.of_range(Range { from: None, to: None }), "FORCE INDEX (PRIMARY)");
        assert_eq!(
            ranges.of_range(Range { from: Some(-3), to: Some(4) }),
            "FORCE INDEX (PRIMARY) WHERE `id` >= -3 AND `id` < 4"
        );
    }
}
