//! The password file: `user:hash`, one user on a line.
//!
//! Invariant: every user in a [`PasswordFile`] has a hash. A line without one refuses the whole file, and
//! never becomes a user without a password (CVE-2018-12551).

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use super::{
    AuthFileError,
    hash::PasswordHash,
    text_file::{self, LineError},
};

/// The longest user name that a CONNECT can carry, in bytes.
const USER_BYTES_MAX: usize = 65_535;

/// The users of a password file with their hashes.
pub struct PasswordFile {
    users: HashMap<Box<str>, Arc<PasswordHash>>,
    /// Checked for unknown users, so that they take as long as known ones.
    decoy: PasswordHash,
}

impl PasswordFile {
    /// Reads a file of lines `user:$argon2id$...`, as `causeway passwd` and `mosquitto_passwd` write them;
    /// blank lines and `#` comments are skipped. One bad line refuses the file.
    pub fn load(path: &Path) -> Result<Self, AuthFileError> {
        let text = text_file::read(path)?;
        warn_if_others_can_read(path);
        Self::parse(&text).map_err(|error| text_file::malformed(path, error))
    }

    /// Whether the user exists and this is the password.
    #[cfg(test)]
    pub(super) fn verify(&self, user: &str, password: &[u8]) -> bool {
        self.check(user, password).is_some()
    }

    /// The hash of the user, if the user exists and this is the password. Blocks for as long as the hash
    /// costs (some 20 ms), also for a user who does not exist: call it on a bounded blocking pool.
    pub(super) fn check(&self, user: &str, password: &[u8]) -> Option<Arc<PasswordHash>> {
        let known = self.users.get(user);
        let hash = known.map_or(&self.decoy, |hash| hash.as_ref());
        let right = hash.verify(password);
        known.filter(|_| right).cloned()
    }

    /// The hash of a user.
    pub(super) fn hash(&self, user: &str) -> Option<&Arc<PasswordHash>> {
        self.users.get(user)
    }

    /// The users of the text of a password file.
    ///
    /// # Errors
    /// The first line that is not understood, counted from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut users = HashMap::new();
        for (line, entry) in text_file::lines(text) {
            let (user, hash) = parse_entry(entry).map_err(|problem| (line, problem.into()))?;
            if users.insert(user.into(), Arc::new(hash)).is_some() {
                return Err((line, "this user stands in the file twice: keep one line".into()));
            }
        }
        let dearest = users.values().max_by_key(|hash| hash.cost());
        let decoy = dearest.map(|hash| hash.decoy()).unwrap_or_default();
        Ok(Self { users, decoy })
    }
}

/// The user name of a line, without a look at its hash.
pub(super) fn user_of(entry: &str) -> Option<&str> {
    entry.split_once(':').map(|(user, _)| user.trim())
}

/// Whether the file can hold this user name; the error says why not.
pub(super) fn check_user_name(user: &str) -> Result<(), &'static str> {
    if user.is_empty() {
        return Err("the user name is empty");
    }
    if user.len() > USER_BYTES_MAX {
        return Err("the user name is longer than the 65535 bytes that MQTT allows");
    }
    if user.contains(':') || user.starts_with('#') || user.trim() != user {
        return Err("a user name cannot contain `:`, begin with `#`, or begin or end with a space");
    }
    if user.contains(char::is_control) {
        return Err("a user name cannot contain control characters");
    }
    Ok(())
}

fn parse_entry(entry: &str) -> Result<(&str, PasswordHash), &'static str> {
    let (_, hash) = entry.split_once(':').ok_or("a line must be `user:hash`, and this one has no `:`")?;
    let user = user_of(entry).unwrap_or_default();
    check_user_name(user)?;
    let hash = hash.trim();
    if hash.is_empty() {
        return Err("the user has no password hash: set one with `causeway passwd`, or remove the line");
    }
    Ok((user, PasswordHash::parse(hash)?))
}

fn warn_if_others_can_read(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |data| data.permissions().mode() & 0o777);
    if mode & 0o007 != 0 {
        tracing::warn!("everyone can read {} (mode {mode:o}): `chmod o= {0}`", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str =
        "ada:$argon2id$v=19$m=64,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$kCzHXiNocU1EHWIdxW3YzPgwoTMGXuwqfb1WMS6QoWo";
    const BOB: &str = "bob:$6$AAECAwQFBgcICQoL$UVESpOtJwvHS8+UwVD+/3VLCuQj8a98S/jorI3aOJiZkSylcjpyrQ0sQD+5dKpk7w3+QkxsCk8xg0/f+N/yvaQ==";

    fn problem(text: &str) -> String {
        match PasswordFile::parse(text) {
            Err((line, problem)) => format!("{line}: {problem}"),
            Ok(file) => panic!("{} users from {text:?}", file.users.len()),
        }
    }

    #[test]
    fn verifies_its_users_and_nobody_else() {
        let Ok(file) = PasswordFile::parse(&format!("# staff\r\n\n{ADA}\r\n  {BOB}")) else { panic!() };
        assert_eq!(file.users.len(), 2);
        assert!(file.verify("ada", b"tide and harbour"));
        assert!(file.verify("bob", b"tide and harbour"));
        assert!(!file.verify("bob", b"wrong"));
        assert!(!file.verify("bob", b""));
        assert!(!file.verify("eve", b"tide and harbour"));
        assert!(!file.verify("", b""));
    }

    #[test]
    fn an_unknown_user_costs_as_much_as_the_dearest_known_one() {
        let Ok(file) = PasswordFile::parse(&format!("{BOB}\n{ADA}")) else { panic!() };
        assert_eq!(file.decoy.cost(), 64);
        let Ok(empty) = PasswordFile::parse("") else { panic!() };
        assert_eq!(empty.decoy.cost(), 19 * 1024 * 2);
    }

    #[test]
    fn one_bad_line_refuses_the_file() {
        assert!(problem("ada").starts_with("1: a line must be `user:hash`"));
        assert!(problem("\nada:").starts_with("2: the user has no password hash"));
        assert!(problem("ada: ").starts_with("1: the user has no password hash"));
        assert!(problem(":$6$x$y").starts_with("1: the user name is empty"));
        assert!(problem(&format!("{ADA}\n#\n{ADA}")).starts_with("3: this user stands in the file twice"));
        assert!(problem("a\u{7}b:$6$x$y").starts_with("1: a user name cannot contain control"));
        assert!(problem(&format!("{BOB}:more")).contains("base64"));
    }

    #[test]
    fn an_error_does_not_repeat_the_password() {
        let problem = problem("ada:correct horse");
        assert!(problem.starts_with("1: not a password hash"), "{problem}");
        assert!(!problem.contains("horse"), "{problem}");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = PasswordFile::load(&folder.path().join("none")).err().unwrap();
        assert!(matches!(error, AuthFileError::Unreadable { .. }));
    }
}
