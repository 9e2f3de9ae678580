//! The part of rumqttc that speaks MQTT 3.1.1.

use std::{fs, time::Duration};

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    SubscribeReasonCode, Transport,
};

use crate::{
    Failure, Seen,
    lines::{Message, Options, Payload, Properties, Publish, Subscribe},
};

/// Larger than any message of the cases.
pub const PACKET_BYTES_MAX: usize = 1 << 20;
/// Requests that wait for the event loop.
pub const REQUESTS_MAX: usize = 16;

pub struct Client(AsyncClient);
pub struct Events(EventLoop);

pub fn open(options: &Options) -> Result<(Client, Events), Failure> {
    let mut set = MqttOptions::new(&options.client_id, address(options), options.port);
    set.set_transport(transport(options)?)
        .set_keep_alive(Duration::from_secs(30))
        .set_clean_session(options.clean)
        .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    if let (Some(name), Some(password)) = (&options.username, &options.password) {
        set.set_credentials(name, password);
    }
    if let Some(will) = &options.will {
        set.set_last_will(LastWill::new(&will.topic, will.payload.0.clone(), qos(will.qos)?, will.retain));
    }
    let (client, events) = AsyncClient::new(set, REQUESTS_MAX);
    Ok((Client(client), Events(events)))
}

/// A host name, or a whole address for WebSocket.
pub fn address(options: &Options) -> String {
    let Options { transport, host, port, path, .. } = options;
    match transport.as_str() {
        "ws" | "wss" => format!("{transport}://{host}:{port}{path}"),
        _ => host.clone(),
    }
}

pub fn transport(options: &Options) -> Result<Transport, Failure> {
    let ca = options.ca.as_ref().map(fs::read).transpose()?.unwrap_or_default();
    Ok(match options.transport.as_str() {
        "tcp" => Transport::Tcp,
        "tls" => Transport::tls(ca, None, None),
        "ws" => Transport::Ws,
        "wss" => Transport::wss(ca, None, None),
        other => return Err(format!("no such transport: {other}").into()),
    })
}

impl Client {
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<(), Failure> {
        Ok(self.0.subscribe(subscribe.filter, qos(subscribe.qos)?).await?)
    }

    pub async fn unsubscribe(&self, filter: String) -> Result<(), Failure> {
        Ok(self.0.unsubscribe(filter).await?)
    }

    pub async fn publish(&self, publish: &Publish, payload: &Payload) -> Result<(), Failure> {
        let qos = qos(publish.qos)?;
        Ok(self.0.publish(&publish.topic, qos, publish.retain, payload.0.clone()).await?)
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
            Err(ConnectionError::ConnectionRefused(code)) => Seen::Refused(code as u8),
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
        Packet::PubAck(_) | Packet::PubComp(_) => Seen::Acknowledged { reason: 0 },
        Packet::SubAck(suback) => Seen::Subscribed {
            granted: match suback.return_codes.first() {
                Some(SubscribeReasonCode::Success(qos)) => *qos as u8,
                _ => 0x80,
            },
        },
        Packet::UnsubAck(_) => Seen::Unsubscribed,
        Packet::Publish(publish) => Seen::Message(Message {
            topic: publish.topic,
            payload: Payload(publish.payload.to_vec()),
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: Properties::default(),
        }),
        _ => Seen::Nothing,
    }
}

fn qos(number: u8) -> Result<QoS, Failure> {
    rumqttc::qos(number).map_err(|_| format!("no such QoS: {number}").into())
}
