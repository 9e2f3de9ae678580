//! Single values: from what stands in the file to the type that the program uses.
//!
//! Each function says what it would have taken when it refuses a value.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use http::Uri;
use toml::de::DeValue;

use super::report::Wrong;

/// Characters of a refused value that a message repeats.
const REPEATED_CHARS_MAX: usize = 60;

/// How long a single operation may take: longer is not a timeout any more.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// How long something may be kept. Ten years are far from the end of every clock.
pub(super) const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(3650 * 24);

/// `found` is not a value of the kind that was expected.
pub(super) fn unexpected(expected: &str, found: &DeValue<'_>) -> Wrong {
    Wrong::new(format!("must be {expected}")).not(&describe(found))
}

/// `"10s"`, `"1h 30m"`, `"90d"`, or as ISO 8601 writes it: `"PT10S"`, `"PT1H30M"`, `"P90D"`.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    let read = |text: &str| match text.starts_with('P') {
        true => iso_duration(text),
        false => humantime::parse_duration(text).ok(),
    };
    value.as_str().and_then(read).ok_or_else(|| {
        let example = match value.as_integer() {
            Some(number) if number.radix() == 10 => format!("say in which unit: \"{number}s\""),
            _ => "write a number and its unit: \"500ms\", \"10s\", \"5m\", \"24h\" or \"90d\"".to_owned(),
        };
        unexpected("a duration", value).help(example)
    })
}

/// Months and years have no length of their own, and so are no durations here.
fn iso_duration(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    duration.try_into().ok()
}

/// `"64 MiB"`, `"1 GB"`, or a plain number of bytes.
pub(super) fn bytes(value: &DeValue<'_>) -> Result<u64, Wrong> {
    let bytes = match value {
        DeValue::Integer(_) => whole_number(value).ok(),
        // A size without digits in front is not one, whatever the unit.
        DeValue::String(text) if text.starts_with(|first: char| first.is_ascii_digit()) => {
            text.parse::<ByteSize>().ok().map(|size| size.as_u64())
        }
        _ => None,
    };
    let help = "write a number and its unit, \"64 KiB\", \"1 MiB\" or \"4 GiB\", or a plain number of bytes";
    bytes.ok_or_else(|| unexpected("a size in bytes", value).help(help))
}

/// A whole number that is not negative.
pub(super) fn whole_number(value: &DeValue<'_>) -> Result<u64, Wrong> {
    let integer = value.as_integer();
    let number = integer.and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
    number.ok_or_else(|| {
        let wrong = unexpected("a whole number", value);
        if value.is_str() { wrong.help("write it without quotes") } else { wrong }
    })
}

/// A number that need not be whole.
pub(super) fn decimal(value: &DeValue<'_>) -> Result<f64, Wrong> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(_) => whole_number(value).ok().map(|number| number as f64),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite()).ok_or_else(|| unexpected("a number", value))
}

/// One of a few words.
pub(super) fn choice<T: Clone>(value: &DeValue<'_>, choices: &[(&'static str, T)]) -> Result<T, Wrong> {
    let text = value.as_str().unwrap_or_default();
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(chosen.clone());
    }
    let names = || choices.iter().map(|(name, _)| *name);
    let wrong = unexpected(&format!("one of {}", names().collect::<Vec<_>>().join(", ")), value);
    Err(match nearest(text, names()) {
        Some(near) => wrong.help(format!("did you mean \"{near}\"?")),
        None => wrong,
    })
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| {
        let wrong = unexpected("true or false", value);
        if value.is_str() { wrong.help("write it without quotes") } else { wrong }
    })
}

/// Any text that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value.as_str().ok_or_else(|| unexpected("text in quotes", value))?;
    if text.is_empty() {
        return Err(Wrong::new("must not be empty"));
    }
    Ok(text.to_owned())
}

/// A path, relative to the working directory.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    text(value).map(PathBuf::from)
}

/// `"127.0.0.1:1883"`, `"[::1]:1883"`.
pub(super) fn address(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let help =
            "write \"127.0.0.1:1883\" or \"[::1]:1883\" for this machine only, \"0.0.0.0:1883\" for everyone";
        unexpected("an IP address and a port", value).help(help)
    })
}

/// The path of a URL: `"/mqtt"`.
pub(super) fn url_path(value: &DeValue<'_>) -> Result<String, Wrong> {
    let path = value.as_str().filter(|path| path.starts_with('/') && !path.contains('#'));
    let path = path.filter(|path| path.parse::<Uri>().is_ok_and(|uri| uri.query().is_none()));
    let help =
        "write \"/mqtt\": what follows host and port, without ? and #, other characters percent-encoded";
    path.map(str::to_owned).ok_or_else(|| unexpected("the path of a URL", value).help(help))
}

/// Where web pages come from, as browsers write it: `"https://app.example"`, `"null"`; or `"*"` for all.
pub(super) fn origin(value: &DeValue<'_>) -> Result<String, Wrong> {
    let is_origin = |text: &&str| {
        let Some((scheme, rest)) = text.split_once("://") else { return matches!(*text, "*" | "null") };
        let is_bare = !rest.contains(['/', '?', '#', '@', '*']);
        let port = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some()).map(|uri| uri.port_u16());
        // A browser leaves out the usual port, and so would never write what is compared with it here.
        let usual = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        is_bare && port.is_some_and(|port| port.is_none() || port != usual)
    };
    let help = "write it as the browser does: \"https://app.example\", with a port unless it is the usual one, and \
                without a path; \"*\" allows every web page";
    let origin = value.as_str().filter(is_origin).map(str::to_owned);
    origin.ok_or_else(|| unexpected("the origin of web pages", value).help(help))
}

/// A name that is safe in file names, metrics and on a command line.
pub(super) fn check_name(name: &str) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let help = "a name has 1 to 64 of the characters a-z, A-Z, 0-9, \"-\", \"_\" and \".\"";
    Err(Wrong::new("is not a name").help(help))
}

/// The one of `known` that was probably meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance =
        |other: &&str| strsim::osa_distance(&name.to_ascii_lowercase(), &other.to_ascii_lowercase());
    let near = known.map(|other| (distance(&other), other)).min_by_key(|(distance, _)| *distance);
    let typos_max = 1.max(name.chars().count() / 3);
    near.filter(|(distance, _)| *distance <= typos_max).map(|(_, other)| other)
}

/// A duration in the largest unit that shows it whole, as it can be written in the file.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let whole = units.iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    match whole {
        Some((unit, letter)) => format!("{}{letter}", millis / unit),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

/// A size as it can be written in the file.
pub(super) fn show_bytes(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// What stands there, in a few words.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= REPEATED_CHARS_MAX => {
            format!("\"{}\"", text.escape_debug())
        }
        DeValue::String(text) => {
            let start: String = text.chars().take(REPEATED_CHARS_MAX).collect();
            format!("\"{}...\"", start.escape_debug())
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(toml: &str) -> DeValue<'_> {
        DeValue::parse(toml).unwrap().into_inner()
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("\"10s\"", 10), ("\"5m\"", 300), ("\"24h\"", 86_400), ("\"90d\"", 7_776_000)]
        {
            assert_eq!(duration(&value(text)), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration(&value("\"1h 30m\"")), Ok(Duration::from_secs(5400)));
        assert_eq!(duration(&value("\"250ms\"")), Ok(Duration::from_millis(250)));
        assert_eq!(duration(&value("\"0s\"")), Ok(Duration::ZERO));
        for (text, seconds) in
            [("\"PT5S\"", 5), ("\"PT0S\"", 0), ("\"PT1H30M\"", 5400), ("\"P1DT1S\"", 86_401)]
        {
            assert_eq!(duration(&value(text)), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration(&value("\"PT0.25S\"")), Ok(Duration::from_millis(250)));
        for text in ["\"P\"", "\"PT\"", "\"P1M\"", "\"-PT1S\"", "\"PT-1S\"", "\"P5S\"", "\"PT5\""] {
            assert!(duration(&value(text)).is_err(), "{text}");
        }
        for text in ["\"\"", "\"10\"", "\"-1s\"", "\"10 parsecs\"", "10", "true", "\"99999999999999999999d\""]
        {
            assert!(duration(&value(text)).is_err(), "{text}");
        }
        assert_eq!(duration(&value("10")).unwrap_err().help.unwrap(), "say in which unit: \"10s\"");
    }

    #[test]
    fn sizes() {
        let sizes =
            [("\"64 MiB\"", 64 << 20), ("\"1KiB\"", 1024), ("\"1 kB\"", 1000), ("4096", 4096), ("\"7\"", 7)];
        for (text, expected) in sizes {
            assert_eq!(bytes(&value(text)), Ok(expected), "{text}");
        }
        for text in ["\"\"", "\"MiB\"", "\".\"", "\"-1 MiB\"", "-1", "1.5", "\"1 MiBs\"", "\"inf B\""] {
            assert!(bytes(&value(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn whole_numbers_in_any_radix() {
        assert_eq!(whole_number(&value("1_000")), Ok(1000));
        assert_eq!(whole_number(&value("0x10")), Ok(16));
        assert!(whole_number(&value("-1")).is_err());
        assert!(whole_number(&value("\"1\"")).unwrap_err().help.unwrap().contains("without quotes"));
    }

    #[test]
    fn bounds_are_shown_as_they_can_be_written() {
        let shown = [
            (0, "0s"),
            (1, "1ms"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (172_800_000, "2d"),
        ];
        for (millis, expected) in shown {
            assert_eq!(show_duration(Duration::from_millis(millis)), expected);
        }
        assert_eq!(show_bytes(1 << 20), "1.0 MiB");
    }

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["address", "tls", "connections_max"];
        assert_eq!(nearest("adress", known.into_iter()), Some("address"));
        assert_eq!(nearest("TLS", known.into_iter()), Some("tls"));
        assert_eq!(nearest("max_connections", known.into_iter()), None);
        assert_eq!(nearest("x", [].into_iter()), None);
    }

    #[test]
    fn names() {
        for name in ["a", "shore-2", "A_b.c"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
