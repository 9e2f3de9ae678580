//! How one topic filter relates to another: does it cover it, do they overlap?
//!
//! The rules for `+`, `#` and `$` are those of a subscription [MQTT-4.7.1-2, MQTT-4.7.1-3,
//! MQTT-4.7.2-1]. Neither function recurses or allocates.

use crate::topic::TopicFilter;

/// Whether `wide` matches every topic that `narrow` matches. Says no in one case where yes were right
/// (`+/#` covers `#`), which costs its user a check and nobody a right.
pub(super) fn covers(wide: &TopicFilter, narrow: &TopicFilter) -> bool {
    if is_system(narrow) && wide.starts_with_wildcard() {
        return false;
    }
    let mut narrow = narrow.levels();
    for level in wide.levels() {
        match (level, narrow.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (name, Some(other)) if name == other => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

/// Whether some topic is matched by both filters.
pub(super) fn overlaps(one: &TopicFilter, other: &TopicFilter) -> bool {
    let apart = |a, b: &TopicFilter| is_system(a) && b.starts_with_wildcard();
    if apart(one, other) || apart(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.levels(), other.levels());
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (None, _) | (_, None) => return false,
            (Some("+"), _) | (_, Some("+")) => {}
            (Some(name), Some(same)) if name == same => {}
            _ => return false,
        }
    }
}

/// Whether it matches topics that a leading wildcard does not match [MQTT-4.7.2-1].
fn is_system(filter: &TopicFilter) -> bool {
    filter.first_level().starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicName;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, u16::MAX).unwrap()
    }

    /// All sequences of one to `depth` of these levels.
    fn paths(levels: &[&str], depth: usize) -> Vec<String> {
        let mut all: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
        let mut last = all.clone();
        for _ in 1..depth {
            last = last
                .iter()
                .flat_map(|path| levels.iter().map(move |level| format!("{path}/{level}")))
                .collect();
            all.extend_from_slice(&last);
        }
        all
    }

    fn filters() -> Vec<TopicFilter> {
        let mut filters = paths(&["a", "$x", "+"], 3);
        filters.extend(paths(&["a", "$x", "+"], 2).iter().map(|path| format!("{path}/#")));
        filters.push("#".to_owned());
        filters.iter().map(|text| filter(text)).collect()
    }

    #[test]
    fn agree_with_the_topics_that_the_filters_match() {
        // Long enough, and with a level that no filter names, to tell all of these filters apart.
        let topics = paths(&["a", "$x", "b"], 4);
        let matched = |filter: &TopicFilter| -> Vec<bool> {
            topics.iter().map(|topic| filter.matches(&TopicName::parse(topic, 9).unwrap())).collect()
        };
        let filters: Vec<_> = filters().into_iter().map(|filter| (matched(&filter), filter)).collect();
        for (set, one) in &filters {
            for (others, other) in &filters {
                let both = set.iter().zip(others).any(|(a, b)| *a && *b);
                assert_eq!(overlaps(one, other), both, "{one} overlaps {other}");
                let all = others.iter().zip(set).all(|(inner, outer)| !inner || *outer);
                if (one.as_str(), other.as_str()) != ("+/#", "#") {
                    assert_eq!(covers(one, other), all, "{one} covers {other}");
                }
            }
        }
    }

    #[test]
    fn a_number_sign_includes_the_parent() {
        assert!(covers(&filter("sport/#"), &filter("sport")));
        assert!(overlaps(&filter("sport/#"), &filter("sport")));
        assert!(!covers(&filter("sport/+"), &filter("sport")));
    }
}
