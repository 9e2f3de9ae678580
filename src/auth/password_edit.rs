//! Changing one user of a password file, so that a reader sees the old file or the new one.
//!
//! Invariant: lines of other users, comments and their order stay as they are, and the file is at no
//! moment readable for more people than before; a new one only for its owner.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use super::{
    AuthFileError, PasswordFile,
    hash::PasswordHash,
    password_file::{check_user_name, user_of},
    scram_verifier::{SALT_BYTES, ScramVerifier, prepare},
    text_file,
};

/// Why a password file was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum PasswordEditError {
    /// The present file cannot be read, or has a bad line.
    #[error(transparent)]
    File(#[from] AuthFileError),
    /// No password file can hold this user name.
    #[error("{0}")]
    UserName(&'static str),
    /// The password is empty.
    #[error("the password is empty")]
    EmptyPassword,
    /// No client could ever prove that it knows it.
    #[error("the password holds what SASLprep forbids for SCRAM (RFC 4013), or is not UTF-8: choose another")]
    PasswordForScram,
    /// The user to remove is not in the file.
    #[error("there is no such user in {}", .0.display())]
    NoSuchUser(PathBuf),
    /// No random salt, or no memory for the hash.
    #[error("cannot hash the password: no random numbers or not enough memory")]
    Hash,
    /// Another change is under way, or one was killed.
    #[error("{} exists: is another change under way? If not, remove that file", .0.display())]
    Busy(PathBuf),
    /// The new file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Whether the user was in the file before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The user is new.
    Added,
    /// The user has a new password.
    Updated,
}

/// What is kept of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// An argon2id hash: for passwords that come in CONNECT.
    Hash,
    /// A verifier for SCRAM-SHA-256 with so many iterations, which also checks passwords that come in CONNECT.
    ScramVerifier {
        /// Between [`SCRAM_ITERATIONS_MIN`](super::SCRAM_ITERATIONS_MIN) and
        /// [`SCRAM_ITERATIONS_MAX`](super::SCRAM_ITERATIONS_MAX).
        iterations: u32,
    },
}

/// Adds a user or changes the password; makes the file, with mode 0600, when there is none.
pub fn set_password(
    path: &Path,
    user: &str,
    password: &[u8],
    keep: Keep,
) -> Result<Change, PasswordEditError> {
    check_user_name(user).map_err(PasswordEditError::UserName)?;
    if password.is_empty() {
        return Err(PasswordEditError::EmptyPassword);
    }
    let hash = match keep {
        Keep::Hash => PasswordHash::make(password).ok_or(PasswordEditError::Hash)?,
        Keep::ScramVerifier { iterations } => verifier_line(user, password, iterations)?,
    };
    let entry = format!("{user}:{hash}");
    rewrite(path, |text| {
        let mut change = Change::Added;
        let mut lines: Vec<&str> = Vec::new();
        for line in text.lines() {
            if is_entry_of(line, user) {
                change = Change::Updated;
                lines.push(&entry);
            } else {
                lines.push(line);
            }
        }
        if change == Change::Added {
            lines.push(&entry);
        }
        Ok((joined(&lines), change))
    })
}

/// Removes a user from the file.
pub fn remove_user(path: &Path, user: &str) -> Result<(), PasswordEditError> {
    rewrite(path, |text| {
        let rest: Vec<&str> = text.lines().filter(|line| !is_entry_of(line, user)).collect();
        if rest.len() == text.lines().count() {
            return Err(PasswordEditError::NoSuchUser(path.to_owned()));
        }
        Ok((joined(&rest), ()))
    })
}

fn verifier_line(user: &str, password: &[u8], iterations: u32) -> Result<String, PasswordEditError> {
    if prepare(user).as_deref() != Some(user) {
        let problem = "the user name is not in the form that SCRAM clients send (SASLprep, RFC 4013)";
        return Err(PasswordEditError::UserName(problem));
    }
    let prepared = std::str::from_utf8(password).ok().and_then(prepare).filter(|text| !text.is_empty());
    let prepared = prepared.ok_or(PasswordEditError::PasswordForScram)?;
    let salt: [u8; SALT_BYTES] = rand::random();
    Ok(ScramVerifier::derive(prepared.as_bytes(), &salt, iterations).to_line())
}

fn is_entry_of(line: &str, user: &str) -> bool {
    !line.trim_start().starts_with('#') && user_of(line) == Some(user)
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

/// Replaces the text of a valid password file in one step. The new file also serves as the lock: who finds
/// it there leaves.
fn rewrite<T>(
    path: &Path,
    edit: impl FnOnce(&str) -> Result<(String, T), PasswordEditError>,
) -> Result<T, PasswordEditError> {
    // A link is followed, so that the file it names is changed and not the link replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let new_path = beside(path);
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new_path);
    let new = new.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PasswordEditError::Busy(new_path.clone()),
        _ => PasswordEditError::Write { path: new_path.clone(), source },
    })?;
    let result = fill_and_rename(path, &new_path, new, edit);
    if result.is_err() {
        // Nothing more can be done about a file that cannot be removed either; the next change names it.
        let _ = fs::remove_file(&new_path);
    }
    result
}

fn fill_and_rename<T>(
    path: &Path,
    new_path: &Path,
    mut new: File,
    edit: impl FnOnce(&str) -> Result<(String, T), PasswordEditError>,
) -> Result<T, PasswordEditError> {
    let failed = |source| PasswordEditError::Write { path: path.to_owned(), source };
    let old = match fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    if let Some(old) = old {
        text = text_file::read(path)?;
        PasswordFile::parse(&text).map_err(|error| text_file::malformed(path, error))?;
        keep_owner_and_group(&new, &old).map_err(failed)?;
    }
    let (text, outcome) = edit(&text)?;
    new.write_all(text.as_bytes()).and_then(|()| new.sync_all()).map_err(failed)?;
    fs::rename(new_path, path).and_then(|()| sync_folder(path)).map_err(failed)?;
    Ok(outcome)
}

/// The broker often runs as another user than the person who changes its passwords.
fn keep_owner_and_group(new: &File, old: &fs::Metadata) -> io::Result<()> {
    let made = new.metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        fchown(new, Some(old.uid()), Some(old.gid()))?;
    }
    new.set_permissions(Permissions::from_mode(old.mode() & 0o770))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "bob:$6$AAECAwQFBgcICQoL$UVESpOtJwvHS8+UwVD+/3VLCuQj8a98S/jorI3aOJiZkSylcjpyrQ0sQD+5dKpk7w3+QkxsCk8xg0/f+N/yvaQ==";

    #[test]
    fn adds_changes_and_removes_one_user_and_keeps_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, format!("# staff\n{OTHER}\n")).unwrap();

        assert_eq!(set_password(&path, "ada", b"one", Keep::Hash).unwrap(), Change::Added);
        assert!(PasswordFile::load(&path).unwrap().verify("ada", b"one"));

        assert_eq!(set_password(&path, "ada", b"two", Keep::Hash).unwrap(), Change::Updated);
        let file = PasswordFile::load(&path).unwrap();
        assert!(file.verify("ada", b"two") && !file.verify("ada", b"one"));
        assert!(file.verify("bob", b"tide and harbour"));

        remove_user(&path, "ada").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("# staff\n{OTHER}\n"));
        assert!(matches!(remove_user(&path, "ada"), Err(PasswordEditError::NoSuchUser(_))));
    }

    #[test]
    fn others_cannot_read_a_file_it_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        set_password(&path, "ada", b"one", Keep::Hash).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        set_password(&path, "ada", b"two", Keep::Hash).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn follows_a_link_instead_of_replacing_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("users"), folder.path().join("link"));
        set_password(&path, "ada", b"one", Keep::Hash).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        set_password(&link, "ada", b"two", Keep::Hash).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(PasswordFile::load(&path).unwrap().verify("ada", b"two"));
    }

    #[test]
    fn a_refused_change_leaves_the_file_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "broken\n").unwrap();
        assert!(matches!(set_password(&path, "ada", b"one", Keep::Hash), Err(PasswordEditError::File(_))));
        assert!(matches!(
            set_password(&path, "a:b", b"one", Keep::Hash),
            Err(PasswordEditError::UserName(_))
        ));
        assert!(matches!(
            set_password(&path, "#ada", b"one", Keep::Hash),
            Err(PasswordEditError::UserName(_))
        ));
        assert!(matches!(set_password(&path, "ada", b"", Keep::Hash), Err(PasswordEditError::EmptyPassword)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "broken\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_changes_at_once_do_not_lose_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(folder.path().join("users.new"), "").unwrap();
        assert!(matches!(set_password(&path, "ada", b"one", Keep::Hash), Err(PasswordEditError::Busy(_))));
        assert!(folder.path().join("users.new").exists());
    }
}
