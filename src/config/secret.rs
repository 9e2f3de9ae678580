//! Values that come from the environment or from a file: `${env:NAME}`, `${file:PATH}`.
//!
//! Invariant: no message repeats what was resolved, only where it was looked for.

use std::{env, fmt, path::Path};

use toml::de::DeValue;

use super::{files, report::Wrong};

const SECRET_BYTES_MAX: u64 = 64 << 10;
const HELP: &str = "write \"${env:NAME}\" or \"${file:PATH}\"";

/// Text that is never shown: `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps this text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Text in quotes, with its references resolved.
    pub(super) fn parse(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let text = value.as_str().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Wrong::new("must be text in quotes").help(HELP).secret())?;
        resolve(text).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("****")
    }
}

/// The text with every reference replaced by what it refers to.
pub(super) fn resolve(text: &str) -> Result<String, Wrong> {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once("${") {
        let Some((reference, after)) = reference.split_once('}') else {
            return Err(Wrong::new("has a \"${\" without its \"}\"").help(HELP));
        };
        resolved.push_str(before);
        resolved.push_str(&look_up(reference)?);
        rest = after;
    }
    resolved.push_str(rest);
    Ok(resolved)
}

fn look_up(reference: &str) -> Result<String, Wrong> {
    let value = match reference.split_once(':') {
        Some(("env", name)) => from_environment(name)?,
        Some(("file", path)) => from_file(path)?,
        _ => {
            return Err(
                Wrong::new(format!("cannot resolve \"${{{}}}\"", reference.escape_debug())).help(HELP)
            );
        }
    };
    if value.is_empty() {
        return Err(Wrong::new(format!("resolves \"${{{}}}\" to nothing", reference.escape_debug())));
    }
    Ok(value)
}

fn from_environment(name: &str) -> Result<String, Wrong> {
    let shown = name.escape_debug();
    env::var(name).map_err(|error| match error {
        env::VarError::NotPresent => {
            Wrong::new(format!("needs the environment variable {shown}, which is not set"))
                .help("set it for the process that runs Causeway, or use \"${file:PATH}\"")
        }
        env::VarError::NotUnicode(_) => {
            Wrong::new(format!("needs the environment variable {shown}, which is not UTF-8"))
        }
    })
}

/// Editors end the last line; the secret has no line end.
fn from_file(path: &str) -> Result<String, Wrong> {
    let path = Path::new(path);
    let text = files::read_text(path, SECRET_BYTES_MAX).map_err(|error| files::unreadable(path, &error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_where_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\r\n").unwrap();
        let text = format!("Bearer ${{file:{0}}};${{file:{0}}}.", file.display());
        assert_eq!(resolve(&text).unwrap(), "Bearer s3cret;s3cret.");
        assert_eq!(resolve("plain $text}").unwrap(), "plain $text}");
        assert_eq!(resolve("${env:PATH}").unwrap(), env::var("PATH").unwrap());
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused() {
        for (text, message) in [
            (
                "${env:CAUSEWAY_TEST_NOT_SET}",
                "needs the environment variable CAUSEWAY_TEST_NOT_SET, which is not set",
            ),
            ("${env:}", "is not set"),
            ("${env:A=B}", "is not set"),
            ("${file:no/such/file}", "cannot be read: no/such/file"),
            ("${vault:x}", "cannot resolve \"${vault:x}\""),
            ("${PATH}", "cannot resolve"),
            ("a ${env:X", "without its \"}\""),
        ] {
            let wrong = resolve(text).unwrap_err();
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
        }
    }

    #[test]
    fn an_empty_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty");
        std::fs::write(&file, "\n").unwrap();
        let wrong = resolve(&format!("${{file:{}}}", file.display())).unwrap_err();
        assert!(wrong.message.contains("to nothing"));
    }
}
