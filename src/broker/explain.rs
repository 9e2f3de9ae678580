//! Whom a publish to a topic would reach, and what each of them is promised: asked by an operator, never on a
//! message's way.
//!
//! What a path promises follows from a few facts about it (`session_path`, `group_path`); it is said together
//! with its weakest link, the one that would have to change first for a better promise.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::matching::{Matches, SessionMatch};
use super::overflow::full;
use super::{Broker, Group, Slot};
use crate::auth::Escaped;
use crate::codec::Qos;
use crate::config::Overflow;
use crate::topic::TopicName;

/// Sessions, groups and members of a group that are described; the others are counted.
const SHOWN_MAX: usize = 100;
/// Filters of one session that are named.
const FILTERS_MAX: usize = 10;

/// A publish that somebody thinks of.
#[derive(Clone, Copy, Debug)]
pub struct Thought<'a> {
    /// The topic name.
    pub topic: &'a TopicName<'a>,
    /// The QoS that it is published with.
    pub qos: Qos,
    /// Who publishes: No Local and the ACL ask for it.
    pub client_id: Option<&'a str>,
    /// The user name of that client, for the ACL.
    pub user_name: Option<&'a str>,
}

/// Whom a publish would reach. Routes are those of the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Whether the publisher has the right to; `null` when none is named.
    pub may_publish: Option<bool>,
    /// The retained message that a new subscriber would get now.
    pub retained: Option<RetainedSummary>,
    /// How many sessions match, and what they are promised.
    pub session_counts: PathCounts,
    /// Those of them that are promised least come first; 100 at most.
    pub sessions: Vec<ReachedSession>,
    /// How many shared groups match.
    pub group_count: usize,
    /// 100 of them at most.
    pub groups: Vec<ReachedGroup>,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedSummary {
    /// Bytes of its payload.
    pub bytes: u64,
    /// As it was published.
    pub qos: u8,
    /// The client id of its publisher.
    pub publisher: String,
    /// How long ago it was published.
    pub age_seconds: u64,
}

/// How many paths there are, by what they promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCounts {
    /// All of them.
    pub all: usize,
    /// To clients that are connected.
    pub online: usize,
    /// That promise at most once.
    pub at_most_once: usize,
    /// That promise at least once.
    pub at_least_once: usize,
    /// That promise exactly once.
    pub exactly_once: usize,
    /// That promise it only as long as the broker runs and the client stays.
    pub memory_only: usize,
}

/// A session that would get the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedSession {
    /// The client id.
    pub client_id: String,
    /// Whether a connection has it.
    pub online: bool,
    /// Whether it outlives its connection.
    pub durable: bool,
    /// The highest QoS that it was granted on a filter that matches.
    pub granted_qos: u8,
    /// The filters that match, as the client wrote them; ten at most.
    pub filters: Vec<String>,
    /// What it is promised.
    pub path: Path,
}

/// A shared group of which one member would get the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedGroup {
    /// `$share/<name>/<filter>`.
    pub name: String,
    /// How many members there are.
    pub member_count: usize,
    /// How many of them are connected.
    pub online: usize,
    /// 100 of them at most.
    pub members: Vec<ReachedMember>,
    /// What the group is promised.
    pub path: Path,
}

/// A member of a shared group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedMember {
    /// The client id.
    pub client_id: String,
    /// Whether a connection has its session.
    pub online: bool,
    /// Whether its session outlives its connection.
    pub durable: bool,
    /// The QoS that it was granted.
    pub granted_qos: u8,
}

/// What somebody who gets a message is promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// How often it arrives.
    pub guarantee: Guarantee,
    /// Where it waits until then.
    pub kept: Kept,
    /// What would have to change first for a better promise; `null` when it is as good as the publish.
    pub weakest_link: Option<WeakLink>,
}

/// How often a message arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Once or not at all.
    AtMostOnce,
    /// Once or more often.
    AtLeastOnce,
    /// Once, on this hop.
    ExactlyOnce,
}

/// Where a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// In the memory of the broker: gone with it, or with the connection.
    Memory,
    /// On disk before the publisher is told that it was taken.
    Disk,
}

/// Where a path is weakest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeakLink {
    /// For scripts.
    pub link: Weakness,
    /// For people.
    pub reason: String,
}

/// A kind of weakness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weakness {
    /// It is published with QoS 0.
    PublishedQos0,
    /// Nobody is connected, and QoS 0 is kept for nobody.
    Offline,
    /// The subscription was granted QoS 0.
    Qos0Subscription,
    /// The subscription was granted QoS 1, and the publish has 2.
    Qos1Subscription,
    /// The session ends with its connection.
    CleanSession,
    /// The queue has no room.
    QueueFull,
    /// A route takes QoS 0.
    Qos0Input,
    /// HTTP cannot say that something was done once.
    Http,
    /// The target of a route is down.
    BreakerOpen,
    /// The target of a route is paused.
    Paused,
    /// The route takes only what its content filter lets through.
    ContentFilter,
}

/// What a session's promise follows from.
#[derive(Clone, Copy, Debug)]
struct SessionFacts {
    published: Qos,
    granted: Qos,
    online: bool,
    durable: bool,
    /// The queue is full, and what happens then.
    full: Option<Overflow>,
}

impl Broker {
    /// Whom a publish would reach. Goes through everyone who matches: it may block.
    pub fn reach(&self, thought: &Thought<'_>) -> Reach {
        let publisher = thought.client_id.and_then(|client_id| self.find(client_id));
        let mut matches = Matches::default();
        matches.find(self, thought.topic, publisher.as_deref());
        let mut reach = Reach {
            may_publish: self.may_publish(thought),
            retained: self.retained_summary(thought.topic),
            group_count: matches.groups.len(),
            ..Reach::default()
        };
        let mut facts: Vec<_> =
            matches.sessions.iter().map(|session| (session, self.facts(session, thought.qos))).collect();
        facts.iter().for_each(|(_, facts)| reach.session_counts.add(facts));
        // The first is found before the others are thrown away: there may be a million.
        let weakness = |(session, facts): &(&SessionMatch, SessionFacts)| {
            let (guarantee, kept, link) = session_path(facts);
            (guarantee, kept, Reverse(link.is_some()), session.slot.client_id.clone())
        };
        if facts.len() > SHOWN_MAX {
            facts.select_nth_unstable_by_key(SHOWN_MAX, weakness);
            facts.truncate(SHOWN_MAX);
        }
        facts.sort_by_cached_key(weakness);
        reach.sessions =
            facts.iter().map(|(session, facts)| session.described(facts, thought.topic)).collect();
        let groups = matches.groups.iter().take(SHOWN_MAX);
        reach.groups = groups.map(|group| self.reached_group(group, thought.qos)).collect();
        reach
    }

    fn may_publish(&self, thought: &Thought<'_>) -> Option<bool> {
        if thought.client_id.is_none() && thought.user_name.is_none() {
            return None;
        }
        let rights = self.auth.rights_of_absent(thought.user_name, thought.client_id.unwrap_or_default());
        Some(rights.is_ok_and(|rights| rights.may_publish(thought.topic)))
    }

    fn retained_summary(&self, topic: &TopicName<'_>) -> Option<RetainedSummary> {
        let message = self.retained.get(topic)?.message;
        let message = self.store.timeline().current(message);
        Some(RetainedSummary {
            bytes: message.payload().len() as u64,
            qos: message.head().qos as u8,
            publisher: message.publisher().to_owned(),
            age_seconds: self.clock.now().since(message.head().published_at).as_secs(),
        })
    }

    fn facts(&self, session: &SessionMatch, published: Qos) -> SessionFacts {
        let durable = session.slot.durable();
        let queue = &self.limits.queue;
        SessionFacts {
            published,
            granted: session.qos,
            online: session.slot.is_online(),
            durable: durable.is_some(),
            full: durable.and_then(|durable| full(&durable.backlog, queue)).map(|_| queue.overflow),
        }
    }

    fn reached_group(&self, group: &Group, published: Qos) -> ReachedGroup {
        let members: Vec<_> = group
            .members()
            .into_iter()
            .map(|(slot, subscription)| ReachedMember {
                client_id: slot.client_id.to_string(),
                online: slot.is_online(),
                durable: slot.durable().is_some(),
                granted_qos: subscription.options.qos as u8,
            })
            .collect();
        let queue = &self.limits.queue;
        let durable = group.durable();
        let full = durable.and_then(|durable| full(&durable.backlog, queue)).map(|_| queue.overflow);
        ReachedGroup {
            name: group.name.to_string(),
            member_count: members.len(),
            online: members.iter().filter(|member| member.online).count(),
            path: group_path(published, &members, durable.is_some(), full),
            members: members.into_iter().take(SHOWN_MAX).collect(),
        }
    }
}

impl SessionMatch {
    fn described(&self, facts: &SessionFacts, topic: &TopicName<'_>) -> ReachedSession {
        let client_id = self.slot.client_id.to_string();
        let (guarantee, kept, link) = session_path(facts);
        let weakest_link =
            link.map(|link| WeakLink { link, reason: session_reason(link, &client_id, facts) });
        ReachedSession {
            online: facts.online,
            durable: facts.durable,
            granted_qos: facts.granted as u8,
            filters: matching_filters(&self.slot, topic),
            path: Path { guarantee, kept, weakest_link },
            client_id,
        }
    }
}

impl PathCounts {
    fn add(&mut self, facts: &SessionFacts) {
        let (guarantee, kept, _) = session_path(facts);
        self.all += 1;
        self.online += usize::from(facts.online);
        self.memory_only += usize::from(kept == Kept::Memory);
        *match guarantee {
            Guarantee::AtMostOnce => &mut self.at_most_once,
            Guarantee::AtLeastOnce => &mut self.at_least_once,
            Guarantee::ExactlyOnce => &mut self.exactly_once,
        } += 1;
    }
}

impl Guarantee {
    /// That of a delivery with this QoS.
    pub fn of(qos: Qos) -> Self {
        match qos {
            Qos::AtMostOnce => Self::AtMostOnce,
            Qos::AtLeastOnce => Self::AtLeastOnce,
            Qos::ExactlyOnce => Self::ExactlyOnce,
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtMostOnce => "at most once",
            Self::AtLeastOnce => "at least once",
            Self::ExactlyOnce => "exactly once",
        }
    }
}

impl Kept {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// What a full queue means for one message more.
pub(crate) fn full_reason(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::DropNewest => "the queue is full: the message becomes a dead letter",
        Overflow::DropOldest => "the queue is full: the oldest message in it becomes a dead letter",
        Overflow::Refuse => "the queue is full: the publish is refused, and nobody gets it",
    }
}

fn session_path(facts: &SessionFacts) -> (Guarantee, Kept, Option<Weakness>) {
    let qos = facts.published.min(facts.granted);
    let guarantee = Guarantee::of(qos);
    if qos == Qos::AtMostOnce {
        let link = match facts.published {
            _ if !facts.online => Weakness::Offline,
            Qos::AtMostOnce => Weakness::PublishedQos0,
            _ => Weakness::Qos0Subscription,
        };
        return (guarantee, Kept::Memory, Some(link));
    }
    if !facts.durable {
        return (guarantee, Kept::Memory, Some(Weakness::CleanSession));
    }
    let link = match facts.full {
        Some(_) => Some(Weakness::QueueFull),
        None => Some(Weakness::Qos1Subscription).filter(|_| qos < facts.published),
    };
    (guarantee, Kept::Disk, link)
}

fn session_reason(link: Weakness, client_id: &str, facts: &SessionFacts) -> String {
    let client = Escaped(client_id);
    match link {
        Weakness::Offline => format!("client {client} is not connected, and QoS 0 waits for nobody"),
        Weakness::PublishedQos0 => "published with QoS 0".to_owned(),
        Weakness::Qos0Subscription => format!("QoS 0 subscription of client {client}"),
        Weakness::CleanSession => format!("clean session of client {client}: ends with its connection"),
        Weakness::QueueFull => facts.full.map_or(String::new(), |overflow| full_reason(overflow).to_owned()),
        _ => format!("QoS 1 subscription of client {client}"),
    }
}

/// Any member may be the one that gets it, so the weakest counts; among those who are connected, if somebody is.
fn group_path(published: Qos, members: &[ReachedMember], is_durable: bool, full: Option<Overflow>) -> Path {
    let somebody_online = members.iter().any(|member| member.online);
    let candidates = members.iter().filter(|member| member.online || !somebody_online);
    let weakest = candidates.min_by_key(|member| member.granted_qos);
    let granted = weakest.map_or(published, |member| match member.granted_qos {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    });
    let client = weakest.map_or("", |member| &member.client_id);
    let facts = SessionFacts { published, granted, online: somebody_online, durable: is_durable, full };
    let (guarantee, kept, link) = session_path(&facts);
    let reason = |link| match link {
        Weakness::Offline => "no member is connected, and QoS 0 waits for nobody".to_owned(),
        Weakness::CleanSession => "no member has a session that outlives its connection".to_owned(),
        link => session_reason(link, client, &facts),
    };
    Path { guarantee, kept, weakest_link: link.map(|link| WeakLink { link, reason: reason(link) }) }
}

fn matching_filters(slot: &Slot, topic: &TopicName<'_>) -> Vec<String> {
    let inner = slot.lock();
    let own = inner.subscriptions.keys().filter(|known| !known.is_shared() && known.filter.matches(topic));
    let mut filters: Vec<_> = own.map(ToString::to_string).collect();
    drop(inner);
    filters.sort_unstable();
    filters.truncate(FILTERS_MAX);
    filters
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

    fn facts(published: Qos, granted: Qos) -> SessionFacts {
        SessionFacts { published, granted, online: true, durable: true, full: None }
    }

    #[test]
    fn explain_weakest_link() {
        use Guarantee::*;
        let [zero, one, two] = ALL;
        let offline = |facts| SessionFacts { online: false, ..facts };
        let clean = |facts| SessionFacts { durable: false, ..facts };
        let full = |facts| SessionFacts { full: Some(Overflow::DropNewest), ..facts };
        for (facts, expected) in [
            (facts(zero, two), (AtMostOnce, Kept::Memory, Some(Weakness::PublishedQos0))),
            (offline(facts(zero, two)), (AtMostOnce, Kept::Memory, Some(Weakness::Offline))),
            (facts(one, zero), (AtMostOnce, Kept::Memory, Some(Weakness::Qos0Subscription))),
            (offline(facts(one, zero)), (AtMostOnce, Kept::Memory, Some(Weakness::Offline))),
            (clean(facts(one, one)), (AtLeastOnce, Kept::Memory, Some(Weakness::CleanSession))),
            (clean(facts(two, two)), (ExactlyOnce, Kept::Memory, Some(Weakness::CleanSession))),
            (facts(one, one), (AtLeastOnce, Kept::Disk, None)),
            (offline(facts(one, two)), (AtLeastOnce, Kept::Disk, None)),
            (facts(two, one), (AtLeastOnce, Kept::Disk, Some(Weakness::Qos1Subscription))),
            (facts(two, two), (ExactlyOnce, Kept::Disk, None)),
            (full(facts(two, two)), (ExactlyOnce, Kept::Disk, Some(Weakness::QueueFull))),
        ] {
            assert_eq!(session_path(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_group_is_as_weak_as_the_member_that_may_get_it() {
        let member = |client_id: &str, online, granted_qos| ReachedMember {
            client_id: client_id.into(),
            online,
            durable: true,
            granted_qos,
        };
        let path = |members: &[ReachedMember]| group_path(Qos::ExactlyOnce, members, true, None);
        let best = path(&[member("a", true, 2)]);
        assert_eq!(
            (best.guarantee, best.kept, best.weakest_link),
            (Guarantee::ExactlyOnce, Kept::Disk, None)
        );
        let weak = path(&[member("a", true, 2), member("b", true, 0)]);
        assert_eq!(weak.guarantee, Guarantee::AtMostOnce);
        assert_eq!(weak.weakest_link.unwrap().reason, "QoS 0 subscription of client b");
        let away = path(&[member("a", true, 2), member("b", false, 1)]);
        assert_eq!(away.guarantee, Guarantee::ExactlyOnce, "those who are connected come first");
        let clean = group_path(Qos::AtLeastOnce, &[member("a", true, 1)], false, None);
        assert_eq!(clean.weakest_link.unwrap().link, Weakness::CleanSession);
    }
}
