//! What one client may publish, receive and subscribe to.
//!
//! A rule that denies wins over any that allows, and what no rule allows is refused. To share a
//! subscription needs the same right as to have it alone: share names play no part here.
//!
//! Invariant: when [`Rights::may_subscribe`] says `Allowed`, [`Rights::may_receive`] says yes to every
//! topic that the filter matches.

use std::{fmt, sync::Arc};

use super::filter_relation::{covers, overlaps};
use crate::topic::{TopicFilter, TopicName};

/// The rights of one client, as they were at [`Rights::version`].
#[derive(Clone, Debug)]
pub struct Rights {
    version: u64,
    /// `None` when there is no ACL file.
    rules: Option<Rules>,
}

#[derive(Clone, Debug)]
struct Rules {
    /// Rules of the user's section, shared by all clients of the user.
    section: Arc<[Rule]>,
    /// Rules that patterns gave with this client's names put in.
    patterns: Box<[Rule]>,
}

/// One line of an ACL file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands in the file, counted from 1.
    pub line: u32,
    /// What it allows, or that it denies.
    pub access: Access,
    /// The topics it is about; the names of the client are in place of `%c` and `%u`.
    pub filter: TopicFilter,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Receive and subscribe.
    Read,
    /// Publish.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, whatever other rules say.
    Deny,
}

/// The answer to a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribe {
    /// Every message that matches may be delivered without asking again.
    Allowed,
    /// Some of what matches may be delivered: ask [`Rights::may_receive`] for each message.
    AllowedFiltered,
    /// Nothing that matches may be delivered.
    Refused,
}

/// A question to [`Rights::explain`].
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// To publish to this topic name.
    Publish(TopicName<'a>),
    /// To receive a message of this topic name.
    Receive(TopicName<'a>),
    /// To subscribe to this topic filter.
    Subscribe(&'a TopicFilter),
}

/// An answer with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// What is allowed. A publish is never `AllowedFiltered`.
    pub answer: Subscribe,
    /// The rule that decided; `None` when no rule is about the topic, or when there is no ACL file.
    pub rule: Option<&'a Rule>,
}

impl Rights {
    /// Everything is allowed: there is no ACL file.
    pub(super) fn all() -> Self {
        Self { version: 0, rules: None }
    }

    /// What these rules allow, and nothing else.
    pub(super) fn of(section: Arc<[Rule]>, patterns: Box<[Rule]>) -> Self {
        Self { version: 0, rules: Some(Rules { section, patterns }) }
    }

    pub(super) fn at_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Which version of the rules this is. When `Authenticator::version` differs, ask for new rights.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether everything is allowed, so that no path has to ask.
    pub fn unrestricted(&self) -> bool {
        self.rules.is_none()
    }

    /// Whether a message may be published to this topic name.
    pub fn may_publish(&self, topic: &TopicName<'_>) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.topic(topic, Access::allows_write).answer.is_allowed())
    }

    /// Whether a message of this topic name may be delivered.
    pub fn may_receive(&self, topic: &TopicName<'_>) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.topic(topic, Access::allows_read).answer.is_allowed())
    }

    /// Whether this topic filter may be subscribed to.
    pub fn may_subscribe(&self, filter: &TopicFilter) -> Subscribe {
        self.explain(Request::Subscribe(filter)).answer
    }

    /// The answer and the rule that it comes from.
    pub fn explain(&self, request: Request<'_>) -> Explanation<'_> {
        let Some(rules) = &self.rules else {
            return Explanation { answer: Subscribe::Allowed, rule: None };
        };
        match request {
            Request::Publish(topic) => rules.topic(&topic, Access::allows_write),
            Request::Receive(topic) => rules.topic(&topic, Access::allows_read),
            Request::Subscribe(filter) => rules.subscribe(filter),
        }
    }
}

impl Rules {
    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.section.iter().chain(&self.patterns)
    }

    fn topic(&self, topic: &TopicName<'_>, allows: fn(Access) -> bool) -> Explanation<'_> {
        let mut allowed = None;
        for rule in self.all().filter(|rule| rule.filter.matches(topic)) {
            if rule.access == Access::Deny {
                return Explanation::refused_by(rule);
            }
            if allowed.is_none() && allows(rule.access) {
                allowed = Some(rule);
            }
        }
        Explanation::of(Subscribe::Allowed, allowed)
    }

    fn subscribe(&self, filter: &TopicFilter) -> Explanation<'_> {
        let (mut whole, mut part, mut denied) = (None, None, None);
        for rule in self.all().filter(|rule| overlaps(&rule.filter, filter)) {
            let covers = covers(&rule.filter, filter);
            match rule.access {
                Access::Deny if covers => return Explanation::refused_by(rule),
                Access::Deny => denied = denied.or(Some(rule)),
                Access::Write => {}
                Access::Read | Access::ReadWrite if covers => whole = whole.or(Some(rule)),
                Access::Read | Access::ReadWrite => part = part.or(Some(rule)),
            }
        }
        match (whole, denied) {
            (Some(_), None) => Explanation::of(Subscribe::Allowed, whole),
            (Some(_), Some(_)) => Explanation::of(Subscribe::AllowedFiltered, denied),
            (None, _) => Explanation::of(Subscribe::AllowedFiltered, part),
        }
    }
}

impl<'a> Explanation<'a> {
    fn refused_by(rule: &'a Rule) -> Self {
        Self { answer: Subscribe::Refused, rule: Some(rule) }
    }

    /// What follows when `rule` decided; without a rule nothing is allowed.
    fn of(answer: Subscribe, rule: Option<&'a Rule>) -> Self {
        Self { answer: if rule.is_some() { answer } else { Subscribe::Refused }, rule }
    }
}

impl Subscribe {
    /// Whether the subscription is made.
    pub fn is_allowed(self) -> bool {
        self != Self::Refused
    }
}

impl Access {
    fn allows_read(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    fn allows_write(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// The word that stands for it in an ACL file.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadWrite => "readwrite",
            Self::Deny => "deny",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Access::*, *};

    fn name(text: &str) -> TopicName<'_> {
        TopicName::parse(text, u16::MAX).unwrap()
    }

    fn filter_of(text: &str) -> TopicFilter {
        TopicFilter::parse(text, u16::MAX).unwrap()
    }

    fn rights(rules: &[(Access, &str)]) -> Rights {
        let rule = |(line, (access, filter)): (u32, &(Access, &str))| Rule {
            line,
            access: *access,
            filter: filter_of(filter),
        };
        Rights::of((1..).zip(rules).map(rule).collect(), Box::default())
    }

    #[test]
    fn without_an_acl_file_everything_is_allowed() {
        let rights = Rights::all();
        assert!(
            rights.unrestricted() && rights.may_publish(&name("a")) && rights.may_receive(&name("$SYS/a"))
        );
        assert_eq!(rights.may_subscribe(&filter_of("#")), Subscribe::Allowed);
    }

    #[test]
    fn without_a_rule_nothing_is_allowed() {
        let rights = rights(&[]);
        assert!(!rights.unrestricted() && !rights.may_publish(&name("a")) && !rights.may_receive(&name("a")));
        assert_eq!(rights.may_subscribe(&filter_of("#")), Subscribe::Refused);
    }

    #[test]
    fn read_and_write_are_apart() {
        let rights = rights(&[(Read, "in/#"), (Write, "out/#"), (ReadWrite, "both")]);
        assert!(rights.may_receive(&name("in/x")) && !rights.may_publish(&name("in/x")));
        assert!(rights.may_publish(&name("out/x")) && !rights.may_receive(&name("out/x")));
        assert!(rights.may_publish(&name("both")) && rights.may_receive(&name("both")));
        assert_eq!(rights.may_subscribe(&filter_of("out/#")), Subscribe::Refused);
    }

    #[test]
    fn deny_wins_wherever_it_stands() {
        let rights = rights(&[(ReadWrite, "a/#"), (Deny, "a/secret/#"), (ReadWrite, "a/secret/open")]);
        assert!(rights.may_publish(&name("a/b")));
        assert!(!rights.may_publish(&name("a/secret")) && !rights.may_receive(&name("a/secret/open")));
        assert_eq!(
            rights.explain(Request::Publish(name("a/secret/open"))).rule.map(|rule| rule.line),
            Some(2)
        );
    }

    #[test]
    fn a_subscription_is_allowed_whole_in_part_or_not() {
        let rights = rights(&[(Read, "a/#"), (Deny, "a/secret/#"), (Read, "c/+/d")]);
        assert_eq!(rights.may_subscribe(&filter_of("a/b/#")), Subscribe::Allowed);
        assert_eq!(
            rights.may_subscribe(&filter_of("a/#")),
            Subscribe::AllowedFiltered,
            "part of it is denied"
        );
        assert_eq!(
            rights.may_subscribe(&filter_of("#")),
            Subscribe::AllowedFiltered,
            "only part of it is allowed"
        );
        assert_eq!(rights.may_subscribe(&filter_of("c/#")), Subscribe::AllowedFiltered);
        assert_eq!(rights.may_subscribe(&filter_of("a/secret/+")), Subscribe::Refused);
        assert_eq!(rights.may_subscribe(&filter_of("b/#")), Subscribe::Refused);
    }

    #[test]
    fn a_wildcard_gives_no_right_to_dollar_topics() {
        let rights = rights(&[(ReadWrite, "#")]);
        assert!(!rights.may_receive(&name("$SYS/x")) && !rights.may_publish(&name("$SYS/x")));
        assert_eq!(rights.may_subscribe(&filter_of("$SYS/#")), Subscribe::Refused);
    }

    proptest! {
        #[test]
        fn the_answer_to_a_subscription_agrees_with_each_topic(
            rules in prop::collection::vec((0..4usize, "(a|b|\\+)(/(a|b|\\+)){0,2}(/#)?"), 0..5),
            filter in "(a|b|\\+)(/(a|b|\\+)){0,2}(/#)?",
            topic in "(a|b)(/(a|b)){0,3}",
        ) {
            let access = [Read, Write, ReadWrite, Deny];
            let rules: Vec<_> = rules.iter().map(|(n, filter)| (access[*n], filter.as_str())).collect();
            let rights = rights(&rules);
            let (filter, topic) = (filter_of(&filter), name(&topic));
            if filter.matches(&topic) {
                match rights.may_subscribe(&filter) {
                    Subscribe::Allowed => prop_assert!(rights.may_receive(&topic)),
                    Subscribe::Refused => prop_assert!(!rights.may_receive(&topic)),
                    Subscribe::AllowedFiltered => {}
                }
            }
        }
    }
}
