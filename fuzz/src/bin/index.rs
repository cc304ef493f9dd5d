//! One line of an index shard: any bytes end in an entry or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = std::hint::black_box(data);
});
