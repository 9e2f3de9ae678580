#![no_main]
//! Runs libFuzzer on `targets::password_file`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::password_file::run(input));
