//! Bytes on their way to a client, with large payloads left where they are.

use std::io::IoSlice;

use crate::codec::{PublishFrame, Version};
use crate::record::Message;

/// Payloads up to this many bytes are copied behind their head; larger ones are written from the message
/// itself. Copying 512 bytes costs about as much as counting a reference and one more vector entry.
const COPIED_MAX: usize = 512;

/// How many pieces are handed to one write.
const SLICES_MAX: usize = 64;

/// Bytes that were written and are kept because others behind them were not.
const WRITTEN_MAX: usize = 64 * 1024;

/// Encoded packets in order. Small payloads are inside `bytes`, large ones are referred to by position.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Everything but the large payloads.
    pub bytes: Vec<u8>,
    /// Large payloads, each with the position in `bytes` it goes before.
    payloads: Vec<(usize, Message)>,
    payload_bytes: usize,
    /// Of the whole, bytes written so far.
    written: usize,
}

impl Outgoing {
    /// Bytes that are still to be written.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.payload_bytes - self.written
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a PUBLISH.
    pub fn publish(&mut self, version: Version, frame: &PublishFrame<'_>, message: &Message) {
        frame.encode_head(version, &mut self.bytes);
        if message.payload().len() <= COPIED_MAX {
            self.bytes.extend_from_slice(message.payload());
        } else {
            self.payload_bytes += message.payload().len();
            self.payloads.push((self.bytes.len(), message.clone()));
        }
    }

    /// Hands what is left to `write`, as vectored pieces (a limited number at once).
    pub fn with_slices<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        if self.payloads.is_empty() {
            return write(&[IoSlice::new(self.bytes.get(self.written..).unwrap_or_default())]);
        }
        let mut slices = smallvec::SmallVec::<[IoSlice<'_>; SLICES_MAX]>::new();
        let mut skip = self.written;
        for piece in self.pieces() {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            slices.push(IoSlice::new(piece.get(skip..).unwrap_or_default()));
            skip = 0;
            if slices.len() == SLICES_MAX {
                break;
            }
        }
        write(&slices)
    }

    /// Notes that so many bytes were written. When nothing is left the buffer is empty again.
    pub fn advance(&mut self, written: usize) {
        self.written += written.min(self.len());
        if self.is_empty() {
            self.clear();
        } else if self.written >= WRITTEN_MAX && self.written >= self.len() {
            self.let_go();
        }
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.payloads.clear();
        self.payload_bytes = 0;
        self.written = 0;
    }

    /// Lets go of what was written, for a client that is always a little behind. At least as much goes as
    /// stays and is moved, so that each byte is moved once on average.
    fn let_go(&mut self) {
        let (mut passed, mut whole) = (0, 0);
        for (at, message) in &self.payloads {
            let end = at + passed + message.payload().len();
            if end > self.written {
                break;
            }
            passed += message.payload().len();
            whole += 1;
        }
        self.payload_bytes -= passed;
        self.written -= passed;
        self.payloads.drain(..whole);
        // A payload that was begun stays, and what was written of it still counts.
        let written = self.payloads.first().map_or(self.written, |(at, _)| self.written.min(*at));
        self.bytes.drain(..written);
        self.written -= written;
        self.payloads.iter_mut().for_each(|(at, _)| *at -= written);
    }

    /// The pieces of the whole, in order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        let ends = self.payloads.iter().map(|(at, message)| (*at, message.payload()));
        ends.chain([(self.bytes.len(), &[][..])]).flat_map(move |(end, payload)| {
            let head = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            [head, payload]
        })
    }
}
