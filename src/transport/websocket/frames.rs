//! The frames of a client, taken apart while they arrive, and the control frames that answer them.
//!
//! No I/O, and no collecting: payload is unmasked where it lies and moved together. Message boundaries mean
//! nothing to MQTT [MQTT-6.0.0-2], so that they are checked and forgotten.
//!
//! Invariant: what is kept from one call to the next is bounded by constants, whatever a client sends: the
//! beginning of a header, the payload of one control frame, and what [`Replies`] holds.

use std::io::Cursor;

use smallvec::SmallVec;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;

/// Most payload of a control frame.
const CONTROL_MAX: usize = 125;

/// Bytes of answers above which pings are not answered one by one any more.
const REPLIES_MAX: usize = 1024;

/// Takes the frames of a client apart.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The beginning of a header whose end has not arrived.
    header: SmallVec<[u8; HEADER_MAX]>,
    frame: Option<Frame>,
    /// The first frame of a message has come, but not its last.
    in_message: bool,
    /// What has arrived of the control frame under way.
    control: Vec<u8>,
    ended: Option<Ended>,
}

/// A frame whose header has arrived.
#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    /// Bytes of payload that have not arrived.
    missing: u64,
    /// Turned so that its first byte is for the first missing one.
    mask: [u8; 4],
}

/// Why nothing more is taken from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has sent a Close frame with this code.
    ByClient(CloseCode),
    /// It has broken a rule.
    By(Violation),
}

/// A rule of RFC 6455, or of MQTT about it, that a client has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// [MQTT-6.0.0-1]
    #[error("MQTT is carried in binary frames, and this is a text frame")]
    Text,
    /// Section 5.1.
    #[error("frames of a client have to be masked")]
    Unmasked,
    /// Section 5.2; also what a frame looks like that is compressed.
    #[error("a reserved bit is set, and no extension was agreed on")]
    ReservedBit,
    /// Section 5.2.
    #[error("there is no such opcode")]
    Opcode,
    /// Section 5.2.
    #[error("the length of a frame has to be written in the shortest form, and below 2^63")]
    Length,
    /// Section 5.5.
    #[error("control frames have at most 125 bytes and are not fragmented")]
    Control,
    /// Section 5.4.
    #[error("a continuation frame without a message that it continues")]
    Continuation,
    /// Section 5.4.
    #[error("a new message before the last one was complete")]
    Unfinished,
    /// Section 5.5.1.
    #[error("a Close frame holds nothing, or a code that may be sent and a text")]
    Close,
}

/// Control frames on their way to the client.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// The payload of the latest ping that found no room: it is the only one that has to be answered.
    unanswered: Option<Vec<u8>>,
}

impl FrameReader {
    /// Takes the next bytes apart, and moves the payload of data frames to their front. Gives its length;
    /// look at [`ended`](Self::ended) when it was used. After the end nothing is taken any more.
    pub fn read(&mut self, bytes: &mut [u8], replies: &mut Replies) -> usize {
        let (mut at, mut kept) = (0, 0);
        while self.ended.is_none() && at < bytes.len() {
            match self.step(bytes, at, &mut kept) {
                Ok(next) => at = next,
                Err(violation) => self.ended = Some(Ended::By(violation)),
            }
            if self.frame.as_ref().is_some_and(|frame| frame.missing == 0)
                && let Err(violation) = self.finish_frame(replies)
            {
                self.ended = Some(Ended::By(violation));
            }
        }
        kept
    }

    /// Why nothing more is taken, once that is so.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// One header, or the payload that is there; gives the place behind it.
    fn step(&mut self, bytes: &mut [u8], at: usize, kept: &mut usize) -> Result<usize, Violation> {
        let rest = bytes.get_mut(at..).unwrap_or_default();
        let Some(frame) = &mut self.frame else { return Ok(at + self.read_header(rest)?) };
        let there = usize::try_from(frame.missing).unwrap_or(usize::MAX).min(rest.len());
        let payload = rest.get_mut(..there).unwrap_or_default();
        unmask(payload, &mut frame.mask);
        frame.missing -= there as u64;
        if matches!(frame.opcode, OpCode::Control(_)) {
            self.control.extend_from_slice(payload);
        } else {
            bytes.copy_within(at..at + there, *kept);
            *kept += there;
        }
        Ok(at + there)
    }

    /// Begins a frame when its header is complete. Gives the bytes that were used.
    fn read_header(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let before = self.header.len();
        let taken = bytes.len().min(HEADER_MAX - before);
        self.header.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        let mut cursor = Cursor::new(&self.header);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Opcode)? else {
            return Ok(taken);
        };
        // Fewer than this were there without the last byte, so that the end lies in these bytes.
        let used = cursor.position() as usize;
        self.begin_frame(&header, length, used)?;
        self.header.clear();
        Ok(used - before)
    }

    fn begin_frame(&mut self, header: &FrameHeader, length: u64, used: usize) -> Result<(), Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBit);
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final || length > CONTROL_MAX as u64 => {
                return Err(Violation::Control);
            }
            OpCode::Control(_) => {}
            OpCode::Data(Data::Text) => return Err(Violation::Text),
            OpCode::Data(Data::Continue) if !self.in_message => return Err(Violation::Continuation),
            OpCode::Data(Data::Continue) => self.in_message = !header.is_final,
            OpCode::Data(_) if self.in_message => return Err(Violation::Unfinished),
            OpCode::Data(_) => self.in_message = !header.is_final,
        }
        let mask = header.mask.ok_or(Violation::Unmasked)?;
        if header.len(length) != used || length > i64::MAX as u64 {
            return Err(Violation::Length);
        }
        self.frame = Some(Frame { opcode: header.opcode, missing: length, mask });
        Ok(())
    }

    fn finish_frame(&mut self, replies: &mut Replies) -> Result<(), Violation> {
        let Some(Frame { opcode: OpCode::Control(control), .. }) = self.frame.take() else { return Ok(()) };
        // Given back: an idle connection keeps no buffer for what comes twice a minute.
        let payload = std::mem::take(&mut self.control);
        match control {
            Control::Ping => replies.pong(payload),
            Control::Close => self.ended = Some(Ended::ByClient(close_code(&payload)?)),
            Control::Pong | Control::Reserved(_) => {}
        }
        Ok(())
    }
}

impl Violation {
    /// What the Close frame that answers says.
    pub fn code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            _ => CloseCode::Protocol,
        }
    }
}

impl Replies {
    /// Answers a ping. Whoever sends pings and does not read the answers gets the latest of them when it does.
    fn pong(&mut self, payload: Vec<u8>) {
        if self.bytes.len() >= REPLIES_MAX {
            self.unanswered = Some(payload);
        } else {
            self.push(Control::Pong, &payload);
        }
    }

    /// Says that no frame follows, and why.
    pub fn close(&mut self, code: CloseCode, why: &str) {
        let mut payload = u16::from(code).to_be_bytes().to_vec();
        payload.extend_from_slice(why.as_bytes());
        payload.truncate(CONTROL_MAX);
        self.unanswered = None;
        self.push(Control::Close, &payload);
    }

    /// What is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// So many bytes of it were sent.
    pub fn advance(&mut self, sent: usize) {
        self.bytes.drain(..sent.min(self.bytes.len()));
        if self.bytes.len() < REPLIES_MAX
            && let Some(payload) = self.unanswered.take()
        {
            self.push(Control::Pong, &payload);
        }
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    fn push(&mut self, control: Control, payload: &[u8]) {
        let header = FrameHeader { opcode: OpCode::Control(control), ..FrameHeader::default() };
        // Writing to a Vec cannot fail.
        let _ = header.format(payload.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(payload);
    }
}

/// The code of a Close frame; one without any is a normal end.
fn close_code(payload: &[u8]) -> Result<CloseCode, Violation> {
    let Some((code, text)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(CloseCode::Normal) } else { Err(Violation::Close) };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if code.is_allowed() && std::str::from_utf8(text).is_ok() { Ok(code) } else { Err(Violation::Close) }
}

/// Takes the mask off, and turns it for what follows.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let turned = bytes.len() % mask.len();
    // Four at a time: the compiler makes vectors of that, but not of single bytes.
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(*mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter()) {
        *byte ^= mask;
    }
    mask.rotate_left(turned);
}

#[cfg(test)]
mod tests;
