//! `[shared]`: strategies by name, for all shared subscriptions and for those of one share name.

use toml::{Spanned, de::DeValue};

use super::{ShareStrategy, SharedConfig, report::Wrong, section::Section, values};
use crate::topic::ShareName;

const STRATEGIES: [(&str, ShareStrategy); 6] = [
    ("round_robin", ShareStrategy::RoundRobin),
    ("random", ShareStrategy::Random),
    ("sticky", ShareStrategy::Sticky),
    ("hash_client", ShareStrategy::HashClient),
    ("hash_topic", ShareStrategy::HashTopic),
    ("least_inflight", ShareStrategy::LeastInflight),
];

pub(super) fn read_shared(section: &mut Section<'_>) -> SharedConfig {
    let mut config = SharedConfig {
        strategy: section.take("strategy", strategy).map(Spanned::into_inner).unwrap_or_default(),
        ..SharedConfig::default()
    };
    for (name, value) in section.entries("groups") {
        if let Err(error) = ShareName::parse(name.get_ref()) {
            section.report().add(name.span(), Wrong::new(error.to_string()).about("shared.groups"));
            continue;
        }
        match strategy(value.get_ref()) {
            Ok(strategy) => drop(config.groups.insert(name.get_ref().to_string(), strategy)),
            Err(wrong) => section.report().add(value.span(), wrong.about("shared.groups")),
        }
    }
    config
}

fn strategy(value: &DeValue<'_>) -> Result<ShareStrategy, Wrong> {
    values::choice(value, &STRATEGIES)
}
