//! Runs libFuzzer on `targets::auth_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::auth_files::run(input));
