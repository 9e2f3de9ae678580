#![no_main]
//! Runs libFuzzer on `targets::trie`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::trie::run(input));
