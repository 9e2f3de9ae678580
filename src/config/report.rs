//! The mistakes found so far while one file is read.

use std::{cell::RefCell, fmt::Display, ops::Range};

use super::error::{ConfigError, Mistake, Place};

/// Where something stands in the file, in bytes.
pub(super) type Span = Range<usize>;

/// The mistakes found so far in one file.
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    checks_files: bool,
    hidden: Vec<Span>,
    found: RefCell<Vec<(Span, Wrong)>>,
}

/// What is wrong with a value, and what would be right. The message continues the name of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: Option<String>,
    found: Option<String>,
    is_secret: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, checks_files: false, hidden: Vec::new(), found: RefCell::default() }
    }

    /// Also reports files that are named and cannot be read.
    pub(super) fn checking_files(self) -> Self {
        Self { checks_files: true, ..self }
    }

    /// Repeats nothing of what stands there.
    pub(super) fn hiding(self, hidden: Vec<Span>) -> Self {
        Self { hidden, ..self }
    }

    /// Whether files that are named are looked at.
    pub(super) fn checks_files(&self) -> bool {
        self.checks_files
    }

    pub(super) fn add(&self, span: Span, wrong: Wrong) {
        self.found.borrow_mut().push((span, wrong));
    }

    /// The line (from 1) on which this stands, for a message that points to another place.
    pub(super) fn line(&self, span: Span) -> usize {
        Place::new(self.text, span).line
    }

    /// `value` if nothing was wrong, all mistakes in the order of the file otherwise.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        let mut found = self.found.take();
        if found.is_empty() {
            return Ok(value);
        }
        found.sort_by_key(|(span, _)| span.start);
        let Self { file, text, mut hidden, .. } = self;
        hidden.extend(found.iter().filter(|(_, wrong)| wrong.is_secret).map(|(span, _)| span.clone()));
        let mistake = |(span, wrong): (Span, Wrong)| {
            let is_hidden = hidden.iter().any(|hidden| hidden.contains(&span.start));
            let not = wrong.found.filter(|_| !is_hidden).map(|found| format!(", not {found}"));
            Mistake {
                file: file.to_owned(),
                place: Some(Place::new(text, span).hiding(text, &hidden)),
                message: wrong.message + &not.unwrap_or_default(),
                help: wrong.help,
            }
        };
        Err(ConfigError { mistakes: found.into_iter().map(mistake).collect() })
    }
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, found: None, is_secret: false }
    }

    /// Adds what would be right.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Keeps the value itself out of what is shown.
    pub(super) fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    /// Adds what was found instead, which is shown unless it is a secret.
    pub(super) fn not(self, found: &impl Display) -> Self {
        Self { found: Some(found.to_string()), ..self }
    }

    /// Puts the key in front.
    pub(super) fn about(self, key: &str) -> Self {
        Self { message: format!("{key} {}", self.message), ..self }
    }
}
