//! A database file as text, without its zeros: most of a small one is zeros, and a text can be looked at.
//!
//! The first line says how long the file is, every other one what is in it from an offset on.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Bytes of one line.
const LINE: usize = 96;

/// The text for a file.
pub fn pack(file: &[u8]) -> String {
    let mut text = format!("length {}\n", file.len());
    for (index, chunk) in file.chunks(LINE).enumerate() {
        let used = chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used > 0 {
            writeln!(text, "{:x} {}", index * LINE, BASE64_STANDARD.encode(&chunk[..used])).unwrap();
        }
    }
    text
}

/// The file of a text.
pub fn unpack(text: &str) -> Vec<u8> {
    let mut lines = text.lines();
    let length = lines.next().unwrap().strip_prefix("length ").unwrap().parse().unwrap();
    let mut file = vec![0; length];
    for line in lines {
        let (offset, bytes) = line.split_once(' ').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        let bytes = BASE64_STANDARD.decode(bytes).unwrap();
        file[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }
    file
}

#[test]
fn a_file_comes_back_as_it_was() {
    for length in [0, 1, LINE - 1, LINE, LINE + 1, 10 * LINE + 7] {
        let file: Vec<u8> = (0..length).map(|at| if at % 300 < 150 { (at % 251) as u8 } else { 0 }).collect();
        assert_eq!(unpack(&pack(&file)), file, "{length}");
    }
}
