//! The password file: any text is users with a hash each, or an error that names its line and no secret.

use std::borrow::Cow;

use causeway::auth::PasswordFile;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match PasswordFile::parse(text) {
        Ok(_) => {
            let entries = lines().map(|line| line.split_once(':').unwrap());
            let (mut users, hashes): (Vec<_>, Vec<_>) =
                entries.map(|(user, hash)| (user.trim(), hash.trim())).unzip();
            users.sort_unstable();
            assert!(users.windows(2).all(|pair| pair[0] != pair[1]), "each user once");
            assert!(users.iter().all(|user| !user.is_empty()));
            assert!(hashes.iter().all(|hash| hash.starts_with('$')), "each with a hash");
        }
        Err((line, problem)) => {
            let wrong = text.lines().nth(line as usize - 1).unwrap();
            assert!(!wrong.trim().is_empty() && !problem.is_empty());
            assert!(matches!(problem, Cow::Borrowed(_)), "a message that is always the same tells no secret");
        }
    }
}
