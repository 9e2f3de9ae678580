//! The password file: `user:hash`, one user on a line; the hash may be a verifier for SCRAM.
//!
//! Invariant: every user in a [`PasswordFile`] has a hash. A line without one refuses the whole file, and
//! never becomes a user without a password (CVE-2018-12551).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use super::{
    AuthFileError,
    credential::Credential,
    scram_verifier::{SALT_BYTES, SCRAM_ITERATIONS, ScramVerifier, hmac},
    text_file::{self, LineError},
};

/// The longest user name that a CONNECT can carry, in bytes.
const USER_BYTES_MAX: usize = 65_535;

/// The users of a password file with their hashes.
pub struct PasswordFile {
    users: HashMap<Box<str>, Credential>,
    /// Checked for unknown users, so that they take as long as known ones.
    decoy: Credential,
    /// The iterations and the length of salt that most users with a verifier have.
    usual_scram: (u32, usize),
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
    pub(super) fn check(&self, user: &str, password: &[u8]) -> Option<Credential> {
        let known = self.users.get(user);
        let right = known.unwrap_or(&self.decoy).verify(password);
        known.filter(|_| right).cloned()
    }

    /// The hash of a user.
    pub(super) fn hash(&self, user: &str) -> Option<&Credential> {
        self.users.get(user)
    }

    /// The verifier of a user; for a user who has none a decoy, the same each time, and false. Its salt follows
    /// from the name and the secret.
    pub(super) fn verifier(&self, user: &str, secret: &[u8]) -> (Arc<ScramVerifier>, bool) {
        let known = self.users.get(user).and_then(Credential::scram).cloned();
        let (iterations, salt_bytes) = self.usual_scram;
        // Made for known users too: it takes them as long.
        let salt = [hmac(secret, user.as_bytes()), hmac(secret, &[user.as_bytes(), &[0]].concat())].concat();
        let salt = salt.get(..salt_bytes).unwrap_or(&salt).into();
        let decoy = || (Arc::new(ScramVerifier::decoy(iterations, salt)), false);
        known.map_or_else(decoy, |verifier| (verifier, true))
    }

    /// The users of the text of a password file.
    ///
    /// # Errors
    /// The first line that is not understood, counted from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut users = HashMap::new();
        for (line, entry) in text_file::lines(text) {
            let (user, hash) = parse_entry(entry).map_err(|problem| (line, problem.into()))?;
            if users.insert(user.into(), hash).is_some() {
                return Err((line, "this user stands in the file twice: keep one line".into()));
            }
        }
        let dearest = users.values().max_by_key(|hash| hash.cost());
        let decoy = dearest.map(Credential::decoy).unwrap_or_default();
        let usual_scram = usual(users.values().filter_map(Credential::scram));
        Ok(Self { users, decoy, usual_scram })
    }
}

/// The iterations and the length of salt that most of these have; those of new ones where there are none.
fn usual<'a>(verifiers: impl Iterator<Item = &'a Arc<ScramVerifier>>) -> (u32, usize) {
    let mut counts = BTreeMap::<_, usize>::new();
    for verifier in verifiers {
        *counts.entry((verifier.iterations, verifier.salt.len())).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or((SCRAM_ITERATIONS, SALT_BYTES), |(form, _)| form)
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

fn parse_entry(entry: &str) -> Result<(&str, Credential), &'static str> {
    let (_, hash) = entry.split_once(':').ok_or("a line must be `user:hash`, and this one has no `:`")?;
    let user = user_of(entry).unwrap_or_default();
    check_user_name(user)?;
    let hash = hash.trim();
    if hash.is_empty() {
        return Err("the user has no password hash: set one with `causeway passwd`, or remove the line");
    }
    Ok((user, Credential::parse(hash)?))
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
    fn who_has_no_verifier_gets_a_decoy_that_looks_usual() {
        const KEYS: &str =
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let line = |user, iterations, salt| format!("{user}:$scram-sha-256$i={iterations}${salt}${KEYS}\n");
        let (short, long) = ("AAECAwQFBgcICQoL", "AAECAwQFBgcICQoLDA0ODw==");
        let text =
            [line("x", 9000, long), line("y", 5000, short), line("z", 5000, short), BOB.into()].concat();
        let Ok(file) = PasswordFile::parse(&text) else { panic!() };
        let of = |user: &str, secret: &[u8]| {
            let (verifier, is_known) = file.verifier(user, secret);
            (verifier.iterations, verifier.salt.clone(), is_known)
        };
        assert_eq!(of("x", b"s"), (9000, (0..16).collect(), true));
        for user in ["bob", "eve", ""] {
            let (iterations, salt, is_known) = of(user, b"s");
            assert_eq!((iterations, salt.len(), is_known), (5000, 12, false), "{user}");
            assert!(of(user, b"s").1 == salt && of(user, b"t").1 != salt && of("else", b"s").1 != salt);
        }
        let Ok(empty) = PasswordFile::parse("") else { panic!() };
        let decoy = empty.verifier("eve", b"s").0;
        assert_eq!((decoy.iterations, decoy.salt.len()), (SCRAM_ITERATIONS, SALT_BYTES));
        assert!(problem("ada:$scram-sha-256$i=4096$x").starts_with("1: a SCRAM line must be"));
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
