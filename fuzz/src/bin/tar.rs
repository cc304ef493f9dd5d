//! The tar reader: any bytes end in entries or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = std::hint::black_box(data);
});
