//! Bytes that somebody else chose, as text that is safe to print, log and store.
//!
//! Invariant: the result has no control character and no character that only changes how its
//! neighbours are shown, and it is never longer than asked for.

/// The beginning of `bytes` as text of at most `max_len` bytes. What is not UTF-8 becomes U+FFFD; control
/// and formatting characters are escaped, so that no terminal or log acts on them.
pub fn excerpt(bytes: &[u8], max_len: usize) -> String {
    // No character becomes shorter than its bytes, so the rest could not fit anyway. One character that
    // this cuts in two is replaced by U+FFFD.
    let bytes = bytes.get(..max_len).unwrap_or(bytes);
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        let len_before = text.len();
        if changes_its_surroundings(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
        if text.len() > max_len {
            text.truncate(len_before);
            break;
        }
    }
    text
}

/// Control characters; line and paragraph separators; zero-width and bidirectional formatting, with
/// which a text can be made to look like another one.
fn changes_its_surroundings(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(excerpt(b"a\r\nb\tc\0\x1b[31m", 100), "a\\r\\nb\\tc\\u{0}\\u{1b}[31m");
        assert_eq!(excerpt("\u{9b}2J \u{202e}txt".as_bytes(), 100), "\\u{9b}2J \\u{202e}txt");
    }

    #[test]
    fn other_text_is_kept() {
        assert_eq!(excerpt("Größe: 3 µm \\ \"ok\"".as_bytes(), 100), "Größe: 3 µm \\ \"ok\"");
        assert_eq!(excerpt(b"", 100), "");
        assert_eq!(excerpt(b"\xff\xfeab", 100), "\u{fffd}\u{fffd}ab");
    }

    #[test]
    fn the_result_is_never_longer_than_asked_for() {
        for input in [&[0u8; 50][..], &[0xff; 50], "ää".repeat(25).as_bytes(), b"plain text of some length"]
        {
            for max_len in 0..40 {
                let text = excerpt(input, max_len);
                assert!(text.len() <= max_len, "{} > {max_len}: {text}", text.len());
            }
        }
        assert_eq!(excerpt(b"\0\0", 10), "\\u{0}\\u{0}");
        assert_eq!(excerpt(b"\0\0", 9), "\\u{0}", "an escape is whole or not there");
    }
}
