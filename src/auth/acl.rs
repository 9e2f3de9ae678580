//! The ACL file, in Mosquitto's format.
//!
//! `user NAME` begins a section; `topic [read|write|readwrite|deny] FILTER` is a rule of the section, and
//! before the first section one for clients without a user; `pattern ...` is a rule for every client, with
//! its client id in place of `%c` and its user name in place of `%u`. Unlike in Mosquitto a `deny` wins
//! wherever it stands.
//!
//! Invariant: the names of a client never widen a pattern (CVE-2017-7650): a name that would add a level,
//! a wildcard or a leading `$` switches the pattern off for that client.

use std::{borrow::Cow, collections::HashMap, path::Path, sync::Arc};

use super::{
    AuthFileError,
    rights::{Access, Rights, Rule},
    text_file::{self, LineError},
};
use crate::topic::{TOPIC_BYTES_MAX, TopicError, TopicFilter};

/// The rules of an ACL file. What they do not allow is denied, also when there is none.
#[derive(Debug, Default)]
pub struct Acl {
    anonymous: Arc<[Rule]>,
    users: HashMap<Box<str>, Arc<[Rule]>>,
    patterns: Vec<Rule>,
}

impl Acl {
    /// Reads an ACL file. One line that is not understood refuses the file.
    pub fn load(path: &Path) -> Result<Self, AuthFileError> {
        Self::parse(&text_file::read(path)?).map_err(|error| text_file::malformed(path, error))
    }

    /// The rights of a client. `user` is a name whose password was checked; without one the rules for
    /// clients without a user apply.
    pub fn rights(&self, user: Option<&str>, client_id: &str) -> Rights {
        let section = match user {
            None => self.anonymous.clone(),
            Some(user) => self.users.get(user).cloned().unwrap_or_default(),
        };
        Rights::of(section, self.patterns.iter().filter_map(|rule| resolve(rule, user, client_id)).collect())
    }

    /// The rules of the text of an ACL file.
    ///
    /// # Errors
    /// The first line that is not understood, counted from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut anonymous = Vec::new();
        let mut users: HashMap<&str, Vec<Rule>> = HashMap::new();
        let mut patterns = Vec::new();
        let mut user = None;
        for (number, line) in text_file::lines(text) {
            let (keyword, rest) = split_word(line);
            let rule = || parse_rule(number, rest).map_err(|problem| (number, problem));
            match keyword {
                "topic" => match user {
                    None => anonymous.push(rule()?),
                    Some(user) => users.entry(user).or_default().push(rule()?),
                },
                "pattern" => patterns.push(rule()?),
                "user" if rest.is_empty() => {
                    return Err((number, "`user` needs a name: `user NAME`".into()));
                }
                "user" => user = Some(rest),
                _ => {
                    return Err((number, "a line must begin with `user`, `topic`, `pattern` or `#`".into()));
                }
            }
        }
        let users = users.into_iter().map(|(user, rules)| (user.into(), rules.into())).collect();
        Ok(Self { anonymous: anonymous.into(), users, patterns })
    }
}

/// Reads `[read|write|readwrite|deny] FILTER`. The filter may contain spaces when the first word is there.
fn parse_rule(line: u32, text: &str) -> Result<Rule, Cow<'static, str>> {
    const NO_FILTER: &str = "the rule names no topic filter: `topic [read|write|readwrite|deny] FILTER`";
    const NO_ACCESS: &str = "the word before the filter must be `read`, `write`, `readwrite` or `deny`";
    let (access, filter) = match split_word(text) {
        ("" | "read" | "write" | "readwrite" | "deny", "") => return Err(NO_FILTER.into()),
        ("read", filter) => (Access::Read, filter),
        ("write", filter) => (Access::Write, filter),
        ("readwrite", filter) => (Access::ReadWrite, filter),
        ("deny", filter) => (Access::Deny, filter),
        (filter, "") => (Access::ReadWrite, filter),
        _ => return Err(NO_ACCESS.into()),
    };
    if filter == "$share" || filter.starts_with("$share/") {
        return Err("rules are about topics: leave out `$share/` and the share name".into());
    }
    let filter = parse_filter(filter).map_err(|error| format!("the topic filter {error}"))?;
    Ok(Rule { line, access, filter })
}

/// Rules may be deeper than the topics that clients may use; they match nothing then.
fn parse_filter(text: &str) -> Result<TopicFilter, TopicError> {
    TopicFilter::parse(text, u16::MAX)
}

/// Puts the client's names into a pattern; `None` when it is not about this client.
fn resolve(pattern: &Rule, user: Option<&str>, client_id: &str) -> Option<Rule> {
    let mut rest = pattern.filter.as_str();
    let mut filter = String::with_capacity(rest.len());
    while let Some((before, name, after)) = next_name(rest, user, client_id) {
        // No topic has such a character in its name, so that there is nothing to allow, nor to deny.
        let name = name.filter(|name| !name.contains(['+', '#']))?;
        filter.push_str(before);
        let widens = name.contains('/') || (filter.is_empty() && name.starts_with('$'));
        if widens && pattern.access != Access::Deny {
            return None;
        }
        filter.push_str(name);
        if filter.len() > TOPIC_BYTES_MAX {
            return None;
        }
        rest = after;
    }
    filter.push_str(rest);
    let filter = parse_filter(&filter).ok()?;
    Some(Rule { filter, ..*pattern })
}

/// The text before the next `%c` or `%u`, the client's name for it if it has one, and the text after it.
fn next_name<'a>(
    text: &'a str,
    user: Option<&'a str>,
    client_id: &'a str,
) -> Option<(&'a str, Option<&'a str>, &'a str)> {
    let (at, name) = text.match_indices('%').find_map(|(at, _)| match text.as_bytes().get(at + 1) {
        Some(b'c') => Some((at, Some(client_id))),
        Some(b'u') => Some((at, user)),
        _ => None,
    })?;
    Some((text.get(..at)?, name, text.get(at + 2..)?))
}

/// The first word, and the rest without the space between.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{auth::Subscribe, topic::TopicName};

    const HARBOUR: &str = "
topic read weather/#

user ada
topic readwrite ships/#
topic deny ships/navy/#
topic notes/a b

user bob
topic read ships/+/position

pattern readwrite devices/%c/#
pattern read users/%u/inbox
pattern deny devices/%c/firmware
";

    fn name(text: &str) -> TopicName<'_> {
        TopicName::parse(text, u16::MAX).unwrap()
    }

    fn filter(text: &str) -> TopicFilter {
        parse_filter(text).unwrap()
    }

    fn acl(text: &str) -> Acl {
        Acl::parse(text).unwrap()
    }

    fn problem(text: &str) -> String {
        let (line, problem) = Acl::parse(text).unwrap_err();
        format!("{line}: {problem}")
    }

    #[test]
    fn sections_are_for_their_user_and_the_first_lines_for_anonymous() {
        let acl = acl(&HARBOUR.replace("topic notes/a b", "topic read notes/a b"));
        let (ada, bob, nobody) =
            (acl.rights(Some("ada"), "1"), acl.rights(Some("bob"), "2"), acl.rights(None, "3"));
        assert!(ada.may_publish(&name("ships/x")) && !ada.may_publish(&name("ships/navy/x")));
        assert!(ada.may_receive(&name("notes/a b")) && !ada.may_publish(&name("notes/a b")));
        assert!(bob.may_receive(&name("ships/x/position")) && !bob.may_publish(&name("ships/x/position")));
        assert!(nobody.may_receive(&name("weather/x")) && !ada.may_receive(&name("weather/x")));
        assert!(!acl.rights(Some("eve"), "4").may_receive(&name("weather/x")), "a user without a section");
        assert!(!acl.rights(Some(""), "5").may_receive(&name("weather/x")), "an empty name is a name");
    }

    #[test]
    fn patterns_are_for_everyone_with_their_own_names() {
        let acl = acl(
            "pattern readwrite devices/%c/#\npattern read u/%u/%c/x-%u\npattern deny devices/%c/firmware",
        );
        let rights = acl.rights(Some("ada"), "pump1");
        assert!(
            rights.may_publish(&name("devices/pump1/level"))
                && !rights.may_publish(&name("devices/pump2/level"))
        );
        assert!(!rights.may_publish(&name("devices/pump1/firmware")));
        assert!(rights.may_receive(&name("u/ada/pump1/x-ada")));
        assert_eq!(rights.may_subscribe(&filter("devices/pump1/#")), Subscribe::AllowedFiltered);
        assert!(
            !acl.rights(None, "pump1").may_receive(&name("u//pump1/x-")),
            "%u without a user matches nobody"
        );
        assert!(acl.rights(None, "%u").may_publish(&name("devices/%u/x")), "a name is not a pattern itself");
    }

    #[test]
    fn a_name_never_widens_a_pattern() {
        let acl = acl("pattern readwrite devices/%c/#\npattern read %u/#");
        for id in ["+", "#", "+/#", "a/+", "a+", "a/b", "/", "$SYS", "$SYS/#"] {
            let rights = acl.rights(Some(id), id);
            for topic in ["devices/a/x", "devices/a/b/x", "devices/a", "$SYS/x", "a/b", "a"] {
                assert!(
                    !rights.may_publish(&name(topic)) && !rights.may_receive(&name(topic)),
                    "{id} {topic}"
                );
            }
        }
        assert!(acl.rights(Some("x"), "$SYS").may_publish(&name("devices/$SYS/x")), "not at the beginning");
    }

    #[test]
    fn a_name_never_escapes_from_a_denial() {
        let acl = acl(
            "user ada\ntopic readwrite #\ntopic readwrite $SYS/#\npattern deny private/%c/x\npattern deny %c/#",
        );
        let rights = acl.rights(Some("ada"), "site/pump");
        assert!(
            !rights.may_publish(&name("private/site/pump/x")) && !rights.may_publish(&name("site/pump/y"))
        );
        assert!(!acl.rights(Some("ada"), "$SYS").may_receive(&name("$SYS/x")));
    }

    #[test]
    fn names_cannot_blow_a_pattern_up() {
        let acl = acl(&format!("pattern read {}", "%c".repeat(10_000)));
        let rights = acl.rights(None, &"x".repeat(60_000));
        assert_eq!(rights.may_subscribe(&filter("#")), Subscribe::Refused);
    }

    #[test]
    fn an_empty_file_denies_everything() {
        for text in ["", "\n# nothing\n"] {
            let rights = acl(text).rights(None, "x");
            assert!(
                !rights.unrestricted() && !rights.may_publish(&name("a")) && !rights.may_receive(&name("a"))
            );
        }
    }

    #[test]
    fn says_which_line_is_wrong() {
        assert!(problem(HARBOUR).starts_with("7: the word before the filter must be"));
        assert!(problem("topic").starts_with("1: the rule names no topic filter"));
        assert!(problem("user a\ntopic deny").starts_with("2: the rule names no topic filter"));
        assert!(problem("user").starts_with("1: `user` needs a name"));
        assert!(problem("topics read a").starts_with("1: a line must begin with"));
        assert!(problem("topic read a/#/b").starts_with("1: the topic filter has a "));
        assert!(problem("topic read a+").starts_with("1: the topic filter has a "));
        assert!(problem("pattern read %u#").starts_with("1: the topic filter has a "));
        assert!(problem("topic read $share/g/a").starts_with("1: rules are about topics"));
        assert!(problem("topic read a\u{0}b").starts_with("1: the topic filter has the character U+0000"));
    }

    #[test]
    fn a_section_can_be_continued() {
        let rights = acl("user a\ntopic a\nuser b\ntopic b\nuser a\ntopic c").rights(Some("a"), "");
        assert!(
            rights.may_publish(&name("a"))
                && !rights.may_publish(&name("b"))
                && rights.may_publish(&name("c"))
        );
    }

    proptest! {
        #[test]
        fn what_a_pattern_allows_holds_the_own_name(
            id in "[a+#/$%cu]{0,4}",
            topic in "devices/[a/$%cu]{0,4}/x",
        ) {
            let rights = acl("pattern readwrite devices/%c/x").rights(None, &id);
            let own = format!("devices/{id}/x");
            prop_assert_eq!(rights.may_publish(&name(&topic)), topic == own && !id.contains('/'));
        }

        #[test]
        fn any_text_is_rules_or_an_error(
            text in "((user|topic|pattern|deny|read|#|%c|%u|/|\\+|\\$|\\n|\\PC) ?){0,30}",
            id in any::<String>(),
        ) {
            if let Ok(acl) = Acl::parse(&text) {
                acl.rights(Some(&id), &id).may_subscribe(&filter("#"));
            }
        }
    }
}
