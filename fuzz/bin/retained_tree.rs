//! Runs libFuzzer on `targets::retained_tree`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::retained_tree::run(input));
