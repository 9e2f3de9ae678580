//! The part of rumqttc that speaks MQTT 5.0.

use std::time::Duration;

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError,
        mqttbytes::{
            QoS,
            v5::{
                ConnectProperties, ConnectReturnCode, Filter, LastWill, LastWillProperties, Packet,
                PubAckReason, PubCompReason, Publish as Arrived, PublishProperties, RetainForwardRule,
                SubscribeProperties, SubscribeReasonCode,
            },
        },
    },
};

use crate::{
    Failure, Seen,
    lines::{Message, Options, Payload, Properties, Publish, Subscribe, Will},
    v311::{PACKET_BYTES_MAX, REQUESTS_MAX, address, transport},
};

/// rumqttc has a name for it and no number.
const NOBODY_SUBSCRIBED: u8 = 0x10;
const UNSPECIFIED: u8 = 0x80;

pub struct Client(AsyncClient);
pub struct Events(EventLoop);

pub fn open(options: &Options) -> Result<(Client, Events), Failure> {
    let mut set = MqttOptions::new(&options.client_id, address(options), options.port);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = options.session_expiry;
    properties.receive_maximum = options.receive_maximum;
    set.set_transport(transport(options)?)
        .set_keep_alive(Duration::from_secs(30))
        .set_clean_start(options.clean)
        .set_connect_properties(properties)
        .set_max_packet_size(Some(PACKET_BYTES_MAX as u32));
    if let (Some(name), Some(password)) = (&options.username, &options.password) {
        set.set_credentials(name, password);
    }
    if let Some(will) = &options.will {
        set.set_last_will(last_will(will)?);
    }
    let (client, events) = AsyncClient::new(set, REQUESTS_MAX);
    Ok((Client(client), Events(events)))
}

impl Client {
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<(), Failure> {
        let mut filter = Filter::new(subscribe.filter, qos(subscribe.qos)?);
        filter.nolocal = subscribe.no_local;
        filter.preserve_retain = subscribe.retain_as_published;
        filter.retain_forward_rule = match subscribe.retain_handling {
            0 => RetainForwardRule::OnEverySubscribe,
            1 => RetainForwardRule::OnNewSubscribe,
            _ => RetainForwardRule::Never,
        };
        let properties = SubscribeProperties { id: subscribe.subscription_id, user_properties: Vec::new() };
        Ok(self.0.subscribe_many_with_properties([filter], properties).await?)
    }

    pub async fn unsubscribe(&self, filter: String) -> Result<(), Failure> {
        Ok(self.0.unsubscribe(filter).await?)
    }

    pub async fn publish(&self, publish: &Publish, payload: &Payload) -> Result<(), Failure> {
        let Publish { topic, retain, properties, .. } = publish;
        let properties = PublishProperties {
            payload_format_indicator: properties.payload_format,
            message_expiry_interval: properties.message_expiry,
            topic_alias: properties.topic_alias,
            response_topic: properties.response_topic.clone(),
            correlation_data: properties.correlation_data.clone().map(|data| data.0.into()),
            user_properties: properties.user_properties.clone(),
            subscription_identifiers: Vec::new(),
            content_type: properties.content_type.clone(),
        };
        let (qos, payload) = (qos(publish.qos)?, payload.0.clone());
        Ok(self.0.publish_with_properties(topic, qos, *retain, payload, properties).await?)
    }

    pub async fn disconnect(&self) -> Result<(), Failure> {
        Ok(self.0.disconnect().await?)
    }
}

impl Events {
    pub async fn next(&mut self) -> Seen {
        match self.0.poll().await {
            Ok(Event::Incoming(packet)) => incoming(packet),
            Ok(Event::Outgoing(Outgoing::Publish(0))) => Seen::Sent,
            Ok(Event::Outgoing(Outgoing::PubComp(_))) => Seen::Completed,
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Seen::Left,
            Ok(Event::Outgoing(_)) => Seen::Nothing,
            Err(ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword)) => {
                Seen::Refused(0x86)
            }
            Err(ConnectionError::ConnectionRefused(_)) => Seen::Refused(UNSPECIFIED),
            Err(ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. })) => {
                Seen::Closed(Some(reason_code as u8))
            }
            Err(error) => {
                eprintln!("{error}");
                Seen::Closed(None)
            }
        }
    }
}

fn incoming(packet: Packet) -> Seen {
    match packet {
        Packet::ConnAck(connack) => Seen::Connected { session_present: connack.session_present },
        Packet::PubAck(puback) => Seen::Acknowledged {
            reason: match puback.reason {
                PubAckReason::Success => 0,
                PubAckReason::NoMatchingSubscribers => NOBODY_SUBSCRIBED,
                _ => UNSPECIFIED,
            },
        },
        Packet::PubComp(pubcomp) => Seen::Acknowledged {
            reason: if pubcomp.reason == PubCompReason::Success { 0 } else { UNSPECIFIED },
        },
        Packet::SubAck(suback) => Seen::Subscribed {
            granted: match suback.return_codes.first() {
                Some(SubscribeReasonCode::Success(qos)) => *qos as u8,
                _ => UNSPECIFIED,
            },
        },
        Packet::UnsubAck(_) => Seen::Unsubscribed,
        Packet::Publish(publish) => Seen::Message(message(publish)),
        _ => Seen::Nothing,
    }
}

fn message(publish: Arrived) -> Message {
    let theirs = publish.properties.unwrap_or_default();
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: Payload(publish.payload.to_vec()),
        qos: publish.qos as u8,
        retain: publish.retain,
        properties: Properties {
            content_type: theirs.content_type,
            response_topic: theirs.response_topic,
            correlation_data: theirs.correlation_data.map(|data| Payload(data.to_vec())),
            message_expiry: theirs.message_expiry_interval,
            payload_format: theirs.payload_format_indicator,
            topic_alias: theirs.topic_alias,
            will_delay: None,
            user_properties: theirs.user_properties,
            subscription_ids: theirs.subscription_identifiers,
        },
    }
}

fn last_will(will: &Will) -> Result<LastWill, Failure> {
    let properties = LastWillProperties {
        delay_interval: will.properties.will_delay,
        payload_format_indicator: will.properties.payload_format,
        message_expiry_interval: will.properties.message_expiry,
        content_type: will.properties.content_type.clone(),
        response_topic: will.properties.response_topic.clone(),
        correlation_data: will.properties.correlation_data.clone().map(|data| data.0.into()),
        user_properties: will.properties.user_properties.clone(),
    };
    Ok(LastWill::new(&will.topic, will.payload.0.clone(), qos(will.qos)?, will.retain, Some(properties)))
}

fn qos(number: u8) -> Result<QoS, Failure> {
    rumqttc::v5::mqttbytes::qos(number).ok_or_else(|| format!("no such QoS: {number}").into())
}
