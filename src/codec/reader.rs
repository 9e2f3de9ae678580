//! A checked cursor over bytes that a peer sent. Every method either takes a whole field or says which
//! field was wrong; `detail` names the field and what it has to be.
//!
//! Invariant: a field never reaches beyond the slice that the reader was given.

use memchr::{memchr, memchr3};

use super::{DecodeError, PacketId};

/// The largest value of a Variable Byte Integer.
pub(super) const VARINT_MAX: u32 = 268_435_455;

/// A position in a frame, a property block or a property value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses bytes after the last field of a packet.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::malformed("bytes follow the last field of the packet"))
    }

    pub fn take(&mut self, len: usize, detail: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::malformed(detail));
        };
        self.rest = rest;
        Ok(head)
    }

    pub fn u8(&mut self, detail: &'static str) -> Result<u8, DecodeError> {
        self.array(detail).map(|[byte]| byte)
    }

    pub fn u16(&mut self, detail: &'static str) -> Result<u16, DecodeError> {
        self.array(detail).map(u16::from_be_bytes)
    }

    pub fn u32(&mut self, detail: &'static str) -> Result<u32, DecodeError> {
        self.array(detail).map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
    pub fn varint(&mut self, detail: &'static str) -> Result<u32, DecodeError> {
        let (value, len) = varint(self.rest)?.ok_or(DecodeError::malformed(detail))?;
        self.take(len, detail)?;
        Ok(value)
    }

    /// Binary Data: bytes after a length of two bytes.
    pub fn binary(&mut self, detail: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(detail)?;
        self.take(len.into(), detail)
    }

    /// A UTF-8 Encoded String without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    pub fn text(&mut self, detail: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(detail)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if memchr(0, bytes).is_none() => Ok(text),
            _ => Err(DecodeError::malformed(detail)),
        }
    }

    /// A string without wildcards [MQTT-3.3.2-2]. Whether it may be empty is for the caller to say.
    pub fn topic_name(&mut self, detail: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(detail)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if memchr3(0, b'+', b'#', bytes).is_none() => Ok(text),
            _ => Err(DecodeError::malformed(detail)),
        }
    }

    /// A packet identifier, which is never zero [MQTT-2.2.1-3].
    pub fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        let value = self.u16("the packet identifier is cut short")?;
        PacketId::new(value)
            .ok_or(DecodeError::protocol("the packet identifier is 0; it has to be 1 to 65535"))
    }

    fn array<const N: usize>(&mut self, detail: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else {
            return Err(DecodeError::malformed(detail));
        };
        self.rest = rest;
        Ok(*head)
    }
}

/// The Variable Byte Integer at the start of `bytes` and its length; `None` when its end is not there yet.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(DecodeError::malformed("a variable byte integer is longer than it needs to be"));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        return Ok(None);
    }
    Err(DecodeError::malformed("a variable byte integer has more than four bytes"))
}
