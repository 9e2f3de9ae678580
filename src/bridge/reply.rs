//! The answer of a target as a publication: a device that calls a service over MQTT gets it at its Response Topic.
//!
//! A reply can match the filters of a route that replies, and so can its reply: each one counts the hops, and
//! what has come too far is not sent on.

use crate::bridge::client::Reply;
use crate::codec::{OwnProperties, PublishProperties};
use crate::record::{Message, MessageParts, UnixMillis};
use crate::topic::TopicName;

/// A message that has been a reply so often is a dead letter at a route that replies.
pub(super) const HOPS_MAX: u32 = 8;

/// User properties of a reply.
const STATUS: &str = "http-status";
const HOPS: &str = "causeway-hops";
const CUT: &str = "causeway-reply";
const TOO_LARGE: &str = "too-large";

/// What the answer to a message is published as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    /// The message asks for no reply.
    NotAsked,
    /// It asks for one where nothing can be published.
    NoTopic,
    /// This.
    Of {
        message: Message,
        /// The body was too large: it has the status alone.
        is_cut: bool,
    },
}

/// How often a message has been a reply, or a reply to one.
pub(super) fn hops(message: &Message) -> u32 {
    let properties = PublishProperties::from_forwarded(message.properties());
    let hops = properties.user_properties().filter(|(name, _)| *name == HOPS);
    hops.filter_map(|(_, value)| value.parse().ok()).max().unwrap_or(0)
}

/// What is published when a target has answered a message. It lives for as long as the message would have, and
/// is by the same publisher: a reply goes only where that may publish.
pub(super) fn publication(
    message: &Message,
    status: u16,
    reply: Option<&Reply>,
    now: UnixMillis,
) -> Publication {
    let asked = PublishProperties::from_forwarded(message.properties());
    let Some(topic) = asked.response_topic() else { return Publication::NotAsked };
    // With wildcards, or `$` in front: nobody publishes there.
    if TopicName::parse(topic, u16::MAX).is_err() || topic.starts_with('$') {
        return Publication::NoTopic;
    }
    let is_cut = reply.is_none_or(|reply| reply.is_cut);
    let (status, hops) = (status.to_string(), hops(message).saturating_add(1).to_string());
    let mut user = vec![(STATUS, &*status), (HOPS, &*hops)];
    if is_cut {
        user.push((CUT, TOO_LARGE));
    }
    let whole = reply.filter(|_| !is_cut);
    let properties = OwnProperties {
        content_type: whole.and_then(|reply| reply.content_type.as_deref()),
        correlation_data: asked.correlation_data(),
        user: &user,
    };
    let head = message.head();
    let parts = MessageParts {
        qos: head.qos,
        retain: false,
        published_at: now,
        expires_at: head.expires_at,
        topic,
        properties: &properties.encoded(),
        payload: whole.map_or(&[], |reply| &reply.body),
        publisher: std::str::from_utf8(message.publisher_bytes()).unwrap_or_default(),
    };
    Publication::Of { message: Message::new(&parts, &mut Vec::new()), is_cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Qos;

    const NOW: UnixMillis = UnixMillis(2000);

    fn request(topic: Option<&str>, user: &[(&str, &str)]) -> Message {
        let properties =
            OwnProperties { user, correlation_data: Some(b"\x00\xff"), ..OwnProperties::default() };
        let mut properties = properties.encoded();
        if let Some(topic) = topic {
            properties.push(0x08);
            properties.extend_from_slice(&(topic.len() as u16).to_be_bytes());
            properties.extend_from_slice(topic.as_bytes());
        }
        let parts = MessageParts {
            qos: Qos::ExactlyOnce,
            retain: true,
            published_at: UnixMillis(1000),
            expires_at: UnixMillis(9000),
            topic: "ask",
            properties: &properties,
            payload: b"?",
            publisher: "boat\0ada",
        };
        Message::new(&parts, &mut Vec::new())
    }

    fn answer(is_cut: bool) -> Reply {
        Reply { content_type: Some("text/plain".into()), body: "yes".into(), is_cut }
    }

    #[test]
    fn a_reply_has_status_correlation_and_the_terms_of_its_request() {
        let publication = publication(&request(Some("re/1"), &[]), 201, Some(&answer(false)), NOW);
        let Publication::Of { message, is_cut: false } = publication else { panic!("{publication:?}") };
        let head = message.head();
        assert_eq!((message.topic(), message.payload(), head.qos), ("re/1", &b"yes"[..], Qos::ExactlyOnce));
        assert_eq!((head.retain, head.published_at, head.expires_at), (false, NOW, UnixMillis(9000)));
        assert_eq!((message.publisher(), message.user_name()), ("boat", Some("ada")));
        let properties = PublishProperties::from_forwarded(message.properties());
        assert_eq!(properties.content_type(), Some("text/plain"));
        assert_eq!(properties.correlation_data(), Some(&b"\x00\xff"[..]));
        assert_eq!(properties.response_topic(), None, "a reply asks for none");
        let user: Vec<_> = properties.user_properties().collect();
        assert_eq!(user, [("http-status", "201"), ("causeway-hops", "1")]);
    }

    #[test]
    fn an_answer_that_is_too_large_is_told_without_its_body() {
        let publication = publication(&request(Some("re"), &[]), 200, Some(&answer(true)), NOW);
        let Publication::Of { message, is_cut: true } = publication else { panic!("{publication:?}") };
        let properties = PublishProperties::from_forwarded(message.properties());
        assert_eq!((message.payload(), properties.content_type()), (&b""[..], None));
        assert!(properties.user_properties().any(|pair| pair == ("causeway-reply", "too-large")));
    }

    #[test]
    fn no_reply_goes_where_nobody_publishes() {
        let to = |topic| publication(&request(topic, &[]), 200, Some(&answer(false)), NOW);
        assert_eq!(to(None), Publication::NotAsked);
        for topic in ["a/#", "+", "$SYS/x", "$share/g/t"] {
            let publication = to(Some(topic));
            assert!(!matches!(publication, Publication::Of { .. }), "{topic:?}");
        }
    }

    #[test]
    fn hops_are_counted_up_by_each_reply() {
        let of = |user: &[(&str, &str)]| hops(&request(Some("re"), user));
        assert_eq!((of(&[]), of(&[(HOPS, "x")]), of(&[(HOPS, "3"), (HOPS, "7")])), (0, 0, 7));
        let request = request(Some("re"), &[(HOPS, "4294967295")]);
        let publication = publication(&request, 200, Some(&answer(false)), NOW);
        let Publication::Of { message, .. } = publication else { panic!("{publication:?}") };
        assert_eq!(hops(&message), u32::MAX);
    }
}
