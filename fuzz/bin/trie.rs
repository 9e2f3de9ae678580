//! Runs libFuzzer on `targets::trie`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::trie::run(input));
