//! mqttbytes, behind the guard: acknowledgements with a reason code, SUBSCRIBE, SUBACK, UNSUBACK, PINGREQ,
//! PINGRESP, and CONNACK, UNSUBSCRIBE and DISCONNECT of 3.1 and 3.1.1, both ways. 3.1 has the 3.1.1 forms of
//! all of them. No other file names the crate, but for the tests that ask it for a second opinion.
//!
//! Invariant: it reads frames that the guard has passed, and writes fields whose lengths fit.

use bytes::{Bytes, BytesMut};
use mqttbytes::{QoS, v4, v5};

use super::frame::{FixedHeader, PacketType};
use super::{Ack, Connack, ConnackProperties, DecodeError, EncodeError, PacketId, Qos, ReasonCode, Suback};
use super::{MAX_PACKET_SIZE, write};
use super::{RetainHandling, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Version};

/// A whole frame that the guard has passed.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub header: FixedHeader,
    pub frame: &'a [u8],
    pub version: Version,
}

/// What `read` of a packet of mqttbytes gives for a frame; an error would be a hole in the guard.
macro_rules! read {
    ($judged:expr, $packet:ty) => {{
        let (header, frame) = $judged.parts();
        <$packet>::read(header, frame).map_err(|_| DecodeError::malformed("the packet cannot be read"))?
    }};
}

impl Judged<'_> {
    fn parts(&self) -> (mqttbytes::FixedHeader, Bytes) {
        let first = self.frame.first().copied().unwrap_or_default();
        let header = mqttbytes::FixedHeader::new(first, self.header.len - 1, self.header.body_len);
        (header, Bytes::copy_from_slice(self.frame))
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP of 5.0 with a reason code.
    pub fn ack(&self) -> Result<Ack, DecodeError> {
        let (id, code) = match self.header.packet_type {
            PacketType::Puback => {
                let ack = read!(self, v5::PubAck);
                (ack.pkid, ack.reason as u8)
            }
            PacketType::Pubrec => {
                let ack = read!(self, v5::PubRec);
                (ack.pkid, ack.reason as u8)
            }
            PacketType::Pubrel => {
                let ack = read!(self, v5::PubRel);
                (ack.pkid, ack.reason as u8)
            }
            _ => {
                let ack = read!(self, v5::PubComp);
                (ack.pkid, ack.reason as u8)
            }
        };
        Ok(Ack { packet_id: packet_id(id)?, reason: reason(code)? })
    }

    pub fn subscribe(&self) -> Result<Subscribe, DecodeError> {
        if self.version != Version::V5 {
            let subscribe = read!(self, v4::Subscribe);
            let filters = subscribe.filters.into_iter().map(|entry| SubscribeFilter {
                filter: entry.path,
                options: SubscribeOptions { qos: qos(entry.qos), ..Default::default() },
            });
            let packet_id = packet_id(subscribe.pkid)?;
            return Ok(Subscribe { packet_id, subscription_id: None, filters: filters.collect() });
        }
        let subscribe = read!(self, v5::Subscribe);
        let filters = subscribe.filters.into_iter().map(|entry| SubscribeFilter {
            filter: entry.path,
            options: SubscribeOptions {
                qos: qos(entry.qos),
                no_local: entry.nolocal,
                retain_as_published: entry.preserve_retain,
                retain_handling: match entry.retain_forward_rule {
                    v5::RetainForwardRule::OnEverySubscribe => RetainHandling::Send,
                    v5::RetainForwardRule::OnNewSubscribe => RetainHandling::SendIfNew,
                    v5::RetainForwardRule::Never => RetainHandling::DoNotSend,
                },
            },
        });
        Ok(Subscribe {
            packet_id: packet_id(subscribe.pkid)?,
            subscription_id: subscribe.properties.and_then(|properties| properties.id).map(|id| id as u32),
            filters: filters.collect(),
        })
    }

    pub fn suback(&self) -> Result<Suback, DecodeError> {
        if self.version == Version::V5 {
            let suback = read!(self, v5::SubAck);
            return acknowledged(suback.pkid, suback.return_codes.iter().map(|&code| code as u8));
        }
        let suback = read!(self, v4::SubAck);
        let codes = suback.return_codes.iter().map(|code| match code {
            v4::SubscribeReasonCode::Success(qos) => *qos as u8,
            v4::SubscribeReasonCode::Failure => ReasonCode::UnspecifiedError as u8,
        });
        acknowledged(suback.pkid, codes)
    }

    pub fn unsuback(&self) -> Result<Suback, DecodeError> {
        if self.version == Version::V5 {
            let unsuback = read!(self, v5::UnsubAck);
            return acknowledged(unsuback.pkid, unsuback.reasons.iter().map(|&code| code as u8));
        }
        acknowledged(read!(self, v4::UnsubAck).pkid, std::iter::empty())
    }

    /// UNSUBSCRIBE of 3.1 and 3.1.1.
    pub fn unsubscribe_v3(&self) -> Result<Unsubscribe, DecodeError> {
        let unsubscribe = read!(self, v4::Unsubscribe);
        Ok(Unsubscribe { packet_id: packet_id(unsubscribe.pkid)?, filters: unsubscribe.topics })
    }

    /// CONNACK of 3.1 and 3.1.1.
    pub fn connack_v3(&self) -> Result<Connack, DecodeError> {
        let connack = read!(self, v4::ConnAck);
        let reason = ReasonCode::from_connack_v3(connack.code as u8)
            .ok_or(DecodeError::protocol("a CONNACK return code above 5"))?;
        let properties = ConnackProperties::default();
        Ok(Connack { session_present: connack.session_present, reason, properties })
    }
}

fn acknowledged(id: u16, codes: impl Iterator<Item = u8>) -> Result<Suback, DecodeError> {
    Ok(Suback { packet_id: packet_id(id)?, reasons: codes.map(reason).collect::<Result<_, _>>()? })
}

fn packet_id(value: u16) -> Result<PacketId, DecodeError> {
    PacketId::new(value).ok_or(DecodeError::protocol("the packet identifier is 0"))
}

fn reason(value: u8) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_u8(value).ok_or(DecodeError::protocol("an unknown reason code"))
}

fn qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

type Written = Result<(), EncodeError>;

const TOO_LARGE: EncodeError =
    EncodeError::PacketTooLarge { len: MAX_PACKET_SIZE as usize + 1, max: MAX_PACKET_SIZE };

/// Appends what `write` of a packet of mqttbytes makes. It can fail for one reason only: its length.
macro_rules! append {
    ($packet:expr, $out:expr) => {{
        let mut bytes = BytesMut::new();
        let packet = $packet;
        packet.write(&mut bytes).map_err(|_| TOO_LARGE)?;
        $out.extend_from_slice(&bytes);
        Ok(())
    }};
}

/// The same name stands for the same code on both sides.
macro_rules! same_name {
    ($reason:expr, $to:ty: $($name:ident)+) => {
        match $reason {
            $(ReasonCode::$name => Ok(<$to>::$name),)+
            other => Err(EncodeError::ReasonNotInPacket(other)),
        }
    };
}

/// The reason codes that PUBACK and PUBREC have.
macro_rules! published {
    ($reason:expr, $to:ty) => {
        same_name!($reason, $to: Success NoMatchingSubscribers UnspecifiedError ImplementationSpecificError
            NotAuthorized TopicNameInvalid PacketIdentifierInUse QuotaExceeded PayloadFormatInvalid)
    };
}

/// The reason codes that PUBREL and PUBCOMP have.
macro_rules! released {
    ($reason:expr, $to:ty) => {
        same_name!($reason, $to: Success PacketIdentifierNotFound)
    };
}

/// Properties that hold a reason string, of a type of mqttbytes; `None` without one.
macro_rules! reason_properties {
    ($properties:ident, $reason_string:expr) => {
        $reason_string
            .map(|text| v5::$properties { reason_string: Some(text.to_owned()), user_properties: Vec::new() })
    };
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP of 5.0 with a reason code, and a reason string if it fits.
pub(super) fn encode_ack(
    packet_type: PacketType,
    ack: Ack,
    reason_string: Option<&str>,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Written {
    write::fitting(out, max_packet_size, |out, with_diagnostics| {
        let reason_string = checked(reason_string)?.filter(|_| with_diagnostics);
        append_ack(packet_type, ack, reason_string, out)
    })
}

fn append_ack(packet_type: PacketType, ack: Ack, reason_string: Option<&str>, out: &mut Vec<u8>) -> Written {
    let pkid = ack.packet_id.get();
    match packet_type {
        PacketType::Puback => {
            let reason = published!(ack.reason, v5::PubAckReason)?;
            let properties = reason_properties!(PubAckProperties, reason_string);
            append!(v5::PubAck { pkid, reason, properties }, out)
        }
        PacketType::Pubrec => {
            let reason = published!(ack.reason, v5::PubRecReason)?;
            let properties = reason_properties!(PubRecProperties, reason_string);
            append!(v5::PubRec { pkid, reason, properties }, out)
        }
        PacketType::Pubrel => {
            let reason = released!(ack.reason, v5::PubRelReason)?;
            let properties = reason_properties!(PubRelProperties, reason_string);
            append!(v5::PubRel { pkid, reason, properties }, out)
        }
        _ => {
            let reason = released!(ack.reason, v5::PubCompReason)?;
            let properties = reason_properties!(PubCompProperties, reason_string);
            append!(v5::PubComp { pkid, reason, properties }, out)
        }
    }
}

/// Appends a SUBSCRIBE.
pub(super) fn encode_subscribe(version: Version, subscribe: &Subscribe, out: &mut Vec<u8>) -> Written {
    let pkid = subscribe.packet_id.get();
    for entry in &subscribe.filters {
        write::field_len(entry.filter.as_bytes())?;
    }
    let entries = subscribe.filters.iter();
    if version != Version::V5 {
        let filters = entries
            .map(|entry| v4::SubscribeFilter::new(entry.filter.clone(), library_qos(entry.options.qos)));
        return append!(v4::Subscribe { pkid, filters: filters.collect() }, out);
    }
    let filters = entries.map(|SubscribeFilter { filter, options }| v5::SubscribeFilter {
        path: filter.clone(),
        qos: library_qos(options.qos),
        nolocal: options.no_local,
        preserve_retain: options.retain_as_published,
        retain_forward_rule: match options.retain_handling {
            RetainHandling::Send => v5::RetainForwardRule::OnEverySubscribe,
            RetainHandling::SendIfNew => v5::RetainForwardRule::OnNewSubscribe,
            RetainHandling::DoNotSend => v5::RetainForwardRule::Never,
        },
    });
    let properties = subscribe
        .subscription_id
        .map(|id| v5::SubscribeProperties { id: Some(id as usize), user_properties: Vec::new() });
    append!(v5::Subscribe { pkid, filters: filters.collect(), properties }, out)
}

/// Appends a SUBACK. Before 5.0 each error is the one failure code 0x80 [MQTT-3.9.3-2 of 3.1.1].
pub(super) fn encode_suback(
    version: Version,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    reason_string: Option<&str>,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Written {
    let pkid = packet_id.get();
    write::fitting(out, max_packet_size, |out, with_diagnostics| {
        if version != Version::V5 {
            let return_codes =
                reasons.iter().map(|&reason| suback_code_v3(reason)).collect::<Result<_, _>>()?;
            return append!(v4::SubAck { pkid, return_codes }, out);
        }
        let code = |&reason: &ReasonCode| {
            v5::SubscribeReasonCode::try_from(reason as u8)
                .map_err(|_| EncodeError::ReasonNotInPacket(reason))
        };
        let return_codes = reasons.iter().map(code).collect::<Result<_, _>>()?;
        let properties =
            reason_properties!(SubAckProperties, checked(reason_string)?.filter(|_| with_diagnostics));
        append!(v5::SubAck { pkid, return_codes, properties }, out)
    })
}

fn suback_code_v3(reason: ReasonCode) -> Result<v4::SubscribeReasonCode, EncodeError> {
    match reason {
        ReasonCode::Success => Ok(v4::SubscribeReasonCode::Success(QoS::AtMostOnce)),
        ReasonCode::GrantedQos1 => Ok(v4::SubscribeReasonCode::Success(QoS::AtLeastOnce)),
        ReasonCode::GrantedQos2 => Ok(v4::SubscribeReasonCode::Success(QoS::ExactlyOnce)),
        error if error.is_error() => Ok(v4::SubscribeReasonCode::Failure),
        other => Err(EncodeError::ReasonNotInPacket(other)),
    }
}

/// Appends an UNSUBACK. Before 5.0 it has no codes.
pub(super) fn encode_unsuback(
    version: Version,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    reason_string: Option<&str>,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Written {
    let pkid = packet_id.get();
    write::fitting(out, max_packet_size, |out, with_diagnostics| {
        if version != Version::V5 {
            return append!(v4::UnsubAck { pkid }, out);
        }
        let code = |&reason: &ReasonCode| {
            same_name!(reason, v5::UnsubAckReason: Success NoSubscriptionExisted UnspecifiedError
                ImplementationSpecificError NotAuthorized TopicFilterInvalid PacketIdentifierInUse)
        };
        let reasons = reasons.iter().map(code).collect::<Result<_, _>>()?;
        let properties =
            reason_properties!(UnsubAckProperties, checked(reason_string)?.filter(|_| with_diagnostics));
        append!(v5::UnsubAck { pkid, reasons, properties }, out)
    })
}

/// Appends an UNSUBSCRIBE of 3.1 or 3.1.1.
pub(super) fn encode_unsubscribe_v3(unsubscribe: &Unsubscribe, out: &mut Vec<u8>) -> Written {
    for filter in &unsubscribe.filters {
        write::field_len(filter.as_bytes())?;
    }
    append!(v4::Unsubscribe { pkid: unsubscribe.packet_id.get(), topics: unsubscribe.filters.clone() }, out)
}

/// Appends a CONNACK of 3.1 or 3.1.1. To 3.1 the flags byte is reserved.
pub(super) fn encode_connack_v3(version: Version, connack: &Connack, out: &mut Vec<u8>) -> Written {
    use v4::ConnectReturnCode as Code;
    let code = match connack.reason.connack_v3() {
        Some(0) => Code::Success,
        Some(1) => Code::RefusedProtocolVersion,
        Some(2) => Code::BadClientId,
        Some(3) => Code::ServiceUnavailable,
        Some(4) => Code::BadUserNamePassword,
        Some(5) => Code::NotAuthorized,
        _ => return Err(EncodeError::NoReturnCode(connack.reason)),
    };
    let session_present = connack.session_present && code == Code::Success && version != Version::V31;
    append!(v4::ConnAck { session_present, code }, out)
}

/// Appends a DISCONNECT of 3.1 or 3.1.1.
pub(super) fn encode_disconnect_v3(out: &mut Vec<u8>) -> Written {
    append!(v4::Disconnect, out)
}

pub(super) fn encode_pingreq(out: &mut Vec<u8>) -> Written {
    append!(v4::PingReq, out)
}

pub(super) fn encode_pingresp(out: &mut Vec<u8>) -> Written {
    append!(v4::PingResp, out)
}

/// A string that fits its length prefix: mqttbytes would cut the length and write all of it.
fn checked(text: Option<&str>) -> Result<Option<&str>, EncodeError> {
    text.map_or(Ok(()), |text| write::field_len(text.as_bytes()).map(drop))?;
    Ok(text)
}

fn library_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}
