//! Bytes to packets: finds the frame, has it judged, and hands it to whoever reads its type.
//!
//! Invariant: the answer depends on the bytes alone, not on how they were cut on the way here.

use super::adapter::Judged;
use super::connect::Protocol;
use super::frame::{FixedHeader, PacketType, Sender};
use super::guard::JudgedAck;
use super::reader::Reader;
use super::{Ack, Connect, DecodeError, Disconnect, Packet, Version};
use super::{by_hand, connect, guard, publish};

/// Decodes what one peer sends. It holds no bytes: the caller keeps the input until a packet is whole.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    max_packet_size: u32,
    sender: Sender,
    version: Option<Version>,
}

impl Decoder {
    /// For a server: the first packet has to be CONNECT, which names the version of all that follow.
    /// `max_packet_size` is in bytes and counts the fixed header.
    pub fn server(max_packet_size: u32) -> Self {
        Self { max_packet_size, sender: Sender::Client, version: None }
    }

    /// For a client that has sent a CONNECT of `version`. That CONNACK comes first is for the caller to
    /// see to [MQTT-3.2.0-1].
    pub fn client(version: Version, max_packet_size: u32) -> Self {
        Self { max_packet_size, sender: Sender::Server, version: Some(version) }
    }

    /// The version of the connection. After an error in CONNECT: the version to refuse it in, or `None`
    /// when the connection is to be closed without a word.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Decodes the packet at the start of `input`, and says how many bytes it took. `None` means that it
    /// is not whole yet; an error means that the connection is to be closed.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
        let Some(header) = self.header(input)? else { return Ok(None) };
        let Some((frame, _)) = input.split_at_checked(header.frame_len()) else { return Ok(None) };
        let body = frame.get(header.len..).unwrap_or_default();
        let packet = match self.version {
            None => Packet::Connect(Box::new(self.connect(body)?)),
            Some(version) => packet(&Judged { header, frame, version }, body, self.sender)?,
        };
        Ok(Some((packet, frame.len())))
    }

    /// The length in bytes of the packet at the start of `input`, once its fixed header is there.
    pub fn frame_len(&self, input: &[u8]) -> Result<Option<usize>, DecodeError> {
        Ok(self.header(input)?.map(|header| header.frame_len()))
    }

    fn header(&self, input: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
        FixedHeader::read(input, self.sender, self.version, self.max_packet_size)
    }

    fn connect<'a>(&mut self, body: &'a [u8]) -> Result<Connect<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        match connect::read_protocol(&mut reader)? {
            Protocol::Served(version) => {
                self.version = Some(version);
                connect::read(reader, version).inspect_err(|_| {
                    if connect::is_cut_short(reader, version) {
                        self.version = None;
                    }
                })
            }
            Protocol::NotServed(answer_in) => {
                self.version = answer_in;
                Err(connect::not_served())
            }
        }
    }
}

/// Judges and reads every packet but CONNECT.
fn packet<'a>(judged: &Judged<'a>, body: &'a [u8], sender: Sender) -> Result<Packet<'a>, DecodeError> {
    let (header, version) = (&judged.header, judged.version);
    let is_v5 = version == Version::V5;
    Ok(match header.packet_type {
        PacketType::Publish => Packet::Publish(publish::read(header, body, version, sender)?),
        PacketType::Puback => Packet::Puback(ack(judged, body)?),
        PacketType::Pubrec => Packet::Pubrec(ack(judged, body)?),
        PacketType::Pubrel => Packet::Pubrel(ack(judged, body)?),
        PacketType::Pubcomp => Packet::Pubcomp(ack(judged, body)?),
        PacketType::Subscribe => {
            guard::subscribe(body, version)?;
            Packet::Subscribe(judged.subscribe()?)
        }
        PacketType::Suback => {
            guard::suback(body, version)?;
            Packet::Suback(judged.suback()?)
        }
        PacketType::Unsubscribe if is_v5 => Packet::Unsubscribe(by_hand::unsubscribe(body)?),
        PacketType::Unsubscribe => {
            guard::unsubscribe_v3(body)?;
            Packet::Unsubscribe(judged.unsubscribe_v3()?)
        }
        PacketType::Unsuback => {
            guard::unsuback(body, version)?;
            Packet::Unsuback(judged.unsuback()?)
        }
        PacketType::Connack if is_v5 => Packet::Connack(Box::new(by_hand::connack(body)?)),
        PacketType::Connack => {
            guard::connack_v3(body)?;
            Packet::Connack(Box::new(judged.connack_v3()?))
        }
        PacketType::Disconnect if is_v5 => Packet::Disconnect(by_hand::disconnect(body, sender)?),
        PacketType::Disconnect => {
            guard::empty(body)?;
            Packet::Disconnect(Disconnect::default())
        }
        PacketType::Auth => Packet::Auth(by_hand::auth(body)?),
        PacketType::Pingreq => {
            guard::empty(body)?;
            Packet::Pingreq
        }
        PacketType::Pingresp => {
            guard::empty(body)?;
            Packet::Pingresp
        }
        PacketType::Connect => return Err(DecodeError::protocol("a second CONNECT [MQTT-3.1.0-2]")),
    })
}

fn ack(judged: &Judged<'_>, body: &[u8]) -> Result<Ack, DecodeError> {
    match guard::ack(judged.header.packet_type, body, judged.version)? {
        JudgedAck::Short(ack) => Ok(ack),
        JudgedAck::Long => judged.ack(),
    }
}
