#![no_main]
//! Runs libFuzzer on `targets::acl`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::acl::run(input));
