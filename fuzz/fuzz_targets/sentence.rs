#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mnemic_fuzz::sentence(bytes);
});
