//! The rarer packets that mqttbytes cannot read or write as 5.0 means them: CONNACK, UNSUBSCRIBE, DISCONNECT
//! and AUTH of 5.0. They are judged and read in one pass.

use super::connect::judge_authentication;
use super::frame::{PacketType, Sender};
use super::properties::{Place, Properties, PropertyId, Value};
use super::reader::Reader;
use super::{
    Auth, Connack, ConnackProperties, DecodeError, Disconnect, EncodeError, ReasonCode, Unsubscribe, Version,
};
use super::{guard, write};

/// Judges and reads a CONNACK.
pub(super) fn connack(body: &[u8]) -> Result<Connack, DecodeError> {
    let mut reader = Reader::new(body);
    let session_present = guard::session_present(&mut reader)?;
    let reason = guard::reason(&mut reader, PacketType::Connack)?;
    guard::accepted_if_present(session_present, reason)?;
    let mut properties = ConnackProperties::default();
    for property in Properties::read(&mut reader, Place::Connack)? {
        let property = property?;
        set_connack_property(&mut properties, property.id, property.value);
    }
    reader.end()?;
    judge_authentication(
        properties.authentication_method.is_some(),
        properties.authentication_data.is_some(),
    )?;
    Ok(Connack { session_present, reason, properties })
}

fn set_connack_property(to: &mut ConnackProperties, id: PropertyId, value: Value<'_>) {
    use PropertyId as Id;
    match (id, value) {
        (Id::SessionExpiryInterval, Value::U32(n)) => to.session_expiry = Some(n),
        (Id::ReceiveMaximum, Value::U16(n)) => to.receive_maximum = Some(n),
        (Id::MaximumQos, Value::Flag(one)) => to.maximum_qos = Some(one.into()),
        (Id::RetainAvailable, Value::Flag(on)) => to.retain_available = Some(on),
        (Id::MaximumPacketSize, Value::U32(n)) => to.maximum_packet_size = Some(n),
        (Id::AssignedClientIdentifier, Value::Text(id)) => to.assigned_client_id = Some(id.into()),
        (Id::TopicAliasMaximum, Value::U16(n)) => to.topic_alias_maximum = Some(n),
        (Id::ReasonString, Value::Text(text)) => to.reason_string = Some(text.into()),
        (Id::UserProperty, Value::Pair(name, value)) => to.user_properties.push((name.into(), value.into())),
        (Id::WildcardSubscriptionAvailable, Value::Flag(on)) => to.wildcard_subscription_available = Some(on),
        (Id::SubscriptionIdentifierAvailable, Value::Flag(on)) => {
            to.subscription_identifiers_available = Some(on);
        }
        (Id::SharedSubscriptionAvailable, Value::Flag(on)) => to.shared_subscription_available = Some(on),
        (Id::ServerKeepAlive, Value::U16(seconds)) => to.server_keep_alive = Some(seconds),
        (Id::ResponseInformation, Value::Text(text)) => to.response_information = Some(text.into()),
        (Id::ServerReference, Value::Text(text)) => to.server_reference = Some(text.into()),
        (Id::AuthenticationMethod, Value::Text(text)) => to.authentication_method = Some(text.into()),
        (Id::AuthenticationData, Value::Binary(data)) => to.authentication_data = Some(data.into()),
        _ => {}
    }
}

/// Judges and reads an UNSUBSCRIBE.
pub(super) fn unsubscribe(body: &[u8]) -> Result<Unsubscribe, DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = guard::request_head(&mut reader, Place::Unsubscribe, Version::V5)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(guard::filter(&mut reader)?.to_owned());
    }
    Ok(Unsubscribe { packet_id, filters })
}

/// Judges and reads a DISCONNECT. Its reason code and property length may be left out (3.14.2.1).
pub(super) fn disconnect(body: &[u8], sender: Sender) -> Result<Disconnect, DecodeError> {
    let mut disconnect = Disconnect::default();
    let mut reader = Reader::new(body);
    if !reader.is_empty() {
        disconnect.reason = guard::reason(&mut reader, PacketType::Disconnect)?;
    }
    if reader.is_empty() {
        return Ok(disconnect);
    }
    let place = match sender {
        Sender::Client => Place::DisconnectFromClient,
        Sender::Server => Place::DisconnectFromServer,
    };
    for property in Properties::read(&mut reader, place)? {
        let property = property?;
        match (property.id, property.value) {
            (PropertyId::SessionExpiryInterval, Value::U32(n)) => disconnect.session_expiry = Some(n),
            (PropertyId::ReasonString, Value::Text(text)) => disconnect.reason_string = Some(text.into()),
            (PropertyId::ServerReference, Value::Text(text)) => {
                disconnect.server_reference = Some(text.into())
            }
            _ => {}
        }
    }
    reader.end()?;
    Ok(disconnect)
}

/// Judges and reads an AUTH. Only a success may come without a method, and then it has no property at all
/// (3.15.2.1).
pub(super) fn auth(body: &[u8]) -> Result<Auth, DecodeError> {
    let mut reader = Reader::new(body);
    if reader.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, method: String::new(), data: None });
    }
    let reason = guard::reason(&mut reader, PacketType::Auth)?;
    let properties = Properties::read(&mut reader, Place::Auth)?;
    let may_omit_method = reason == ReasonCode::Success && properties.raw().is_empty();
    let (mut method, mut data) = (None, None);
    for property in properties {
        let property = property?;
        match (property.id, property.value) {
            (PropertyId::AuthenticationMethod, Value::Text(text)) => method = Some(text.to_owned()),
            (PropertyId::AuthenticationData, Value::Binary(bytes)) => data = Some(bytes.to_vec()),
            _ => {}
        }
    }
    reader.end()?;
    if method.is_none() && !may_omit_method {
        return Err(DecodeError::protocol("AUTH without an authentication method (3.15.2.2.2)"));
    }
    Ok(Auth { reason, method: method.unwrap_or_default(), data })
}

/// Appends a CONNACK.
pub(super) fn encode_connack(
    connack: &Connack,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    write::in_packet(connack.reason, PacketType::Connack)?;
    let session_present = connack.session_present && connack.reason == ReasonCode::Success;
    write::fitting(out, max_packet_size, |out, with_advice| {
        write::packet(out, PacketType::Connack, |body| {
            body.extend_from_slice(&[session_present.into(), connack.reason as u8]);
            write::with_length(body, |block| {
                encode_connack_session(&connack.properties, block)?;
                encode_connack_limits(&connack.properties, block);
                if with_advice {
                    encode_connack_advice(&connack.properties, block)?;
                }
                Ok(())
            })
        })
    })
}

/// Who the client is for us. This and what follows is in the order in which mosquitto writes it, for those who
/// compare bytes.
fn encode_connack_session(from: &ConnackProperties, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    use PropertyId as Id;
    for (id, number) in
        [(Id::ServerKeepAlive, from.server_keep_alive), (Id::TopicAliasMaximum, from.topic_alias_maximum)]
    {
        if let Some(number) = number {
            write::property_u16(out, id, number);
        }
    }
    for (id, text) in [
        (Id::AssignedClientIdentifier, &from.assigned_client_id),
        (Id::AuthenticationMethod, &from.authentication_method),
    ] {
        write::property_text(out, id, text.as_deref())?;
    }
    write::property_bytes(out, Id::AuthenticationData, from.authentication_data.as_deref())
}

/// What the client may ask for.
fn encode_connack_limits(from: &ConnackProperties, out: &mut Vec<u8>) {
    use PropertyId as Id;
    if let Some(available) = from.retain_available {
        write::property_flag(out, Id::RetainAvailable, available);
    }
    if let Some(bytes) = from.maximum_packet_size {
        write::property_u32(out, Id::MaximumPacketSize, bytes);
    }
    if let Some(messages) = from.receive_maximum {
        write::property_u16(out, Id::ReceiveMaximum, messages);
    }
    for (id, on) in [
        (Id::MaximumQos, from.maximum_qos.map(|qos| qos != 0)),
        (Id::WildcardSubscriptionAvailable, from.wildcard_subscription_available),
        (Id::SubscriptionIdentifierAvailable, from.subscription_identifiers_available),
        (Id::SharedSubscriptionAvailable, from.shared_subscription_available),
    ] {
        if let Some(on) = on {
            write::property_flag(out, id, on);
        }
    }
    if let Some(seconds) = from.session_expiry {
        write::property_u32(out, Id::SessionExpiryInterval, seconds);
    }
}

/// What a client can do without.
fn encode_connack_advice(from: &ConnackProperties, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    use PropertyId as Id;
    for (id, text) in [
        (Id::ResponseInformation, &from.response_information),
        (Id::ServerReference, &from.server_reference),
        (Id::ReasonString, &from.reason_string),
    ] {
        write::property_text(out, id, text.as_deref())?;
    }
    for (name, value) in &from.user_properties {
        out.push(PropertyId::UserProperty as u8);
        write::text(out, name)?;
        write::text(out, value)?;
    }
    Ok(())
}

/// Appends an UNSUBSCRIBE.
pub(super) fn encode_unsubscribe(unsubscribe: &Unsubscribe, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    write::packet(out, PacketType::Unsubscribe, |body| {
        body.extend_from_slice(&unsubscribe.packet_id.get().to_be_bytes());
        body.push(0);
        unsubscribe.filters.iter().try_for_each(|filter| write::text(body, filter))
    })
}

/// Appends a DISCONNECT in its shortest form.
pub(super) fn encode_disconnect(
    disconnect: &Disconnect,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    write::in_packet(disconnect.reason, PacketType::Disconnect)?;
    write::fitting(out, max_packet_size, |out, with_advice| {
        let reason_string = disconnect.reason_string.as_deref().filter(|_| with_advice);
        let reference = disconnect.server_reference.as_deref().filter(|_| with_advice);
        let has_properties =
            disconnect.session_expiry.is_some() || reason_string.is_some() || reference.is_some();
        write::packet(out, PacketType::Disconnect, |body| {
            if disconnect.reason == ReasonCode::Success && !has_properties {
                return Ok(());
            }
            body.push(disconnect.reason as u8);
            if !has_properties {
                return Ok(());
            }
            write::with_length(body, |block| {
                if let Some(seconds) = disconnect.session_expiry {
                    write::property_u32(block, PropertyId::SessionExpiryInterval, seconds);
                }
                write::property_text(block, PropertyId::ReasonString, reason_string)?;
                write::property_text(block, PropertyId::ServerReference, reference)
            })
        })
    })
}

/// Appends an AUTH. A success with an empty method is the short form.
pub(super) fn encode_auth(
    auth: &Auth,
    reason_string: Option<&str>,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    write::in_packet(auth.reason, PacketType::Auth)?;
    write::fitting(out, max_packet_size, |out, with_diagnostics| {
        write::packet(out, PacketType::Auth, |body| {
            if auth.reason == ReasonCode::Success && auth.method.is_empty() {
                return Ok(());
            }
            body.push(auth.reason as u8);
            write::with_length(body, |block| {
                write::property_text(block, PropertyId::AuthenticationMethod, Some(&auth.method))?;
                write::property_bytes(block, PropertyId::AuthenticationData, auth.data.as_deref())?;
                let reason_string = reason_string.filter(|_| with_diagnostics);
                write::property_text(block, PropertyId::ReasonString, reason_string)
            })
        })
    })
}
