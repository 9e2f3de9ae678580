//! Which parts of a file no message repeats: what `[targets.NAME]` proves with, wherever it stands on a line.
//!
//! A mistake is shown with its line, and in `auth = { user = "u:u", password = "..." }` the line says more than the
//! value that is wrong. So it goes by keys, and what no key of a target is called is hidden, too: it may be a
//! misspelt one.

use toml::de::{DeTable, DeValue};

use super::report::Span;

/// Keys of a target that hold no secret.
const SHOWN: [&str; 17] = [
    "url",
    "timeout",
    "connect_timeout",
    "tls",
    "addresses",
    "http_version",
    "compress",
    "compress_min",
    "concurrency",
    "rate",
    "burst",
    "retry",
    "backoff_policy",
    "backoff_delay",
    "retry_after_max",
    "status",
    "breaker",
];
/// Keys of its `auth` that hold none.
const SHOWN_OF_AUTH: [&str; 7] = ["kind", "user", "header", "token_url", "client_id", "secret_in", "scopes"];

/// The places of these values. Those that only refer to a secret (`${env:NAME}`) are not among them.
pub(super) fn spans(root: &DeTable<'_>) -> Vec<Span> {
    let mut spans = Vec::new();
    let targets = root.get("targets").and_then(|targets| targets.get_ref().as_table());
    let targets = targets.into_iter().flat_map(DeTable::values);
    for target in targets.filter(|target| target.get_ref().is_table()) {
        collect(target, &SHOWN, &mut spans);
    }
    spans
}

/// The same for a line that is no TOML: where a table of a target is written, all that follows the first quote.
pub(super) fn span_of_broken_line(text: &str, at: usize) -> Option<Span> {
    let before = text.get(..text.floor_char_boundary(at))?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(line_start..)?.lines().next()?;
    let headed =
        text.get(..line_start)?.lines().rev().map(str::trim_start).find(|line| line.starts_with('['));
    let is_of_target =
        headed.is_some_and(|header| header.starts_with("[targets")) || line.contains("targets");
    let quote = line.find(['"', '\'']).filter(|_| is_of_target)?;
    Some(line_start + quote..line_start + line.len())
}

fn collect(value: &toml::Spanned<DeValue<'_>>, shown: &[&str], spans: &mut Vec<Span>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table.iter().filter(|(key, _)| !shown.contains(&&**key.get_ref())) {
                let is_auth = key.get_ref() == "auth" && !shown.is_empty();
                collect(value, if is_auth { &SHOWN_OF_AUTH } else { &[] }, spans);
            }
        }
        DeValue::Array(array) => array.iter().for_each(|value| collect(value, &[], spans)),
        DeValue::String(text) if !text.contains("${") => spans.push(value.span()),
        _ => {}
    }
}
