//! `[targets.NAME]`: where messages go, and what may be expected there.

use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use toml::{Spanned, de::DeValue};

use super::{
    BreakerConfig, RetryConfig, StatusClass, StatusRules, TargetConfig,
    report::Wrong,
    secret,
    section::Section,
    values::{self, AGE, TIMEOUT},
};

const CONCURRENCY: RangeInclusive<u32> = 1..=1024;
const TIMES: RangeInclusive<u32> = 1..=1_000_000;

/// Headers that describe the request as it is sent; the client writes them itself.
const OWN_HEADERS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Reads each `[targets.NAME]`. A target that could not be read still has its name: routes may refer to it.
pub(super) fn read_targets(root: &mut Section<'_>) -> Vec<(String, Option<TargetConfig>)> {
    root.named_sections("targets", |name, section| {
        if let Err(wrong) = values::check_name(name.get_ref()) {
            section.report().add(name.span(), wrong.about(&format!("\"{}\"", name.get_ref().escape_debug())));
        }
        (name.get_ref().to_string(), read_target(section))
    })
}

/// `None` when there is no usable URL; that is reported.
fn read_target(section: &mut Section<'_>) -> Option<TargetConfig> {
    let url = section.require("url", "\"http://127.0.0.1:8080/events\"", url);
    // The other keys are read in any case, for what is wrong with them.
    let default = TargetConfig::new(url.as_ref().map(|url| url.get_ref().clone()).unwrap_or_default());
    let target = TargetConfig {
        timeout: section.duration("timeout", TIMEOUT, default.timeout),
        connect_timeout: section.duration("connect_timeout", TIMEOUT, default.connect_timeout),
        headers: read_headers(section),
        ca_file: section.readable_file("ca_file"),
        concurrency: section.number("concurrency", CONCURRENCY, default.concurrency),
        retry: section.section("retry", read_retry),
        status: section.section("status", read_status),
        breaker: section.section("breaker", read_breaker),
        url: default.url,
    };
    if target.ca_file.is_some() && target.url.scheme_str() == Some("http") {
        section.wrong(
            "ca_file",
            Wrong::new("is of no use: the url is http, without TLS").help("write https://"),
        );
    }
    url.is_some().then_some(target)
}

fn read_retry(section: &mut Section<'_>) -> RetryConfig {
    let default = RetryConfig::default();
    let retry = RetryConfig {
        attempts: section.number("attempts", TIMES, default.attempts),
        initial: section.duration("initial", TIMEOUT, default.initial),
        max: section.duration("max", TIMEOUT, default.max),
        max_age: section.duration("max_age", AGE, default.max_age),
        retry_after_max: section.duration("retry_after_max", TIMEOUT, default.retry_after_max),
    };
    if retry.initial > retry.max {
        let max = format!("longer than max ({})", values::show_duration(retry.max));
        section.wrong("initial", Wrong::new(format!("is {max}")).help("make max longer, or initial shorter"));
    }
    retry
}

fn read_breaker(section: &mut Section<'_>) -> BreakerConfig {
    let default = BreakerConfig::default();
    let breaker = BreakerConfig {
        failures: section.number("failures", TIMES, default.failures),
        probe_interval: section.duration("probe_interval", TIMEOUT, default.probe_interval),
        probe_interval_max: section.duration("probe_interval_max", TIMEOUT, default.probe_interval_max),
    };
    if breaker.probe_interval > breaker.probe_interval_max {
        let max = values::show_duration(breaker.probe_interval_max);
        let wrong = Wrong::new(format!("is longer than probe_interval_max ({max})"));
        section
            .wrong("probe_interval", wrong.help("make probe_interval_max longer, or probe_interval shorter"));
    }
    breaker
}

fn read_status(section: &mut Section<'_>) -> StatusRules {
    let classes = [
        ("complete", StatusClass::Complete),
        ("retry", StatusClass::Retry),
        ("dead_letter", StatusClass::DeadLetter),
        ("drop", StatusClass::Drop),
    ];
    let mut ranges: Vec<(Spanned<RangeInclusive<u16>>, StatusClass)> = Vec::new();
    for (key, class) in classes {
        for range in section.list(key, status_range) {
            let overlaps = |other: &RangeInclusive<u16>| {
                other.start() <= range.get_ref().end() && range.get_ref().start() <= other.end()
            };
            if let Some((other, _)) = ranges.iter().find(|(other, _)| overlaps(other.get_ref())) {
                let line = section.report().line(other.span());
                let message = format!("overlaps with what stands on line {line}");
                let help = "each status can mean one thing only";
                section.wrong_at(key, range.span(), Wrong::new(message).help(help));
            }
            ranges.push((range, class));
        }
    }
    StatusRules { overrides: ranges.into_iter().map(|(range, class)| (range.into_inner(), class)).collect() }
}

/// `404`, `"404"`, `"500-599"` or `"5xx"`.
fn status_range(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, Wrong> {
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (200..=999).contains(status));
    let range = match value {
        DeValue::Integer(number) => status(&number.to_string()).map(|status| status..=status),
        DeValue::String(text) => match text.split_once('-') {
            Some((first, last)) => status(first).zip(status(last)).map(|(first, last)| first..=last),
            None => match text.strip_suffix("xx") {
                Some(hundreds) => status(&format!("{hundreds}00")).map(|first| first..=first + 99),
                None => status(text).map(|status| status..=status),
            },
        },
        _ => None,
    };
    let help = "write \"404\", \"500-599\" or \"5xx\"; a final status is 200 or more";
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| values::unexpected("an HTTP status or a range of them", value).help(help))
}

/// Every value may hold a secret, so that none of them is ever shown.
fn read_headers(section: &mut Section<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in section.entries("headers") {
        let header = match header_name(name.get_ref()) {
            Ok(header) => header,
            Err(wrong) => {
                section.wrong_at("headers", name.span(), wrong);
                continue;
            }
        };
        match header_value(value.get_ref()) {
            Ok(value) => {
                if headers.insert(header, value).is_some() {
                    let wrong = Wrong::new("has this header twice, in upper and lower case");
                    section.wrong_at("headers", name.span(), wrong.help("keep one of them"));
                }
            }
            Err(wrong) => section.wrong_at("headers", value.span(), wrong.about(header.as_str())),
        }
    }
    headers
}

fn header_name(name: &str) -> Result<HeaderName, Wrong> {
    let shown = name.escape_debug();
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Wrong::new(format!("has \"{shown}\", which cannot be the name of a header")))?;
    if OWN_HEADERS.contains(&header) {
        let wrong = Wrong::new(format!("has \"{header}\", which the HTTP client sets itself"));
        return Err(wrong.help("leave it out"));
    }
    Ok(header)
}

fn header_value(value: &DeValue<'_>) -> Result<HeaderValue, Wrong> {
    let text = value.as_str().ok_or_else(|| values::unexpected("text in quotes", value))?;
    let resolved = secret::resolve(text)?;
    let mut header = HeaderValue::from_str(&resolved).map_err(|_| {
        Wrong::new("has characters that a header cannot carry (a line end, perhaps)").secret()
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// An absolute http or https URL, without user, password or fragment.
fn url(value: &DeValue<'_>) -> Result<Uri, Wrong> {
    let example = "write it like \"https://example.com:8443/events\"";
    let text = value.as_str().ok_or_else(|| values::unexpected("a URL in quotes", value).help(example))?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(values::unexpected("a URL with a scheme", value).help("put http:// or https:// in front"));
    };
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        let wrong = Wrong::new("must be an http or https URL").not(&format!("\"{}\"", scheme.escape_debug()));
        return Err(wrong.help(example));
    }
    if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
        let help = "use a header: headers = { authorization = \"${env:NAME}\" }";
        return Err(Wrong::new("must not hold a user name or password").help(help).secret());
    }
    if rest.contains('#') {
        return Err(
            Wrong::new("must not have a fragment").help("leave out what follows the \"#\", and the \"#\"")
        );
    }
    let usable = |url: &Uri| {
        // What follows the host must be a port; one that is no number is kept as text, and never used.
        url.authority()
            .is_some_and(|at| !at.host().is_empty() && (at.as_str() == at.host() || at.port_u16().is_some()))
    };
    text.parse().ok().filter(usable).ok_or_else(|| values::unexpected("a URL", value).help(example))
}
