#![no_main]
//! Runs libFuzzer on `targets::retained_tree`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::retained_tree::run(input));
