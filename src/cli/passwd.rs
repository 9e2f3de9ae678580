//! `causeway passwd`: adds, changes and removes users of a password file.

use std::{
    io::{self, BufRead, Write},
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
};

use crate::auth::{
    Change, Escaped, Keep, PasswordEditError, SCRAM_ITERATIONS, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN,
    remove_user, set_password,
};

/// Longest password that a CONNECT can carry, in bytes.
const PASSWORD_BYTES_MAX: u64 = 65_535;

/// Add a user to a password file, change the password, or remove the user.
///
/// The password is asked for twice. The file is made when there is none; a running broker reads it again
/// on SIGHUP.
#[derive(Debug, clap::Args)]
pub struct PasswdArgs {
    /// The password file.
    file: PathBuf,
    /// The user name.
    user: String,
    /// Remove the user.
    #[arg(long, conflicts_with = "stdin")]
    delete: bool,
    /// Keep what SCRAM-SHA-256 needs, so that the client need not send its password. It may still do so.
    #[arg(long, conflicts_with = "delete")]
    scram: bool,
    /// What a try at the password costs, and each SCRAM login of the client: choose fewer for a small device.
    #[arg(long, requires = "scram", value_name = "N", default_value_t = SCRAM_ITERATIONS,
          value_parser = clap::value_parser!(u32).range(ITERATIONS))]
    iterations: u32,
    /// Read the password from the first line of standard input instead of asking for it.
    #[arg(long)]
    stdin: bool,
}

const ITERATIONS: RangeInclusive<i64> = SCRAM_ITERATIONS_MIN as i64..=SCRAM_ITERATIONS_MAX as i64;

#[derive(Debug, thiserror::Error)]
enum PasswdError {
    #[error(transparent)]
    Edit(#[from] PasswordEditError),
    #[error("cannot read the password: {0}")]
    Input(#[from] io::Error),
    #[error(
        "there is no terminal to ask for the password ({0}); with --stdin it is read from standard input"
    )]
    NoTerminal(io::Error),
    #[error("the passwords differ: nothing was changed")]
    Differ,
    #[error("the password is longer than the {PASSWORD_BYTES_MAX} bytes that MQTT allows")]
    TooLong,
}

/// Runs the command: 0 when the file was changed, 1 when it was not.
pub fn run(args: PasswdArgs) -> ExitCode {
    match edit(&args) {
        Ok(done) => {
            // Whoever closed standard output does not want to know.
            let _ = writeln!(io::stdout(), "{done} {} in {}", Escaped(&args.user), args.file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "causeway passwd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn edit(args: &PasswdArgs) -> Result<&'static str, PasswdError> {
    if args.delete {
        remove_user(&args.file, &args.user)?;
        return Ok("removed");
    }
    let password = if args.stdin { first_line(io::stdin().lock())? } else { ask()? };
    let keep = match args.scram {
        true => Keep::ScramVerifier { iterations: args.iterations },
        false => Keep::Hash,
    };
    Ok(match set_password(&args.file, &args.user, &password, keep)? {
        Change::Added => "added",
        Change::Updated => "changed the password of",
    })
}

fn ask() -> Result<Vec<u8>, PasswdError> {
    let password = rpassword::prompt_password("Password: ").map_err(PasswdError::NoTerminal)?;
    if rpassword::prompt_password("Again: ")? != password {
        return Err(PasswdError::Differ);
    }
    Ok(password.into_bytes())
}

/// The first line without its end, so that `echo` and `printf` give the same password.
fn first_line(input: impl BufRead) -> Result<Vec<u8>, PasswdError> {
    let mut line = Vec::new();
    input.take(PASSWORD_BYTES_MAX + 2).read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(PasswdError::TooLong);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_ends_with_its_line() {
        for input in ["tide and harbour", "tide and harbour\n", "tide and harbour\r\nmore\n"] {
            assert_eq!(first_line(input.as_bytes()).unwrap(), b"tide and harbour");
        }
        assert_eq!(first_line("".as_bytes()).unwrap(), b"");
        assert_eq!(first_line(" a \n".as_bytes()).unwrap(), b" a ");
        let long = "x".repeat(65_536);
        assert!(matches!(first_line(long.as_bytes()), Err(PasswdError::TooLong)));
        assert_eq!(first_line(&long.as_bytes()[1..]).unwrap().len(), 65_535);
    }
}
