//! Files that a configuration names: whether they can be read, and small ones as text.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::report::Wrong;

/// The text of a file of at most `bytes_max` bytes.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bytes_max} bytes")));
    }
    Ok(text)
}

/// Whether this is a file that we may read. The message continues the name of the key.
pub(super) fn check_readable(path: &Path) -> Result<(), Wrong> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(Wrong::new(format!("is a folder, not a file: {}", path.display())));
    }
    // Opening a pipe would wait for its other end.
    if metadata.is_file() {
        File::open(path).map_err(|error| unreadable(path, &error))?;
    }
    Ok(())
}

/// Whether a folder is there or can be made there. The message continues the name of the key.
pub(super) fn check_folder(path: &Path) -> Result<(), Wrong> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            Err(Wrong::new(format!("is a file, not a folder: {}", path.display())))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unreadable(path, &error)),
        _ => Ok(()),
    }
}

/// Why a file cannot be read, and what to do about it.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Wrong {
    let wrong = Wrong::new(format!("cannot be read: {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::NotFound if path.is_relative() => {
            wrong.help("relative paths start at the working directory of the process")
        }
        io::ErrorKind::PermissionDenied => wrong.help("give read access to the user that runs Causeway"),
        _ => wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_file_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("four");
        fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        assert_eq!(read_text(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn files_and_folders_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let missing = folder.path().join("missing");
        fs::write(&file, "").unwrap();
        assert!(check_readable(&file).is_ok());
        assert!(check_readable(&missing).unwrap_err().message.starts_with("cannot be read"));
        assert!(check_readable(folder.path()).unwrap_err().message.starts_with("is a folder"));
        assert!(check_folder(folder.path()).is_ok());
        assert!(check_folder(&missing).is_ok());
        assert!(check_folder(&file).unwrap_err().message.starts_with("is a file"));
    }
}
