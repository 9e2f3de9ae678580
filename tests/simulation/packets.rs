//! MQTT 3.1.1 and 5.0 as a client writes and reads it, byte by byte and without the broker's codec: what both
//! get wrong in the same way would not be seen.

/// Protocol Level of 5.0; 3.1.1 has 4.
pub const V5: u8 = 5;

/// What a client sends at first.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    pub version: u8,
    pub client_id: &'a str,
    pub clean: bool,
    /// Session Expiry Interval, seconds; 5.0 only.
    pub expiry: u32,
    /// 5.0 only.
    pub receive_maximum: u16,
    pub will: Option<Will<'a>>,
}

#[derive(Clone, Debug)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a str,
    pub qos: u8,
    /// Seconds; 5.0 only.
    pub delay: u32,
}

/// A PUBLISH, either way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// 0 for QoS 0.
    pub id: u16,
    pub topic: String,
    pub payload: String,
    /// Message Expiry Interval, seconds; 5.0 only.
    pub expiry: Option<u32>,
}

/// What the broker says. Acknowledgements have their packet identifier and their reason code, 0 before 5.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Connack { present: bool, reason: u8 },
    Publish(Publish),
    Puback(u16, u8),
    Pubrec(u16, u8),
    Pubrel(u16, u8),
    Pubcomp(u16, u8),
    Suback(u16, Vec<u8>),
    Unsuback(u16),
    Pingresp,
    Disconnect(u8),
}

/// The first byte of a packet that only has a packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

pub fn connect(connect: &Connect<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    let will = connect.will.as_ref();
    let flags = u8::from(connect.clean) << 1 | will.map_or(0, |will| 4 | will.qos << 3);
    body.extend([connect.version, flags, 0, 0]);
    if connect.version == V5 {
        let mut properties = vec![0x11];
        properties.extend(connect.expiry.to_be_bytes());
        properties.push(0x21);
        properties.extend(connect.receive_maximum.to_be_bytes());
        block(&mut body, &properties);
    }
    text(&mut body, connect.client_id);
    if let Some(will) = will {
        if connect.version == V5 {
            let mut properties = vec![0x18];
            properties.extend(will.delay.to_be_bytes());
            block(&mut body, &properties);
        }
        text(&mut body, will.topic);
        text(&mut body, will.payload);
    }
    packet(0x10, &body)
}

pub fn publish(version: u8, publish: &Publish) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, &publish.topic);
    if publish.qos > 0 {
        body.extend(publish.id.to_be_bytes());
    }
    if version == V5 {
        let mut properties = Vec::new();
        if let Some(expiry) = publish.expiry {
            properties.push(0x02);
            properties.extend(expiry.to_be_bytes());
        }
        block(&mut body, &properties);
    }
    body.extend(publish.payload.as_bytes());
    let flags = u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    packet(0x30 | flags, &body)
}

pub fn ack(ack: Ack, id: u16) -> Vec<u8> {
    packet(ack as u8, &id.to_be_bytes())
}

pub fn subscribe(version: u8, id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

pub fn unsubscribe(version: u8, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    text(&mut body, filter);
    packet(0xa2, &body)
}

/// `expiry` replaces the Session Expiry Interval; 5.0 only.
pub fn disconnect(version: u8, expiry: Option<u32>) -> Vec<u8> {
    match expiry.filter(|_| version == V5) {
        None => packet(0xe0, &[]),
        Some(expiry) => {
            let mut body = vec![0, 5, 0x11];
            body.extend(expiry.to_be_bytes());
            packet(0xe0, &body)
        }
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    block(&mut bytes, body);
    bytes
}

/// A length as a variable byte integer, and the bytes.
fn block(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes.len();
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { digit | 128 } else { digit });
        if rest == 0 {
            break;
        }
    }
    out.extend(bytes);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Takes the next whole packet off the front of what has arrived.
///
/// # Errors
/// What is wrong with it: a broker has no excuse.
pub fn take(inbox: &mut Vec<u8>, version: u8) -> Result<Option<Said>, String> {
    let Some((head, len)) = frame(inbox)? else { return Ok(None) };
    let bytes: Vec<_> = inbox.drain(..head + len).collect();
    let mut reader = Reader { bytes: &bytes[head..] };
    let said = reader.packet(bytes[0], version).ok_or_else(|| format!("malformed: {bytes:02x?}"))?;
    if matches!(said, Said::Publish(_)) || reader.bytes.is_empty() {
        return Ok(Some(said));
    }
    Err(format!("more than {said:?}: {bytes:02x?}"))
}

/// Whether there is no whole packet, so that a connection that has ended leaves nothing to be heard.
pub fn is_rest(inbox: &[u8]) -> bool {
    matches!(frame(inbox), Ok(None))
}

/// The bytes of fixed header and body, when all of them are there.
fn frame(inbox: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut len = 0;
    for (at, byte) in inbox.iter().skip(1).enumerate() {
        len |= usize::from(byte & 127) << (7 * at);
        if byte & 128 == 0 {
            let head = at + 2;
            return Ok(Some((head, len)).filter(|_| inbox.len() >= head + len));
        }
        if at == 3 {
            return Err(format!("a length of five bytes: {inbox:02x?}"));
        }
    }
    Ok(None)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn packet(&mut self, first: u8, version: u8) -> Option<Said> {
        Some(match first {
            0x20 => {
                let (present, reason) = (self.byte()? == 1, self.byte()?);
                self.properties(version)?;
                Said::Connack { present, reason }
            }
            0x30..=0x3f => Said::Publish(self.publish(first, version)?),
            0x40 => self.ack(version, Said::Puback)?,
            0x50 => self.ack(version, Said::Pubrec)?,
            0x62 => self.ack(version, Said::Pubrel)?,
            0x70 => self.ack(version, Said::Pubcomp)?,
            0x90 => {
                let id = self.number()?;
                self.properties(version)?;
                Said::Suback(id, std::mem::take(&mut self.bytes).to_vec())
            }
            0xb0 => {
                let id = self.number()?;
                self.properties(version)?;
                self.bytes = &[];
                Said::Unsuback(id)
            }
            0xd0 => Said::Pingresp,
            0xe0 if version == V5 => {
                let reason = self.byte().unwrap_or(0);
                self.bytes = &[];
                Said::Disconnect(reason)
            }
            _ => return None,
        })
    }

    fn publish(&mut self, first: u8, version: u8) -> Option<Publish> {
        let qos = first >> 1 & 3;
        let topic = self.text()?;
        let id = if qos > 0 { self.number()? } else { 0 };
        let expiry = self.properties(version)?;
        let payload = String::from_utf8(std::mem::take(&mut self.bytes).to_vec()).ok()?;
        let (dup, retain) = (first & 8 != 0, first & 1 != 0);
        (qos < 3 && (qos == 0) == (id == 0)).then_some(Publish {
            dup,
            qos,
            retain,
            id,
            topic,
            payload,
            expiry,
        })
    }

    /// Reason code and properties may be left out.
    fn ack(&mut self, version: u8, said: impl Fn(u16, u8) -> Said) -> Option<Said> {
        let id = self.number()?;
        let reason = if self.bytes.is_empty() { 0 } else { self.byte()? };
        if !self.bytes.is_empty() {
            self.properties(version)?;
        }
        Some(said(id, reason))
    }

    /// Skips properties, and gives the Message Expiry Interval.
    fn properties(&mut self, version: u8) -> Option<Option<u32>> {
        if version != V5 {
            return Some(None);
        }
        let len = self.length()?;
        let rest = self.bytes.len().checked_sub(len)?;
        let mut expiry = None;
        while self.bytes.len() > rest {
            match self.byte()? {
                0x02 => expiry = Some(self.long()?),
                0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(self.byte()?),
                0x13 | 0x21 | 0x22 | 0x23 => drop(self.number()?),
                0x11 | 0x18 | 0x27 => drop(self.long()?),
                0x0b => drop(self.length()?),
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => drop(self.text()?),
                0x26 => drop((self.text()?, self.text()?)),
                _ => return None,
            }
        }
        (self.bytes.len() == rest).then_some(expiry)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn long(&mut self) -> Option<u32> {
        Some(u32::from(self.number()?) << 16 | u32::from(self.number()?))
    }

    fn length(&mut self) -> Option<usize> {
        let mut len = 0;
        for at in 0..4 {
            let byte = self.byte()?;
            len |= usize::from(byte & 127) << (7 * at);
            if byte & 128 == 0 {
                return Some(len);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::from(self.number()?);
        let (text, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}
