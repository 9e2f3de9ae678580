//! `[mqtt]` and `[redirect]`: what of the protocol clients are offered, and where they are sent instead.

use std::net::Ipv6Addr;

use http::uri::Authority;
use toml::{Spanned, de::DeValue};

use super::{MqttConfig, RedirectConfig, report::Wrong, section::Section, values};
use crate::{codec::Qos, topic::TopicName};

/// Stands for the client's id in [`MqttConfig::response_information`].
pub const CLIENT_ID_PLACEHOLDER: &str = "{client_id}";
/// Longest Response Information or Server Reference; a client id of usual length still fits beside it.
const TEXT_BYTES_MAX: usize = 1024;

pub(super) fn read_mqtt(section: &mut Section<'_>, levels_max: u16) -> MqttConfig {
    let default = MqttConfig::default();
    let qos = section.number("maximum_qos", 0..=2, default.maximum_qos as u8);
    let mut flag = |key, default| section.take(key, values::flag).map_or(default, Spanned::into_inner);
    MqttConfig {
        maximum_qos: Qos::from_u8(qos).unwrap_or(default.maximum_qos),
        retain: flag("retain", default.retain),
        wildcard_subscriptions: flag("wildcard_subscriptions", default.wildcard_subscriptions),
        subscription_identifiers: flag("subscription_identifiers", default.subscription_identifiers),
        shared_subscriptions: flag("shared_subscriptions", default.shared_subscriptions),
        merge_overlapping: flag("merge_overlapping", default.merge_overlapping),
        response_information: section
            .take("response_information", |value| response_information(value, levels_max))
            .map(Spanned::into_inner),
    }
}

/// `None` when it does not say where to; that is reported.
pub(super) fn read_redirect(section: &mut Section<'_>) -> Option<RedirectConfig> {
    let permanent = section.take("permanent", values::flag).is_some_and(Spanned::into_inner);
    let to = section.require("to", "\"other.example:1883\"", server_reference)?.into_inner();
    Some(RedirectConfig { to, permanent })
}

/// What clients put in front of their response topics has to be the beginning of a topic name.
fn response_information(value: &DeValue<'_>, levels_max: u16) -> Result<String, Wrong> {
    let text = values::text(value)?;
    let help = "write the beginning of a topic name, as in \"response/{client_id}/\"";
    let example = text.replace(CLIENT_ID_PLACEHOLDER, "c");
    let is_topic = TopicName::parse(&example, levels_max).is_ok_and(|topic| !topic.is_system());
    if !is_topic || example.contains(['{', '}']) || text.len() > TEXT_BYTES_MAX {
        return Err(
            values::unexpected("the beginning of a topic that clients can publish to", value).help(help)
        );
    }
    Ok(text)
}

/// One or more hosts, each with or without a port (4.11).
fn server_reference(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = values::text(value)?;
    if !text.split(' ').all(is_host) || text.len() > TEXT_BYTES_MAX {
        let help = "write \"other.example\" or \"other.example:1883\"; a space stands between several";
        return Err(values::unexpected("a host with or without a port", value).help(help));
    }
    Ok(text)
}

fn is_host(part: &str) -> bool {
    let Ok(authority) = part.parse::<Authority>() else { return false };
    let host = authority.host();
    let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_ipv6 = in_brackets.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let is_port = |rest: &str| rest.is_empty() || authority.port_u16().is_some_and(|port| port > 0);
    // In front of the host there would be a user name.
    !host.is_empty() && (is_name || is_ipv6) && part.strip_prefix(host).is_some_and(is_port)
}
