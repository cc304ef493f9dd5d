//! The small structures that an archive is found by: any bytes end in a value or an error. The first byte says which: a line of
//! the index (without its digest: it is added), a table of frames, a locator.
#![no_main]

use backup_core::portable::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((b's', rest)) => fuzzing::table_of_frames(rest),
        Some((b'l', rest)) => fuzzing::locator(rest),
        _ => fuzzing::index_line(data),
    }
});
