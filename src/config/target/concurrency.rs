//! `concurrency` of a target: how many requests it has at once.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values;

const CONCURRENCY: RangeInclusive<u32> = 1..=1024;
/// What `concurrency = "adaptive"` moves between.
const ADAPTIVE: RangeInclusive<u32> = 1..=64;

/// Reads `concurrency`: a number, `"adaptive"`, or `{ adaptive = { min = 1, max = 64 } }`. Gives the most requests
/// at once, and how few they may become when the answers of the target decide.
pub(super) fn read(section: &mut Section<'_>, default: u32) -> (u32, Option<u32>) {
    match section.take("concurrency", kind).map(Spanned::into_inner) {
        None => (default, None),
        Some(Kind::Number) => (section.number("concurrency", CONCURRENCY, default), None),
        Some(Kind::Adaptive) => (*ADAPTIVE.end(), Some(*ADAPTIVE.start())),
        Some(Kind::Table) => {
            section.section("concurrency", |section| section.section("adaptive", read_adaptive))
        }
    }
}

fn read_adaptive(section: &mut Section<'_>) -> (u32, Option<u32>) {
    let min = section.number("min", CONCURRENCY, *ADAPTIVE.start());
    let max = section.number("max", CONCURRENCY, *ADAPTIVE.end());
    if min > max {
        let wrong = Wrong::new(format!("is more than max ({max})"));
        section.wrong("min", wrong.help("make max larger, or min smaller"));
    }
    (max, Some(min))
}

enum Kind {
    Number,
    Adaptive,
    Table,
}

fn kind(value: &DeValue<'_>) -> Result<Kind, Wrong> {
    match value {
        DeValue::Integer(_) => Ok(Kind::Number),
        DeValue::String(text) if text == "adaptive" => Ok(Kind::Adaptive),
        DeValue::Table(_) => Ok(Kind::Table),
        _ => {
            let help = "write 16, \"adaptive\", or { adaptive = { min = 1, max = 64 } }";
            Err(values::unexpected("a whole number or \"adaptive\"", value).help(help))
        }
    }
}
