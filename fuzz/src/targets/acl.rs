//! The ACL file: any text is rules or an error, and what the rules allow is what the plainest reading of the
//! text allows.
//!
//! An input is five lines: user name (empty for none), client id, topic name, topic filter, and as the rest
//! the file.

use causeway::auth::{Acl, Subscribe};
use causeway::topic::{TopicFilter, TopicName};

use super::{Input, topics};

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let lines = [(); 4].map(|()| input.line());
    let [Some(user), Some(client_id), Some(name), Some(filter)] = lines else { return };
    let Ok(text) = std::str::from_utf8(input.0) else { return };
    let user = Some(user).filter(|user| !user.is_empty());
    let Ok(acl) = Acl::parse(text) else { return };
    let rights = acl.rights(user, client_id);
    assert!(!rights.unrestricted());
    if let Ok(topic) = TopicName::parse(name, u16::MAX) {
        let plain = |access| is_allowed(text, access, user, client_id, name);
        assert_eq!(rights.may_publish(&topic), plain("write"), "{user:?} {client_id:?} writes {name:?}");
        assert_eq!(rights.may_receive(&topic), plain("read"), "{user:?} {client_id:?} reads {name:?}");
    }
    let Ok(parsed) = TopicFilter::parse(filter, u16::MAX) else { return };
    let answer = rights.may_subscribe(&parsed);
    for name in [name, &filter.replace(['+', '#'], "a"), filter.trim_end_matches("/#")] {
        let Ok(topic) = TopicName::parse(name, u16::MAX) else { continue };
        if !topics::matches(filter, name) {
            continue;
        }
        let may_receive = rights.may_receive(&topic);
        assert!(may_receive || answer != Subscribe::Allowed, "{filter:?} allows {name:?}");
        assert!(!may_receive || answer != Subscribe::Refused, "{filter:?} refuses {name:?}");
    }
}

/// The file read once more: whether the client may do that, when one denial is enough to refuse it.
fn is_allowed(text: &str, access: &str, user: Option<&str>, client_id: &str, name: &str) -> bool {
    let (mut section, mut allowed) = (None, false);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (keyword, rest) = word(line);
        if keyword == "user" {
            section = Some(rest);
        }
        let is_for_client = keyword == "pattern" || (keyword == "topic" && section == user);
        if !is_for_client {
            continue;
        }
        let (rule, filter) = match word(rest) {
            (filter, "") => ("readwrite", filter),
            rule => rule,
        };
        let filter = match keyword {
            "topic" => Some(filter.to_owned()),
            _ => resolved(filter, rule == "deny", user, client_id),
        };
        if !filter.is_some_and(|filter| topics::is_filter(&filter) && topics::matches(&filter, name)) {
            continue;
        }
        if rule == "deny" {
            return false;
        }
        allowed |= rule == "readwrite" || rule == access;
    }
    allowed
}

/// The pattern with the names of the client, unless one of them would let it reach further.
fn resolved(pattern: &str, denies: bool, user: Option<&str>, client_id: &str) -> Option<String> {
    let mut pieces = pattern.split('%');
    let mut filter = pieces.next()?.to_owned();
    for piece in pieces {
        let (name, rest) = match piece.split_at_checked(1) {
            Some(("c", rest)) => (client_id, rest),
            Some(("u", rest)) => (user?, rest),
            _ => {
                filter.push('%');
                filter.push_str(piece);
                continue;
            }
        };
        let widens = name.contains('/') || (filter.is_empty() && name.starts_with('$'));
        if name.contains(['+', '#']) || (widens && !denies) {
            return None;
        }
        filter.push_str(name);
        filter.push_str(rest);
    }
    Some(filter)
}

/// The first word and what comes after it.
fn word(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}
