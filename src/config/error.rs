//! What is wrong with a configuration, shown so that a person can act on it: where, what, what would be
//! right, and the line itself with a mark under it.
//!
//! Invariant: a [`ConfigError`] holds at least one mistake, in the order of the file.

use std::{fmt, ops::Range};

/// Characters of a source line that are shown around a mistake.
const SHOWN_WIDTH_MAX: usize = 160;

/// Every mistake that was found in one configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// In the order of the file.
    pub mistakes: Vec<Mistake>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The configuration file, as the operator named it.
    pub file: String,
    /// Where in the file; `None` when the file could not be read.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// How many characters of the line are meant; at least 1.
    pub width: usize,
    /// The line, without its end.
    pub source: String,
}

impl Place {
    /// The place of these bytes in `text`. What goes beyond the first line is not marked.
    pub(super) fn new(text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let end = text.floor_char_boundary(span.end).max(start);
        let (before, from_start) = text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = from_start.find('\n').map_or(text.len(), |newline| start + newline);
        let marked = text.get(start..end.min(line_end)).unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            width: marked.trim_end_matches('\r').chars().count().max(1),
            source: text.get(line_start..line_end).unwrap_or_default().trim_end_matches('\r').to_owned(),
        }
    }

    /// The same place with these parts of the text made unreadable.
    pub(super) fn hiding(self, text: &str, hidden: &[Range<usize>]) -> Self {
        let line_start = text.split_inclusive('\n').take(self.line - 1).map(str::len).sum::<usize>();
        let is_hidden = |at: usize| hidden.iter().any(|span| span.contains(&(line_start + at)));
        let mask = |(at, c)| if is_hidden(at) { '*' } else { c };
        Self { source: self.source.char_indices().map(mask).collect(), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else {
            write!(f, "{}: {}", self.file, self.message)?;
            return self.help.iter().try_for_each(|help| write!(f, "\n = {help}"));
        };
        writeln!(f, "{}:{}:{}: {}", self.file, place.line, place.column, self.message)?;
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let (before, shown) = place.window();
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", printable(&before) + &printable(&shown))?;
        // Tabs stay tabs, so that the mark stands under its text whatever a tab is wide.
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let room = shown.chars().count().max(1);
        write!(f, "{margin} | {indent}{}", "^".repeat(place.width.min(room)))?;
        self.help.iter().try_for_each(|help| write!(f, "\n{margin} = {help}"))
    }
}

impl Place {
    /// The part of the line that is shown: what stands before the mark, and what follows from there.
    fn window(&self) -> (String, String) {
        let marked_from = self.column - 1;
        let skipped = (marked_from + self.width.min(SHOWN_WIDTH_MAX)).saturating_sub(SHOWN_WIDTH_MAX);
        let skipped = skipped.min(marked_from);
        let before = self.source.chars().skip(skipped).take(marked_from - skipped).collect();
        let room = SHOWN_WIDTH_MAX - (marked_from - skipped);
        let shown = self.source.chars().skip(marked_from).take(room).collect();
        (before, shown)
    }
}

/// Control characters could rewrite what the terminal shows.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let mistake = Mistake {
            file: "a.toml".into(),
            place: Some(Place::new(text, span)),
            message: "is wrong".into(),
            help: Some("do it right".into()),
        };
        mistake.to_string()
    }

    #[test]
    fn a_mistake_shows_place_line_mark_and_help() {
        let text = "[store]\npath = 5\n";
        let expected = "a.toml:2:8: is wrong\n  |\n2 | path = 5\n  |        ^\n  = do it right";
        assert_eq!(shown(text, 15..16), expected);
    }

    #[test]
    fn columns_count_characters_and_tabs_stay_under_tabs() {
        let text = "\tä = \"x\"";
        assert!(shown(text, 6..9).ends_with("1 | \tä = \"x\"\n  | \t    ^^^\n  = do it right"));
        assert!(shown(text, 6..9).starts_with("a.toml:1:6:"));
    }

    #[test]
    fn a_span_over_several_lines_marks_its_first() {
        let text = "a = [\r\n  1,\r\n]\r\n";
        assert!(shown(text, 4..14).contains("1 | a = [\n  |     ^\n"));
    }

    #[test]
    fn places_at_and_beyond_the_end_are_shown() {
        for span in [3..3, 3..99, 99..100] {
            let place = Place::new("a =", span);
            assert_eq!((place.line, place.column, place.width), (1, 4, 1));
        }
        assert_eq!(Place::new("", 0..0).source, "");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark_and_control_characters_do_not_reach_the_terminal() {
        let text = format!("{}\u{1b}[2J{}", "a".repeat(5000), "b".repeat(5000));
        let shown = shown(&text, 5000..5003);
        assert!(shown.starts_with("a.toml:1:5001:"));
        assert!(shown.lines().all(|line| line.chars().count() <= SHOWN_WIDTH_MAX + 4));
        assert!(!shown.contains('\u{1b}'));
    }
}
