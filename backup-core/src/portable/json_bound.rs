//! How much memory a JSON text can ask for: `[0,0,…` becomes sixteen times its length.

/// Values of `manifest.json`.
pub(super) const MANIFEST_VALUES: usize = 2 << 20;
/// Values of one line of the index: four for each of 400,000 segments, and some.
pub(super) const LINE_VALUES: usize = 3 << 20;

/// Whether a text has at most this many values: each but the first follows one of these bytes. Those in texts count, too.
pub(super) fn at_most(values: usize, json: &[u8]) -> bool {
    json.len() <= values || json.iter().filter(|b| matches!(b, b',' | b'[' | b'{' | b':')).count() < values
}
