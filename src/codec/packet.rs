//! The packets, as plain types. What is rare owns its strings; what is frequent borrows them.

use std::num::NonZeroU16;

use super::ReasonCode;

/// The protocol version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: level 4.
    V311,
    /// MQTT 5.0: level 5.
    V5,
}

/// Quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2, exactly once per hop.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level with this number; 3 is malformed.
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier: never zero [MQTT-2.2.1-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// The identifier with this number, unless it is zero.
    pub fn new(value: u16) -> Option<Self> {
        NonZeroU16::new(value).map(Self)
    }

    /// The number on the wire.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// One control packet. It borrows from the frame it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Client to server, once and first.
    Connect(Box<Connect<'a>>),
    /// Server to client, in answer to CONNECT.
    Connack(Box<Connack>),
    /// A message, either way.
    Publish(Publish<'a>),
    /// Ends QoS 1.
    Puback(Ack),
    /// The first answer of QoS 2.
    Pubrec(Ack),
    /// The answer to PUBREC.
    Pubrel(Ack),
    /// Ends QoS 2.
    Pubcomp(Ack),
    /// Client to server.
    Subscribe(Subscribe),
    /// The answer to SUBSCRIBE.
    Suback(Suback),
    /// Client to server.
    Unsubscribe(Unsubscribe),
    /// The answer to UNSUBSCRIBE.
    Unsuback(Suback),
    /// Client to server, to say that it is there.
    Pingreq,
    /// The answer to PINGREQ.
    Pingresp,
    /// The last packet; from a server in 5.0 only.
    Disconnect(Disconnect),
    /// A step of enhanced authentication; 5.0 only.
    Auth(Auth),
}

/// CONNECT (3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that protocol name and level say.
    pub version: Version,
    /// Clean Start of 5.0, CleanSession of 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0 switches the check off.
    pub keep_alive: u16,
    /// Empty when the server is to assign one.
    pub client_id: &'a str,
    /// The will, when the Will Flag is set.
    pub will: Option<Will<'a>>,
    /// User Name: `Some("")` is a name that is present and empty.
    pub user_name: Option<&'a str>,
    /// Password: any bytes.
    pub password: Option<&'a [u8]>,
    /// 0x11, seconds. Absent counts as 0; `u32::MAX` never expires.
    pub session_expiry: Option<u32>,
    /// 0x21.
    pub receive_maximum: Option<NonZeroU16>,
    /// 0x27: the largest packet the client takes.
    pub maximum_packet_size: Option<u32>,
    /// 0x22: the highest alias the client takes; absent is 0.
    pub topic_alias_maximum: u16,
    /// 0x19.
    pub request_response_information: bool,
    /// 0x17: absent is true.
    pub request_problem_information: bool,
    /// 0x15.
    pub authentication_method: Option<&'a str>,
    /// 0x16.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> Connect<'a> {
    /// A CONNECT that asks for nothing: no clean start, no keep-alive, no will, no name, no properties.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: false,
            keep_alive: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            session_expiry: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// The will of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// The QoS it is published with.
    pub qos: Qos,
    /// Whether it is published as a retained message.
    pub retain: bool,
    /// The topic name: not empty, no wildcards.
    pub topic: &'a str,
    /// Any bytes, at most 65 535.
    pub payload: &'a [u8],
    /// 0x18, seconds.
    pub delay: u32,
    /// The other will properties, which become those of the PUBLISH.
    pub properties: PublishProperties<'a>,
}

/// CONNACK (3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connack {
    /// Whether the server goes on with a session it had; never in a refusal [MQTT-3.2.2-6].
    pub session_present: bool,
    /// For 3.1 and 3.1.1 the encoder writes [`ReasonCode::connack_v3`]; the decoder maps back.
    pub reason: ReasonCode,
    /// 5.0 only; ignored for older versions.
    pub properties: ConnackProperties,
}

/// The properties of a CONNACK; `None` and `Default` leave a property out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnackProperties {
    /// 0x11, seconds.
    pub session_expiry: Option<u32>,
    /// 0x21.
    pub receive_maximum: Option<u16>,
    /// 0x24: 0 or 1; absent means 2.
    pub maximum_qos: Option<u8>,
    /// 0x25.
    pub retain_available: Option<bool>,
    /// 0x27.
    pub maximum_packet_size: Option<u32>,
    /// 0x12.
    pub assigned_client_id: Option<String>,
    /// 0x22.
    pub topic_alias_maximum: Option<u16>,
    /// 0x1F.
    pub reason_string: Option<String>,
    /// 0x26.
    pub user_properties: Vec<(String, String)>,
    /// 0x28.
    pub wildcard_subscription_available: Option<bool>,
    /// 0x29.
    pub subscription_identifiers_available: Option<bool>,
    /// 0x2A.
    pub shared_subscription_available: Option<bool>,
    /// 0x13, seconds.
    pub server_keep_alive: Option<u16>,
    /// 0x1A.
    pub response_information: Option<String>,
    /// 0x1C.
    pub server_reference: Option<String>,
    /// 0x15.
    pub authentication_method: Option<String>,
    /// 0x16.
    pub authentication_data: Option<Vec<u8>>,
}

/// PUBLISH (3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it was sent before; never with QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// The QoS of this delivery.
    pub qos: Qos,
    /// The RETAIN flag.
    pub retain: bool,
    /// Empty when an alias stands for it.
    pub topic: &'a str,
    /// Present exactly when the QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// 5.0 only; empty for older versions.
    pub properties: PublishProperties<'a>,
    /// Any bytes.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH or a will. All of them were judged by the guard; those the broker acts on
/// are taken out, the rest is forwarded as the bytes it came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// The property bytes as received, without their length.
    pub raw: &'a [u8],
    /// 0x23.
    pub topic_alias: Option<NonZeroU16>,
    /// 0x02, seconds.
    pub message_expiry: Option<u32>,
    /// How many bytes of `raw` are forwarded: all but alias, expiry and subscription identifiers (and
    /// will delay).
    pub forwarded_len: usize,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// That of the PUBLISH it belongs to.
    pub packet_id: PacketId,
    /// Success for 3.1.1 and for the short forms.
    pub reason: ReasonCode,
}

/// SUBSCRIBE (3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Repeated by the SUBACK.
    pub packet_id: PacketId,
    /// 0x0B: 1 to 268 435 455.
    pub subscription_id: Option<u32>,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
}

/// One entry of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// As sent: not yet judged as a topic filter.
    pub filter: String,
    /// What the client asks of this subscription.
    pub options: SubscribeOptions,
}

/// The options byte of a subscription (3.8.3.1). For 3.1.1 only `qos` is on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The highest QoS of a delivery.
    pub qos: Qos,
    /// Not to get back what the same client id has published.
    pub no_local: bool,
    /// To keep the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When a subscription gets the retained messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Send = 0,
    /// 1: when the subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

/// SUBACK (3.9), and UNSUBACK (3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suback {
    /// That of the SUBSCRIBE or UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter, in its order. An UNSUBACK of 3.1.1 has none.
    pub reasons: Vec<ReasonCode>,
}

/// UNSUBSCRIBE (3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Repeated by the UNSUBACK.
    pub packet_id: PacketId,
    /// At least one, as sent.
    pub filters: Vec<String>,
}

/// DISCONNECT (3.14). The default is the normal end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// Success for 3.1.1 and for the short form: the will is not published.
    pub reason: ReasonCode,
    /// 0x11, seconds; from clients only.
    pub session_expiry: Option<u32>,
    /// 0x1F.
    pub reason_string: Option<String>,
    /// 0x1C; from servers only.
    pub server_reference: Option<String>,
}

/// AUTH (3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Success, Continue Authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// 0x15: required once there are properties; empty only in the short form.
    pub method: String,
    /// 0x16.
    pub data: Option<Vec<u8>>,
}
