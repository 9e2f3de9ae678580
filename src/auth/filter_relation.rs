//! How one topic filter relates to another: does it cover it, do they overlap?
//!
//! Both sides are valid topic filters (a topic name is one without wildcards); the rules for `+`, `#` and
//! `$` are those of a subscription [MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.2-1]. Neither function recurses
//! or allocates.

/// Whether `wide` matches every topic that `narrow` matches; with a topic name as `narrow`: whether it
/// matches that topic. Says no in one case where yes were right (`+/#` covers `#`), which costs its user
/// a check and nobody a right.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    if narrow.starts_with('$') && begins_with_wildcard(wide) {
        return false;
    }
    let mut narrow = narrow.split('/');
    for level in wide.split('/') {
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
pub(super) fn overlaps(one: &str, other: &str) -> bool {
    let apart = |a: &str, b: &str| a.starts_with('$') && begins_with_wildcard(b);
    if apart(one, other) || apart(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
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

fn begins_with_wildcard(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn filters() -> Vec<String> {
        let mut filters = paths(&["a", "$x", "+"], 3);
        filters.extend(paths(&["a", "$x", "+"], 2).iter().map(|path| format!("{path}/#")));
        filters.push("#".to_owned());
        filters
    }

    /// The rules of MQTT 5.0, section 4.7, level by level; written differently on purpose.
    fn matches(filter: &[&str], topic: &[&str], first: bool) -> bool {
        match (filter, topic) {
            ([wild @ ("+" | "#"), ..], [name, ..]) if first && name.starts_with('$') && !wild.is_empty() => {
                false
            }
            (["#"], _) | ([], []) => true,
            ([level, rest @ ..], [name, names @ ..]) => {
                (*level == "+" || level == name) && matches(rest, names, false)
            }
            _ => false,
        }
    }

    fn matched(filter: &str, topics: &[String]) -> Vec<bool> {
        let levels: Vec<&str> = filter.split('/').collect();
        let one = |topic: &String| matches(&levels, &topic.split('/').collect::<Vec<_>>(), true);
        topics.iter().map(one).collect()
    }

    #[test]
    fn agree_with_the_topics_that_the_filters_match() {
        let topics = paths(&["a", "$x", "b"], 4);
        let filters = filters();
        let sets: Vec<_> = filters.iter().map(|filter| matched(filter, &topics)).collect();
        for (one, set) in filters.iter().zip(&sets) {
            for (topic, expected) in topics.iter().zip(set) {
                assert_eq!(covers(one, topic), *expected, "{one} matches {topic}");
            }
            for (other, others) in filters.iter().zip(&sets) {
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
        assert!(covers("sport/#", "sport"));
        assert!(overlaps("sport/#", "sport"));
        assert!(!covers("sport/+", "sport"));
    }

    #[test]
    fn sixty_thousand_levels_are_a_loop_and_not_a_recursion() {
        let deep = "/".repeat(65_000);
        assert!(covers(&deep, &deep) && overlaps(&deep, &deep) && covers("#", &deep));
    }
}
