//! Runs libFuzzer on `targets::round_trip`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::round_trip::run(input));
