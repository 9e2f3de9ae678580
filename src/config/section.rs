//! Reading one table of the file: typed values with defaults.
//!
//! A value that cannot be read is reported and replaced by its default, so that one run finds all
//! mistakes. Serde would stop at the first one and forget the place of a value once it is read.
//!
//! Invariant: every key of a table is either asked for by its reader or reported as unknown.

use std::{
    borrow::Cow,
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    files,
    report::{Report, Span, Wrong},
    values,
};

/// One table of the file, or one that was left out.
pub(super) struct Section<'a> {
    path: String,
    span: Span,
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    report: &'a Report<'a>,
}

impl<'a> Section<'a> {
    /// Reads the whole file with `read`, and reports the keys that it did not ask for.
    pub(super) fn root<T>(
        table: &'a Spanned<DeTable<'a>>,
        report: &'a Report<'a>,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        Self::read(String::new(), table.span(), Some(table.get_ref()), report, read)
    }

    /// Reads the table `key`; when it was left out every default applies.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        let (span, table) = match self.table_at(key) {
            Some((span, table)) => (span, Some(table)),
            None => (self.span.clone(), None),
        };
        Self::read(self.dotted(key), span, table, self.report, read)
    }

    /// Reads the table `key`, unless it was left out.
    pub(super) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> Option<T> {
        let (span, table) = self.table_at(key)?;
        Some(Self::read(self.dotted(key), span, Some(table), self.report, read))
    }

    /// Reads each `[[key]]`; `None` when there is no such list at all.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'a>) -> T,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let help = format!("write [[{key}]], with two brackets, once for each of them");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_at(
                key,
                value.span(),
                values::unexpected("a list of tables", value.get_ref()).help(help),
            );
            return None;
        };
        let mut all = Vec::with_capacity(array.len());
        for element in array.iter() {
            match element.get_ref().as_table() {
                Some(table) => {
                    let path = self.dotted(key);
                    all.push(Self::read(path, element.span(), Some(table), self.report, &mut read));
                }
                None => {
                    let wrong = values::unexpected("a list of tables", element.get_ref()).help(help.clone());
                    self.wrong_at(key, element.span(), wrong);
                }
            }
        }
        Some(all)
    }

    /// Reads each `[key.NAME]` in the order of names. `read` gets the name with its place.
    pub(super) fn named_sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(Spanned<&str>, &mut Section<'a>) -> T,
    ) -> Vec<T> {
        let Some((_, tables)) = self.table_at(key) else { return Vec::new() };
        let mut all = Vec::with_capacity(tables.len());
        for (name, value) in tables {
            let path = format!("{}.{}", self.dotted(key), name.get_ref());
            match value.get_ref().as_table() {
                Some(table) => {
                    let at = Spanned::new(name.span(), name.get_ref().as_ref());
                    let read = |section: &mut Section<'a>| read(at, section);
                    // An implicit table has no header of its own; its name always has a place.
                    all.push(Self::read(path, name.span(), Some(table), self.report, read));
                }
                None => {
                    let wrong = values::unexpected("a table", value.get_ref());
                    let help = format!("write [{path}] on a line of its own, and the keys below it");
                    self.report.add(value.span(), wrong.about(&path).help(help));
                }
            }
        }
        all
    }

    /// The value of `key`, with its place. What `read` refuses is reported.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, Wrong>,
    ) -> Option<Spanned<T>> {
        let value = self.value(key)?;
        match read(value.get_ref()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(wrong) => {
                self.wrong_at(key, value.span(), wrong);
                None
            }
        }
    }

    /// As [`Section::take`], for a key that has no default. `example` shows how it is written.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, Wrong>,
    ) -> Option<Spanned<T>> {
        if self.value(key).is_none() {
            self.missing(key, example);
        }
        self.take(key, read)
    }

    /// The elements of the list `key`, each with its place; empty when it was left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&DeValue<'a>) -> Result<T, Wrong>,
    ) -> Vec<Spanned<T>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let wrong = values::unexpected("a list", value.get_ref()).help("put it in brackets: [ ]");
            self.wrong_at(key, value.span(), wrong);
            return Vec::new();
        };
        let mut all = Vec::with_capacity(array.len());
        for element in array.iter() {
            match read(element.get_ref()) {
                Ok(read) => all.push(Spanned::new(element.span(), read)),
                Err(wrong) => self.wrong_at(key, element.span(), wrong),
            }
        }
        all
    }

    /// As [`Section::list`], for a list that has at least one element. `example` shows how it is written.
    pub(super) fn require_list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnMut(&DeValue<'a>) -> Result<T, Wrong>,
    ) -> Vec<Spanned<T>> {
        if self.value(key).is_none_or(|value| value.get_ref().as_array().is_some_and(|list| list.is_empty()))
        {
            self.missing(key, example);
        }
        self.list(key, read)
    }

    /// The entries of the table `key`, for a table whose keys are the operator's own.
    pub(super) fn entries(
        &mut self,
        key: &'static str,
    ) -> impl Iterator<Item = (&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> + use<'a> {
        self.table_at(key).into_iter().flat_map(|(_, table)| table)
    }

    /// A duration within `allowed`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.optional_duration(key, allowed).unwrap_or(default)
    }

    /// As [`Section::duration`]; `None` when it was left out.
    pub(super) fn optional_duration(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let read = |value: &DeValue<'a>| {
            within(values::duration(value)?, &allowed, |duration| values::show_duration(*duration))
        };
        self.take(key, read).map(Spanned::into_inner)
    }

    /// A number of bytes within `allowed`.
    pub(super) fn bytes(&mut self, key: &'static str, allowed: RangeInclusive<u64>, default: u64) -> u64 {
        self.optional_bytes(key, allowed).unwrap_or(default)
    }

    /// As [`Section::bytes`]; `None` when it was left out.
    pub(super) fn optional_bytes(&mut self, key: &'static str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let read =
            |value: &DeValue<'a>| within(values::bytes(value)?, &allowed, |bytes| values::show_bytes(*bytes));
        self.take(key, read).map(Spanned::into_inner)
    }

    /// A whole number within `allowed`.
    pub(super) fn number<N>(&mut self, key: &'static str, allowed: RangeInclusive<N>, default: N) -> N
    where
        N: Copy + PartialOrd + Display + TryFrom<u64>,
    {
        self.optional_number(key, allowed).unwrap_or(default)
    }

    /// As [`Section::number`]; `None` when it was left out.
    pub(super) fn optional_number<N>(&mut self, key: &'static str, allowed: RangeInclusive<N>) -> Option<N>
    where
        N: Copy + PartialOrd + Display + TryFrom<u64>,
    {
        let read = |value: &DeValue<'a>| {
            let number = values::whole_number(value)?;
            let fitting = N::try_from(number).ok().filter(|number| allowed.contains(number));
            fitting.ok_or_else(|| {
                Wrong::new(format!("must be between {} and {}", allowed.start(), allowed.end())).not(&number)
            })
        };
        self.take(key, read).map(Spanned::into_inner)
    }

    /// A number within `allowed` that need not be whole; `None` when it was left out.
    pub(super) fn decimal(&mut self, key: &'static str, allowed: RangeInclusive<f64>) -> Option<f64> {
        let read = |value: &DeValue<'a>| within(values::decimal(value)?, &allowed, f64::to_string);
        self.take(key, read).map(Spanned::into_inner)
    }

    /// One of a few words.
    pub(super) fn choice<T: Clone>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        self.take(key, |value| values::choice(value, choices)).map(Spanned::into_inner)
    }

    /// A path to a file that must be readable; `None` when it was left out.
    pub(super) fn readable_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.take(key, values::path)?.into_inner();
        self.check_file(key, &path, files::check_readable);
        Some(path)
    }

    /// Reports what `check` says of the path that stands at `key`, if files are checked at all.
    pub(super) fn check_file(&self, key: &str, path: &Path, check: fn(&Path) -> Result<(), Wrong>) {
        if self.report.checks_files()
            && let Err(wrong) = check(path)
        {
            self.wrong(key, wrong);
        }
    }

    /// Reports what is wrong with the value of `key`; the message begins with the key.
    pub(super) fn wrong(&self, key: &str, wrong: Wrong) {
        self.wrong_at(key, self.span_of(key), wrong);
    }

    /// As [`Section::wrong`], for a part of the value.
    pub(super) fn wrong_at(&self, key: &str, span: Span, wrong: Wrong) {
        self.report.add(span, wrong.about(&self.dotted(key)));
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    fn read<T>(
        path: String,
        span: Span,
        table: Option<&'a DeTable<'a>>,
        report: &'a Report<'a>,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        let mut section = Self { path, span, table, known: Vec::new(), report };
        let value = read(&mut section);
        section.report_unknown_keys();
        value
    }

    fn missing(&self, key: &str, example: &str) {
        let wrong = Wrong::new(format!("{} needs {key}", self.path));
        self.report.add(self.span_of(key), wrong.help(format!("add {key} = {example}")));
    }

    /// Where the value of `key` stands, or this table if it has none.
    fn span_of(&self, key: &str) -> Span {
        let value = self.table.and_then(|table| table.get(key));
        value.map_or(self.span.clone(), Spanned::span)
    }

    fn report_unknown_keys(&self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let place = if self.path.is_empty() { String::new() } else { format!(" in {}", self.path) };
            let wrong = Wrong::new(format!("unknown key \"{}\"{place}", name.escape_debug()));
            let help = match values::nearest(name, self.known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.report.add(key.span(), wrong.help(help));
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table?.get(key)
    }

    fn table_at(&mut self, key: &'static str) -> Option<(Span, &'a DeTable<'a>)> {
        let value = self.value(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let path = self.dotted(key);
            let help = format!("write [{path}], with one bracket, and the keys below it");
            self.wrong_at(key, value.span(), values::unexpected("a table", value.get_ref()).help(help));
        }
        Some((value.span(), table?))
    }

    fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn within<T: PartialOrd>(
    value: T,
    allowed: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, Wrong> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let wrong = format!("must be between {} and {}", show(allowed.start()), show(allowed.end()));
    Err(Wrong::new(wrong).not(&show(&value)))
}
