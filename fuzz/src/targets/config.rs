//! The configuration: any text is a configuration that keeps what its checks promise, or a list of mistakes
//! that are where they say.

use causeway::config::{Config, ConfigError};
use causeway::topic::TopicFilter;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // References are resolved, and what they refer to is no business of a fuzzer's.
    if text.contains("${") && (text.contains("file") || text.contains("\\")) {
        return;
    }
    let parsed = Config::parse(text, "causeway.toml");
    assert_eq!(Config::parse(text, "causeway.toml"), parsed, "the same text, the same answer");
    match &parsed {
        Ok(config) => check(config),
        Err(error) => check_mistakes(text, error),
    }
}

fn check(config: &Config) {
    assert!(!config.listeners.is_empty());
    for route in &config.routes {
        assert!(config.targets.contains_key(&route.target), "{route:?}");
        let levels_max = config.limits.topic_levels;
        let mut filters = route.topics.iter().chain(&route.exclude);
        assert!(filters.all(|filter| TopicFilter::parse(filter, levels_max).is_ok()), "{route:?}");
        assert!(!route.topics.is_empty() && !route.name.is_empty(), "{route:?}");
    }
    let limits = &config.limits;
    assert!(limits.packet_size >= 64 && limits.connections > 0 && limits.receive_maximum > 0);
    assert!(limits.topic_levels > 0 && !limits.connect_timeout.is_zero());
    assert!(!format!("{config:?}").is_empty());
}

fn check_mistakes(text: &str, error: &ConfigError) {
    assert!(!error.mistakes.is_empty());
    for mistake in &error.mistakes {
        assert!(!mistake.message.is_empty());
        let place = mistake.place.as_ref().unwrap();
        let line = text.split('\n').nth(place.line - 1).unwrap();
        assert_eq!(line.trim_end_matches('\r').chars().count(), place.source.chars().count(), "{mistake:?}");
        assert!(place.width >= 1 && (1..=line.chars().count() + 1).contains(&place.column), "{mistake:?}");
    }
    assert!(!error.to_string().is_empty());
}
