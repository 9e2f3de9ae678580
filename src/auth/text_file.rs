//! Reading a small text file line by line, with errors that name the line.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Largest password or ACL file: room for some hundred thousand users, and an end for a wrong path.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why a password file or an ACL file was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// The file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than any real one.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes: is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line breaks the rules of the file. The message never repeats what may be a secret.
    #[error("{}:{line}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u32,
        /// What is wrong with it, and what would be right.
        problem: Cow<'static, str>,
    },
}

/// What is wrong with one line, and its number.
pub(super) type LineError = (u32, Cow<'static, str>);

/// Adds the file's name to what is wrong with a line of it.
pub(super) fn malformed(path: &Path, (line, problem): LineError) -> AuthFileError {
    AuthFileError::Malformed { path: path.to_owned(), line, problem }
}

/// Reads the whole of a file that must be text.
pub(super) fn read(path: &Path) -> Result<String, AuthFileError> {
    let unreadable = |source| AuthFileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(AuthFileError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count() as u32;
        malformed(path, (line, "this line is not UTF-8 text".into()))
    })
}

/// The lines that say something, trimmed and with their numbers: no blank lines, no `#` comments.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.lines()
        .zip(1..)
        .map(|(line, number)| (number, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_line_that_is_not_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        std::fs::write(&path, b"# first\nuser \xFF\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.ends_with("acl:2: this line is not UTF-8 text"), "{error}");
    }

    #[test]
    fn skips_blank_lines_and_comments_but_counts_them() {
        let found: Vec<_> = lines("\n# x\r\n one \r\n\n\ttwo").collect();
        assert_eq!(found, [(3, "one"), (5, "two")]);
    }
}
