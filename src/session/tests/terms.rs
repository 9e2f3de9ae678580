//! CONNECT: what is agreed on, and what CONNACK tells.

use std::num::NonZeroU16;

use super::*;

fn refused(version: Version, change: impl FnOnce(&mut Connect<'static>)) -> ReasonCode {
    let mut connect = connect(version);
    change(&mut connect);
    Terms::agree(&connect, &limits(), || "assigned".into()).unwrap_err()
}

#[test]
fn empty_client_ids() {
    let bad = ReasonCode::ClientIdentifierNotValid;
    let empty = |clean_start| {
        move |connect: &mut Connect<'static>| {
            connect.client_id = "";
            connect.clean_start = clean_start;
        }
    };
    assert_eq!(refused(Version::V31, empty(true)), bad);
    assert_eq!(refused(Version::V31, empty(false)), bad);
    assert_eq!(refused(Version::V311, empty(false)), bad);
    for (version, clean_start) in [(Version::V311, true), (Version::V5, true), (Version::V5, false)] {
        let terms = terms(version, |connect, _| empty(clean_start)(connect));
        assert!(terms.assigned && &*terms.client_id == "assigned");
        let told = terms.connack(false).properties.assigned_client_id;
        assert_eq!(told, (version == Version::V5).then(|| "assigned".into()));
    }
    assert_eq!(terms(Version::V5, |_, _| ()).connack(false).properties.assigned_client_id, None);
}

#[test]
fn session_expiry_table() {
    // Version, Clean Start, asked for, agreed on, told.
    let cases = [
        (Version::V31, true, None, 0, None),
        (Version::V311, true, None, 0, None),
        (Version::V311, false, None, 3600, None),
        (Version::V5, false, None, 0, None),
        (Version::V5, true, Some(60), 60, None),
        (Version::V5, false, Some(0), 0, None),
        (Version::V5, false, Some(3600), 3600, None),
        (Version::V5, false, Some(3601), 3600, Some(3600)),
        (Version::V5, false, Some(u32::MAX), 3600, Some(3600)),
    ];
    for (version, clean_start, asked, agreed, told) in cases {
        let terms = terms(version, |connect, _| {
            (connect.clean_start, connect.session_expiry) = (clean_start, asked);
        });
        assert_eq!(terms.session_expiry, agreed, "{version:?} {clean_start} {asked:?}");
        assert_eq!(terms.connack(false).properties.session_expiry, told, "{version:?} {asked:?}");
    }
}

#[test]
fn keep_alive_table() {
    // Version, asked for, at most, agreed on, told.
    let cases = [
        (Version::V5, 60, 0, 60, None),
        (Version::V5, 0, 0, 0, None),
        (Version::V5, 60, 300, 60, None),
        (Version::V5, 600, 300, 300, Some(300)),
        (Version::V5, 0, 300, 300, Some(300)),
        // An older client cannot be told.
        (Version::V311, 600, 300, 600, None),
        (Version::V311, 0, 300, 0, None),
    ];
    for (version, asked, at_most, agreed, told) in cases {
        let terms = terms(version, |connect, limits| {
            (connect.keep_alive, limits.keep_alive_max) = (asked, at_most);
        });
        assert_eq!(terms.keep_alive, agreed, "{version:?} {asked} {at_most}");
        assert_eq!(terms.connack(false).properties.server_keep_alive, told, "{version:?} {asked}");
    }
}

#[test]
fn windows_sizes_and_aliases_take_the_lower_limit() {
    let terms_of = |maximum, size, aliases| {
        terms(Version::V5, |connect, _| {
            connect.receive_maximum = NonZeroU16::new(maximum);
            connect.maximum_packet_size = size;
            connect.topic_alias_maximum = aliases;
        })
    };
    let low = terms_of(5, Some(100), 2);
    assert_eq!((low.send_window, low.max_packet_size, low.topic_alias_out), (5, 100, 2));
    let high = terms_of(u16::MAX, Some(u32::MAX), u16::MAX);
    assert_eq!((high.send_window, high.max_packet_size, high.topic_alias_out), (20, MAX_PACKET_SIZE, 3));
    let absent = terms_of(0, None, 0);
    assert_eq!(
        (absent.send_window, absent.max_packet_size, absent.topic_alias_out),
        (20, MAX_PACKET_SIZE, 0)
    );
    assert_eq!(terms(Version::V311, |_, _| ()).topic_alias_in, 0);
}

#[test]
fn connack_tells_a_5_0_client_our_limits_and_an_older_one_nothing() {
    let told = terms(Version::V5, |_, _| ()).connack(true);
    assert!(told.session_present);
    assert_eq!(told.properties.receive_maximum, Some(10));
    assert_eq!(told.properties.maximum_packet_size, Some(1000));
    assert_eq!(told.properties.topic_alias_maximum, Some(3));
    let without = terms(Version::V5, |_, limits| limits.topic_alias_maximum = 0).connack(false);
    assert_eq!(without.properties.topic_alias_maximum, None);
    assert_eq!(terms(Version::V311, |_, _| ()).connack(false).properties, Default::default());
}

#[test]
fn response_information_is_for_those_who_ask_and_stays_in_one_level() {
    let told = |asks, id, template: Option<&str>| {
        let terms = terms(Version::V5, |connect, limits| {
            (connect.request_response_information, connect.client_id) = (asks, id);
            limits.response_information = template.map(Into::into);
        });
        terms.connack(false).properties.response_information
    };
    let template = Some("response/{client_id}/");
    assert_eq!(told(true, "ada", template).as_deref(), Some("response/ada/"));
    assert_eq!(told(true, "", template).as_deref(), Some("response/assigned/"));
    assert_eq!(told(false, "ada", template), None);
    assert_eq!(told(true, "ada", None), None);
    for id in ["a/b", "+", "a#"] {
        assert_eq!(told(true, id, template), None, "{id}");
        assert_eq!(told(true, id, Some("response")).as_deref(), Some("response"), "{id}");
    }
}

#[test]
fn assigned_ids_are_hexadecimal_and_as_random_as_their_bytes() {
    let id = assigned_client_id([0xAB; 16]);
    assert_eq!(id, "auto-abababab-abab-abab-abab-abababababab");
    assert_ne!(id, assigned_client_id([0xAC; 16]));
}
