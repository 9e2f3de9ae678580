//! `order` of a route: which of its messages must not overtake each other.

use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::values;

/// What a message has in common with those that it must not overtake. They are in one lane: one is not sent
/// before the one ahead of it is settled. Lanes do not wait for each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Nothing: any message may overtake any other.
    None,
    /// Its topic, within which MQTT keeps the order, too.
    #[default]
    Topic,
    /// The client id of its publisher.
    Client,
    /// The value of the user property of this name; without it, its topic.
    UserProperty(String),
    /// The value that this JSON pointer finds in its payload; without one, its topic.
    Json(String),
    /// Being a message of this route.
    All,
}

impl Order {
    /// `"none"`, `"topic"`, `"client"`, `"all"`, `"user_property:NAME"` or `"json:/POINTER"`.
    pub(super) fn parse(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let expected =
            "\"none\", \"topic\", \"client\", \"all\", \"user_property:NAME\" or \"json:/pointer\"";
        let wrong = || values::unexpected(expected, value);
        match value.as_str().ok_or_else(wrong)? {
            "none" => Ok(Self::None),
            "topic" => Ok(Self::Topic),
            "client" => Ok(Self::Client),
            "all" => Ok(Self::All),
            text => match text.split_once(':') {
                Some(("user_property", name)) if !name.is_empty() => Ok(Self::UserProperty(name.to_owned())),
                Some(("json", pointer)) if pointer.starts_with('/') => Ok(Self::Json(pointer.to_owned())),
                Some(("json", _)) => {
                    Err(wrong().help("a JSON pointer begins with \"/\": \"json:/device/id\""))
                }
                _ => Err(wrong()),
            },
        }
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::Topic => formatter.write_str("topic"),
            Self::Client => formatter.write_str("client"),
            Self::UserProperty(name) => write!(formatter, "user_property:{name}"),
            Self::Json(pointer) => write!(formatter, "json:{pointer}"),
            Self::All => formatter.write_str("all"),
        }
    }
}
