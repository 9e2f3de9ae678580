//! What was published, received and posted, and what must be true of it.

use std::collections::{HashMap, HashSet};

use causeway::codec::Qos;

use crate::target::Request;

/// A message as its publisher knows it.
#[derive(Clone, Debug)]
pub struct Published {
    /// The publisher.
    pub source: usize,
    pub topic: String,
    /// Unique, but empty for the removal of a retained message.
    pub payload: String,
    pub qos: Qos,
    pub retain: bool,
    /// PUBACK or PUBREC has come.
    pub acknowledged: bool,
    /// How often its PUBLISH was sent.
    pub sends: usize,
}

/// A message as a subscriber knows it; repeats under an open QoS 2 identifier are none.
#[derive(Clone, Debug)]
pub struct Received {
    pub topic: String,
    pub payload: String,
    pub qos: Qos,
    pub dup: bool,
}

/// What one subscriber was given, or all members of a shared group.
pub struct Inbox {
    pub name: String,
    /// The QoS it was granted.
    pub qos: Qos,
    pub is_group: bool,
    pub received: Vec<Received>,
}

/// What happened between two moments at which nothing was on its way.
pub struct History {
    pub published: Vec<Published>,
    pub inboxes: Vec<Inbox>,
    pub requests: Vec<Request>,
}

/// Every idempotency key that was ever seen, with its body.
pub type Keys = HashMap<String, String>;

impl History {
    /// What is wrong with it: nothing, or a line for each.
    pub fn violations(&self, keys: &mut Keys) -> Vec<String> {
        let messages = self.published.iter().filter(|published| !published.retain);
        let messages: HashMap<_, _> = messages
            .enumerate()
            .map(|(index, published)| (published.payload.as_str(), (index, published)))
            .collect();
        let mut wrong = Vec::new();
        for inbox in &self.inboxes {
            inbox.check(&messages, &mut wrong);
        }
        self.check_target(&messages, keys, &mut wrong);
        wrong
    }

    fn check_target(&self, messages: &Messages<'_>, keys: &mut Keys, wrong: &mut Vec<String>) {
        let mut keys_of: HashMap<&str, HashSet<&str>> = HashMap::new();
        let mut taken = HashSet::new();
        for Request { key, body, taken: was_taken } in &self.requests {
            let known = keys.entry(key.clone()).or_insert_with(|| body.clone());
            if known != body {
                wrong.push(format!("target: key {key} for {known} and for {body}"));
            }
            keys_of.entry(body).or_default().insert(key);
            if *was_taken {
                taken.insert(body.as_str());
            }
        }
        for (payload, (_, published)) in messages {
            if published.acknowledged && !taken.contains(payload) {
                wrong.push(format!("target: {payload} is lost"));
            }
            let count = keys_of.get(payload).map_or(0, HashSet::len);
            // A QoS 1 message that is published again is another message to the broker.
            let allowed = if published.qos == Qos::ExactlyOnce { 1 } else { published.sends };
            if count > allowed {
                let sends = published.sends;
                wrong.push(format!("target: {payload} (sent {sends} times) has {count} keys"));
            }
        }
    }
}

/// By payload: place and message. Places of one publisher rise.
type Messages<'a> = HashMap<&'a str, (usize, &'a Published)>;

impl Inbox {
    /// What the members of a group were given: neither order nor DUP tell anything about it.
    pub fn of_group(members: impl Iterator<Item = Self>) -> Self {
        let received = members.flat_map(|member| member.received).collect();
        Self { name: "group".into(), qos: Qos::ExactlyOnce, is_group: true, received }
    }

    fn check(&self, messages: &Messages<'_>, wrong: &mut Vec<String>) {
        let name = &self.name;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut newest: HashMap<(usize, &str), usize> = HashMap::new();
        for Received { topic, payload, qos, dup } in &self.received {
            let Some((index, published)) = messages.get(payload.as_str()) else {
                // From before: its acknowledgement was lost.
                if *qos == Qos::ExactlyOnce || !(*dup || self.is_group) {
                    wrong.push(format!("{name}: {payload} comes long after its time"));
                }
                continue;
            };
            let count = counts.entry(payload).or_default();
            *count += 1;
            if *count > 1 {
                self.check_repeat(published, *count, *dup, wrong);
                continue;
            }
            let newest = newest.entry((published.source, topic)).or_insert(*index);
            if *index < *newest && !self.is_group {
                wrong.push(format!("{name}: {payload} comes after a later one of its topic"));
            }
            *newest = *index;
        }
        for (payload, (_, published)) in messages {
            if published.acknowledged && !counts.contains_key(payload) {
                wrong.push(format!("{name}: {payload} is lost"));
            }
        }
    }

    fn check_repeat(&self, published: &Published, count: usize, dup: bool, wrong: &mut Vec<String>) {
        let Published { payload, sends, .. } = published;
        let name = &self.name;
        match (self.qos, published.qos) {
            (Qos::ExactlyOnce, Qos::ExactlyOnce) => {
                wrong.push(format!("{name}: {payload} comes {count} times"));
            }
            // Its publisher has repeated it, which makes it two messages.
            (_, Qos::AtLeastOnce) if *sends > 1 => {}
            // [MQTT-3.3.1-1]
            _ if !dup && !self.is_group => wrong.push(format!("{name}: {payload} comes again without DUP")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(payloads: &[&str]) -> History {
        let published = |name: &&str| Published {
            source: 0,
            topic: "load/0".into(),
            payload: (*name).into(),
            qos: Qos::ExactlyOnce,
            retain: false,
            acknowledged: true,
            sends: 2,
        };
        let requests = payloads.iter().map(|name| request(&format!("key-{name}"), name)).collect();
        let received = payloads.iter().map(|name| received(name)).collect();
        let inbox = Inbox { name: "s".into(), qos: Qos::ExactlyOnce, is_group: false, received };
        History { published: payloads.iter().map(published).collect(), inboxes: vec![inbox], requests }
    }

    fn received(payload: &str) -> Received {
        Received { topic: "load/0".into(), payload: payload.into(), qos: Qos::ExactlyOnce, dup: false }
    }

    fn request(key: &str, body: &str) -> Request {
        Request { key: key.into(), body: body.into(), taken: true }
    }

    type Spoil = fn(&mut History);

    #[test]
    fn what_is_as_it_should_be_is_not_complained_about() {
        assert_eq!(history(&["a", "b"]).violations(&mut Keys::new()), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_is_noticed() {
        let cases: [(Spoil, &str); 6] = [
            (|history| drop(history.inboxes[0].received.pop()), "s: b is lost"),
            (|history| history.inboxes[0].received.push(received("a")), "s: a comes 2 times"),
            (|history| history.inboxes[0].received.reverse(), "s: a comes after a later one of its topic"),
            (|history| history.requests[1].taken = false, "target: b is lost"),
            (|history| history.requests.push(request("key-c", "b")), "target: b (sent 2 times) has 2 keys"),
            (|history| history.requests.push(request("key-a", "b")), "target: key key-a for a and for b"),
        ];
        for (spoil, complaint) in cases {
            let mut history = history(&["a", "b"]);
            spoil(&mut history);
            let violations = history.violations(&mut Keys::new());
            assert!(violations.iter().any(|violation| violation == complaint), "{complaint}: {violations:?}");
        }
    }

    #[test]
    fn a_qos_1_message_may_come_again_with_dup_only() {
        let mut history = history(&["a"]);
        history.published[0].qos = Qos::AtLeastOnce;
        history.published[0].sends = 1;
        history.inboxes[0].received.push(Received { dup: true, ..received("a") });
        assert_eq!(history.violations(&mut Keys::new()), Vec::<String>::new());
        history.inboxes[0].received.push(received("a"));
        assert_eq!(history.violations(&mut Keys::new()), ["s: a comes again without DUP"]);
    }
}
