//! How lists, sizes and times are shown to people.
//!
//! Text that clients or targets chose must be made safe to print before it comes here.

use bytesize::ByteSize;
use jiff::Timestamp;

/// On which side of a column its values begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a line of names, in columns as wide as their longest value.
pub fn table<const N: usize>(columns: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let names = columns.map(|(name, _)| name.to_owned());
    let mut widths = [0; N];
    for row in rows.iter().chain([&names]) {
        for (width, value) in widths.iter_mut().zip(row) {
            *width = value.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in [&names].into_iter().chain(rows) {
        let mut line = String::new();
        for ((value, width), (_, align)) in row.iter().zip(widths).zip(columns) {
            match align {
                Align::Left => line.push_str(&format!("{value:<width$}  ")),
                Align::Right => line.push_str(&format!("{value:>width$}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text on one line that cannot act on a terminal: as it is, but for control characters.
pub fn one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// One thing: its names in a column, and what they have beside them.
pub fn details(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// A number of things, with an "s" when they are several.
pub fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// `1.2 MiB`
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// The two largest units of a time: `3m 12s`.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// How long ago this was; 0 when it is yet to come.
pub fn age_at(now: Timestamp, then: Timestamp) -> String {
    age(u64::try_from(now.as_second() - then.as_second()).unwrap_or_default())
}

/// The value, or a dash.
pub fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_value() {
        let row = |name: &str, number: u64| [name.to_owned(), number.to_string(), "x".to_owned()];
        let columns = [("NAME", Align::Left), ("N", Align::Right), ("", Align::Left)];
        let expected = "NAME      N\nZoë      12  x\nharbour   3  x\n";
        assert_eq!(table(columns, &[row("Zoë", 12), row("harbour", 3)]), expected);
        assert_eq!(table(columns, &[]), "NAME  N\n");
    }

    #[test]
    fn ages_have_their_two_largest_units() {
        let shown = [0, 59, 60, 192, 3599, 3600, 86_399, 86_400, 273_000].map(age);
        let expected = ["0s", "59s", "1m 0s", "3m 12s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "3d 3h"];
        assert_eq!(shown, expected);
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(age_at(at(200), at(8)), "3m 12s");
        assert_eq!(age_at(at(8), at(200)), "0s");
    }

    #[test]
    fn sizes_and_counts() {
        assert_eq!([0, 1023, 1_258_291].map(size), ["0 B", "1023 B", "1.2 MiB"]);
        assert_eq!([0, 1, 2].map(|number| count(number, "boat")), ["0 boats", "1 boat", "2 boats"]);
    }
}
