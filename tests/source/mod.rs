//! The project's own source files, as the tests of its rules read them.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the project.
pub struct SourceFile {
    /// Below the root of the project, with `/` between folders.
    pub path: String,
    pub text: String,
}

/// All files below these folders whose name ends so, sorted.
pub fn files(folders: &[&str], ending: &str) -> Vec<SourceFile> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), ending, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// One file of the project.
pub fn file(path: &str) -> SourceFile {
    let text = fs::read_to_string(path_of(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    SourceFile { path: path.to_owned(), text }
}

/// Where a file of the project is.
pub fn path_of(path: &str) -> PathBuf {
    root().join(path)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<SourceFile>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            let below = path.strip_prefix(root()).unwrap();
            found.push(file(&below.to_string_lossy()));
        }
    }
}

/// Rust without its comments, and with nothing in its string and character literals. Lines stay where they
/// are.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut code, mut at) = (String::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let end = at + skipped(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        if end > at {
            code.extend(text[at..end].chars().filter(|c| *c == '\n'));
            code.push(' ');
            at = end;
        } else {
            let next = text[at..].chars().next().unwrap();
            code.push(next);
            at += next.len_utf8();
        }
    }
    code
}

/// How many bytes the comment or the literal has that begins here; 0 when none does.
fn skipped(rest: &[u8], before: Option<u8>) -> usize {
    let is_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => find(rest, b"*/").unwrap_or(rest.len()),
        [b'"', ..] => 1 + quoted(&rest[1..], b'"'),
        [b'r', b'"' | b'#', ..] if !is_word => raw(rest),
        [b'\'', b'\\', ..] => 1 + quoted(&rest[1..], b'\''),
        // A character, not a lifetime; one that is not ASCII has up to four bytes.
        [b'\'', first, tail @ ..] if *first != b'\'' => {
            let len = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if tail.get(len - 1) == Some(&b'\'') { len + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn quoted(rest: &[u8], end: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == end => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    find(&rest[hashes + 2..], &end).map_or(rest.len(), |len| hashes + 2 + len)
}

/// Where the first `needle` ends.
fn find(rest: &[u8], needle: &[u8]) -> Option<usize> {
    rest.windows(needle.len()).position(|window| window == needle).map(|at| at + needle.len())
}

/// The words and signs of code; `::` is one.
pub fn tokens(code: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let len = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}
