//! Topics and filters that often meet, and what the specification says about them, said once more and as
//! simply as possible.

use super::Input;

/// Levels around each other and around `/` in the order of bytes; the last two are for filters only.
const LEVELS: [&str; 12] = ["a", "b", "", "$x", "a-", "a.", "a0", "0", "é", "$SYS", "+", "#"];

/// A topic name: up to eight levels. May be one that is not allowed: empty.
pub fn name(input: &mut Input<'_>) -> String {
    levels(input, 10)
}

/// A topic filter: up to eight levels. May be one that is not allowed: empty, or `#` before the end.
pub fn filter(input: &mut Input<'_>) -> String {
    levels(input, LEVELS.len())
}

fn levels(input: &mut Input<'_>, choices: usize) -> String {
    let count = 1 + input.below(8);
    let levels: Vec<_> = (0..count).map(|_| input.pick(&LEVELS[..choices])).collect();
    levels.join("/")
}

/// Whether this is a topic name (sections 4.7.1 and 4.7.3).
pub fn is_name(text: &str) -> bool {
    is_text(text) && !text.contains(['+', '#'])
}

/// Whether this is a topic filter (section 4.7.1).
pub fn is_filter(text: &str) -> bool {
    let levels: Vec<_> = text.split('/').collect();
    let wildcards_stand_alone = levels.iter().all(|level| level.len() == 1 || !level.contains(['+', '#']));
    let (_, before) = levels.split_last().unwrap();
    is_text(text) && wildcards_stand_alone && !before.contains(&"#")
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= 65_535 && !text.contains('\0')
}

/// Whether a filter matches a name (section 4.7).
pub fn matches(filter: &str, name: &str) -> bool {
    let (filter, name): (Vec<_>, Vec<_>) = (filter.split('/').collect(), name.split('/').collect());
    // [MQTT-4.7.2-1]
    let hidden = name[0].starts_with('$') && matches!(filter[0], "+" | "#");
    !hidden && levels_match(&filter, &name)
}

fn levels_match(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        ([wanted, filter @ ..], [level, name @ ..]) => {
            (wanted == level || *wanted == "+") && levels_match(filter, name)
        }
        _ => false,
    }
}
