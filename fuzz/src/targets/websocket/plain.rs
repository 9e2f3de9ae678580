//! The frames of a whole stream, read in the plainest way.

use causeway::transport::websocket::Violation;

/// What the frames of a client hold, up to the first that ends it.
pub struct Plain {
    /// Of all data frames, as far as it is there.
    pub payload: Vec<u8>,
    pub pings: Vec<Vec<u8>>,
    pub end: Option<End>,
}

/// Why nothing more is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A Close frame with this code.
    Close(u16),
    Violation(Violation),
}

/// A header, as it stands there.
struct Header {
    first: u8,
    mask: Option<[u8; 4]>,
    payload_len: u64,
    is_shortest: bool,
    len: usize,
}

impl Plain {
    pub fn read(stream: &[u8]) -> Self {
        let mut plain = Self { payload: Vec::new(), pings: Vec::new(), end: None };
        let (mut rest, mut in_message) = (stream, false);
        while let Some(header) = header(rest) {
            if let Err(violation) = judge(&header, &mut in_message) {
                plain.end = Some(End::Violation(violation));
                break;
            }
            let is_whole = header.payload_len <= (rest.len() - header.len) as u64;
            let len = if is_whole { header.payload_len as usize } else { rest.len() - header.len };
            let payload = unmasked(&rest[header.len..header.len + len], header.mask.unwrap_or_default());
            rest = &rest[header.len + len..];
            match header.first & 0x0F {
                0..=7 => plain.payload.extend_from_slice(&payload),
                9 if is_whole => plain.pings.push(payload),
                8 if is_whole => {
                    plain.end = Some(close(&payload));
                    break;
                }
                _ => {}
            }
        }
        plain
    }

    /// Pongs answer pings in order; of many only the latest has to be answered (section 5.5.3).
    pub fn check_pongs(&self, pongs: &[Vec<u8>], may_skip: bool) {
        let mut pings = self.pings.iter();
        assert!(pongs.iter().all(|pong| pings.any(|ping| ping == pong)), "{pongs:?} for {:?}", self.pings);
        assert!(may_skip || pongs.len() == self.pings.len());
    }
}

/// The header that begins here, when all of it is there.
fn header(bytes: &[u8]) -> Option<Header> {
    let [first, second, ..] = *bytes else { return None };
    let (extended, is_masked) = (
        match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        },
        second & 0x80 != 0,
    );
    let mask_at = 2 + extended;
    let len = mask_at + if is_masked { 4 } else { 0 };
    let written = bytes.get(2..mask_at)?;
    let payload_len = match extended {
        0 => u64::from(second & 0x7F),
        _ => written.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
    };
    let is_shortest = match extended {
        0 => true,
        2 => payload_len > 125,
        _ => payload_len > 0xFFFF,
    };
    let mask = if is_masked { Some(bytes.get(mask_at..len)?.try_into().ok()?) } else { None };
    Some(Header { first, mask, payload_len, is_shortest, len })
}

fn judge(header: &Header, in_message: &mut bool) -> Result<(), Violation> {
    let (opcode, is_final) = (header.first & 0x0F, header.first & 0x80 != 0);
    match opcode {
        3..=7 | 11.. => return Err(Violation::Opcode),
        _ if header.first & 0x70 != 0 => return Err(Violation::ReservedBit),
        8..=10 if !is_final || header.payload_len > 125 => return Err(Violation::Control),
        8..=10 => {}
        1 => return Err(Violation::Text),
        0 if !*in_message => return Err(Violation::Continuation),
        2 if *in_message => return Err(Violation::Unfinished),
        _ => *in_message = !is_final,
    }
    if header.mask.is_none() {
        return Err(Violation::Unmasked);
    }
    if !header.is_shortest || header.payload_len >> 63 != 0 { Err(Violation::Length) } else { Ok(()) }
}

/// Section 7.4, and the codes that IANA has registered since, but for those that are never sent.
fn close(payload: &[u8]) -> End {
    match payload {
        [] => End::Close(1000),
        [high, low, text @ ..] => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1013 | 3000..=4999) if std::str::from_utf8(text).is_ok() => {
                End::Close(code)
            }
            _ => End::Violation(Violation::Close),
        },
        _ => End::Violation(Violation::Close),
    }
}

fn unmasked(bytes: &[u8], mask: [u8; 4]) -> Vec<u8> {
    bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// Appends a frame. `form` 6 and 7 are for lengths that are written longer than they have to be.
pub fn put_frame(out: &mut Vec<u8>, first: u8, mask: Option<[u8; 4]>, payload: &[u8], form: u8) {
    let is_masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(first);
    match payload.len() {
        len if form == 7 => {
            out.push(127 | is_masked);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
        len if len > 125 || form == 6 => {
            out.push(126 | is_masked);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => out.push(len as u8 | is_masked),
    }
    out.extend(mask.into_iter().flatten());
    out.extend(unmasked(payload, mask.unwrap_or_default()));
}

/// The frames of a server: first byte and payload of each, and what is left of the last when it is not whole.
pub fn server_frames(mut bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, &[u8]) {
    let mut frames = Vec::new();
    while let Some(header) = header(bytes) {
        assert!(header.mask.is_none() && header.is_shortest, "a frame of a server");
        let Some(payload) = bytes[header.len..].get(..header.payload_len as usize) else { break };
        frames.push((header.first, payload.to_vec()));
        bytes = &bytes[header.len + payload.len()..];
    }
    (frames, bytes)
}
